"""Clients of all lines: work placed in bulk, or one piece after the other and how long each took."""

import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Sequence

from bench import load
from bench.installation import Installation, wait_for
from bench.targets import Row

PROBES = 20
WARM_UPS = 3
MOST_SECONDS = 60.0
MEDIAN_RATIO, WORST_SECONDS = 2.0, 3.0
VOUCHERS = "/DEV/digital-voucher"

_SCOPES = ("--scope", "claims", "--scope", "declarations", "--scope", "vouchers", "--product", "pci")
_numbers = itertools.count()  # each names one piece of work, whoever places it
_ID = "SELECT id::text FROM clients WHERE name = %s"
_REFERENCE = """
    SELECT charge_reference FROM workflows JOIN declarations USING (id)
    WHERE client_id = %s AND kind = 'declaration' AND correlation_id = %s
"""
_TOOK = """
    SELECT extract(epoch FROM finished_at - coalesce(paid_at, created_at))::float
    FROM workflows w LEFT JOIN declarations USING (id)
    WHERE client_id = %s AND w.kind = %s AND correlation_id = %s AND state IN ('submitted', 'succeeded')
"""


class Client:
    """One of the clients of an installation. What it places carries a correlation id, which is returned."""

    def __init__(self, on: Installation, name: str) -> None:
        self.on, self.key = on, on.client(name, *_SCOPES)
        self.id = str(on.sql(_ID, name))

    def send(self, requests: Iterable[load.Request], *, threads: int = 1) -> load.Ran:
        """Raises WrongAnswer for any but the expected status."""
        return load.run(self.on.at.web, requests, threads=threads, tick=_nothing)

    def claims(self, number: int) -> list[str]:
        numbers = [next(_numbers) for _ in range(number)]
        self.send([load.claim(one, self.key) for one in numbers], threads=load.THREADS)
        return [f"bench-{one}" for one in numbers]

    def posts(self, number: int) -> list[float]:
        """The seconds in which so many claims were accepted, one after the other."""
        return list(self.send([load.claim(next(_numbers), self.key) for _ in range(number)]).latencies)

    def declarations(self, number: int) -> list[str]:
        """Submitted and not paid for."""
        numbers = [next(_numbers) for _ in range(number)]
        self.send([load.declaration(one, self.key) for one in numbers], threads=load.THREADS)
        return [f"declared-{one}" for one in numbers]

    def notice(self, declared: str) -> load.Request:
        """The notice that this declaration is paid."""
        return load.payment(self.on.sql(_REFERENCE, self.id, declared), self.key)

    def vouchers(self, number: int) -> list[str]:
        """Created, without waiting for them; each id is its subscription's as well."""
        names = [f"subscribed{next(_numbers)}" for _ in range(number)]
        made = {"ratePlanName": "Everyday"}
        self.send([self._change("PUT", f"/{name}", name, made) for name in names], threads=load.THREADS)
        return names

    def _change(self, method: str, path: str, name: str, body: object) -> load.Request:
        headers = {"x-api-key": self.key, "Content-Type": "application/json", "Prefer": "respond-async"}
        headers["X-Correlation-ID"] = name
        sent = json.dumps(body).encode()
        done = {"PUT": 201, "POST": 200}[method]  # where it was carried out before the answer was written
        return load.Request(method=method, path=VOUCHERS + path, headers=headers, body=sent, status=202, or_status=done)

    # One piece of work, placed and waited for: the seconds from its acceptance, or payment, to its end

    def claim(self) -> float:
        return self._took("claim", *self.claims(1))

    def declaration(self) -> float:
        (declared,) = self.declarations(1)
        self.send([self.notice(declared)])
        return self._took("declaration", declared)

    def replacement(self) -> float:
        """Of a voucher made for it; its making does not count."""
        (subscription,) = self.vouchers(1)
        self._took("voucher-operation", subscription)
        name = f"{subscription}-replaced"
        body = {"subscriptionId": subscription, "replaceCard": True, "replaceLetter": True}
        self.send([self._change("POST", "/replace", name, body)])
        return self._took("voucher-operation", name)

    def _took(self, kind: str, name: str) -> float:
        return float(
            wait_for(
                lambda: self.on.sql(_TOOK, self.id, kind, name), seconds=MOST_SECONDS, why=f"{name} came to its end"
            )
        )


def in_turn(place: Callable[[], float], *, number: int = PROBES) -> list[float]:
    """The seconds that so many pieces of work took, one after the other."""
    return [place() for _ in range(number)]


def warm(*places: Callable[[], float]) -> None:
    for place in places:
        in_turn(place, number=WARM_UPS)


def compared(
    name: str, alone: Sequence[float], beside: Sequence[float], *, median: float = MEDIAN_RATIO,
    worst: float = WORST_SECONDS,
) -> list[Row]:  # fmt: skip
    """The median against the one measured alone, and the worst in seconds."""
    before, after, slowest = statistics.median(alone), statistics.median(beside), max(beside)
    return [
        Row(name=f"{name}, median", value=_ms(after), base=_ms(before), ratio=after / before, most=median),
        Row(name=f"{name}, worst", value=_ms(slowest), base=_ms(worst), ratio=slowest / worst, most=1),
    ]


def _ms(seconds: float) -> str:
    return f"{1_000 * seconds:.0f} ms"


def _nothing() -> None:
    """Nobody wants to hear of it."""
