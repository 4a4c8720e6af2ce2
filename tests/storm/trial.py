"""One trial: callers of all three lines at one installation until all is at rest, and then the accounts."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import requests
from psycopg.rows import dict_row

from bench.installation import Installation
from tests.storm import claims, declarations, orders, upstreams, vouchers
from tests.storm.accounts import MISSING, WORKFLOWS, Account, Row
from tests.storm.callers import Callers, Rotation
from tests.storm.orders import VOUCHERS, Claim, Declaration, Order, Subscription
from tests.storm.pace import Pace
from tests.storm.sent import Sent

_UNFINISHED = """
    SELECT id FROM workflows
    WHERE finished_at IS NULL AND state NOT IN ('pending-payment', 'payment-failed', 'payment-cancelled')
"""
_SCOPES = ("--scope", "claims", "--scope", "declarations", "--scope", "vouchers", "--product", "pci")
_READ_SECONDS, _READERS = 10.0, 8


class Trial:
    """`begin`, whatever is to happen meanwhile while `goes_on`, `settle`, then `accounts`; `end` in any case."""

    def __init__(
        self,
        on: Installation,
        seed: int,
        workflows: int,
        say: Callable[[str], None],
        *,
        at: Sequence[str],
        rest: float = 0,
    ) -> None:
        """`at`: where the API is, unless the rotation is told later. `rest`: that of each caller between two orders."""
        self.dice = random.Random(seed)
        self.orders: list[Order] = orders.chosen(self.dice, seed, workflows)
        self.on, self._say = on, say
        self.key = on.client("storm", *_SCOPES)
        self.rotation = Rotation(at)
        self.pace = Pace(on.postgres.url, target=workflows, say=say)
        self.callers = Callers(self.rotation, self.key, self.orders, room=self.pace.room, rest=rest)
        self.sent = Sent(lambda path: on.control("GET", path))
        self.unfinished: list[str] = []
        self.faults: dict[str, int] = {}
        self._set: list[int] = []
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="sent", daemon=True)

    def prepare(self) -> None:
        """The upstreams as they will be; processes that start from now on have the trial's settings."""
        upstreams.refuse(self.on, self.orders)
        self.on.environment.update(upstreams.SETTINGS)
        self._set = upstreams.trouble(self.on, random.Random(self.dice.getrandbits(32)))

    def begin(self) -> None:
        self.pace.start()
        self._reader.start()
        self.callers.start()

    @property
    def goes_on(self) -> bool:
        """Whether callers have still something to ask for, and there is any progress."""
        return self.callers.busy and not self.pace.stuck

    def settle(self, meanwhile: Callable[[], None]) -> None:
        """Wait until nothing is unfinished, or nothing comes to its end any more."""
        self.faults = upstreams.calm(self.on, self._set)
        self._say("calm: waiting until nothing is unfinished")
        self.callers.close()
        while True:
            busy = self.callers.busy  # asked for before the rows, or a last one might be overlooked
            self.unfinished = [str(row["id"]) for row in self._rows(_UNFINISHED)]
            if not (busy or self.unfinished) or self.pace.stuck:
                break
            meanwhile()
            time.sleep(0.5)
        self._say(self.pace.line())

    def end(self) -> None:
        self._over.set()
        self.callers.end()
        self.pace.end()

    def _read(self) -> None:
        while not self._over.wait(_READ_SECONDS):
            with contextlib.suppress(OSError):
                self.sent.read()

    def _rows(self, query: str) -> list[Row]:
        with psycopg.connect(self.on.postgres.url, row_factory=dict_row) as connection:
            return list(connection.execute(query).fetchall())

    # Afterwards

    def accounts(self) -> list[Account]:
        """Of claims, texts, declarations and vouchers."""
        self._over.set()
        self._reader.join()
        self.sent.read()
        self.pace.look()
        ledger = self.on.ledger()
        common = {row["id"]: row for row in self._rows(WORKFLOWS)}

        def rows(query: str) -> list[Row]:
            return [{**common[own["id"]], **own} for own in self._rows(query)]

        filed = [one for one in self.orders if isinstance(one, Claim)]
        declared = [one for one in self.orders if isinstance(one, Declaration)]
        subscribed = [one for one in self.orders if isinstance(one, Subscription)]
        claim_rows = rows(claims.CLAIMS)
        shown = self._shown(subscribed)
        told = [
            claims.account(filed, claim_rows, ledger),
            claims.texts(claim_rows, rows(claims.TEXTS), ledger),
            declarations.account(declared, rows(declarations.ROWS), ledger, self.sent.declarations),
            vouchers.account(subscribed, rows(vouchers.ROWS), ledger, self.sent.vouchers, shown),
        ]
        for one in self.unfinished:
            told[-1].add(MISSING, one, "it is not finished")
        return told

    def _shown(self, subscribed: Sequence[Subscription]) -> dict[str, Any]:
        """The codes of each subscription that the API shows live."""
        url = self.rotation.any()

        def shown(some: Sequence[Subscription]) -> dict[str, Any]:
            with requests.Session() as session:
                session.headers["x-api-key"] = self.key
                answers = {one.id: session.get(f"{url}{VOUCHERS}/{one.id}", timeout=30) for one in some}
            return {subscription: answer.json() for subscription, answer in answers.items() if answer.ok}

        found: dict[str, Any] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            for some in pool.map(shown, [subscribed[number::_READERS] for number in range(_READERS)]):
                found |= some
        return found
