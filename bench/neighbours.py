"""`make bench-neighbours`: what one line's backlog or outage costs the others, against the same measured alone.

`python -m bench.neighbours NAME ...` measures some scenarios only.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app.store import due
from bench import filling, load, outages, targets, withoutredis
from bench.__main__ import console, say
from bench.clients import Client, compared, in_turn, warm
from bench.installation import ROOT, BenchFailed, Installation, opened, wait_for
from bench.targets import Row
from local import services

LIMIT_SECONDS = 240
VOUCHERS, HUNG, ROWS = 1_000, 200, 50_000
HUNG_SECONDS = 30
EACH = 20
ROUNDS = 5
HANGING = {"travel-pay": 32, "mdg": 8}  # calls that can hang at once: WORKER_CONCURRENCY, MDG_MAX_IN_FLIGHT
_WAITS = "SELECT count(*) FROM workflows WHERE client_id = %s AND kind = %s AND finished_at IS NULL"


@dataclass(frozen=True)
class Scenario:
    """What is measured, on an installation of its own whose processes have these settings."""

    measure: Callable[[Installation], list[Row]]
    settings: Mapping[str, str] = field(default_factory=dict)


def vouchers(on: Installation) -> list[Row]:
    """(a) Claims and declarations beside a backlog of vouchers, which i-Movo takes at 10 per second."""
    ours, theirs = Client(on, "ours"), Client(on, "theirs")
    places = {"claim": ours.claim, "declaration": ours.declaration}
    alone = _alone(places)
    say(f"{VOUCHERS} vouchers are ordered")
    theirs.vouchers(VOUCHERS)
    rows = _beside(places, alone, f"beside {VOUCHERS} vouchers")
    _must_wait(on, theirs, "voucher-operation")
    return rows


def travel_pay_hangs(on: Installation) -> list[Row]:
    """(b) Declarations and replacements while every call to Travel Pay takes 30 s."""
    ours, theirs = Client(on, "ours"), Client(on, "theirs")
    places = {"declaration": ours.declaration, "replacement": ours.replacement}
    alone = _alone(places)
    on.fault(call="*", upstream="travel-pay", fault="delay", seconds=HUNG_SECONDS)
    theirs.claims(HUNG)
    return _hung(on, "travel-pay", lambda: _beside(places, alone, "while Travel Pay hangs"))


def mdg_hangs(on: Installation) -> list[Row]:
    """(b) The reverse: claims and replacements while every call to MDG takes 30 s."""
    ours, theirs = Client(on, "ours"), Client(on, "theirs")
    places = {"claim": ours.claim, "replacement": ours.replacement}
    alone = _alone(places)
    on.fault(call="*", upstream="mdg", fault="delay", seconds=HUNG_SECONDS)
    declared = theirs.declarations(HUNG)
    theirs.send([theirs.notice(one) for one in declared], threads=load.THREADS)
    return _hung(on, "mdg", lambda: _beside(places, alone, "while MDG hangs"))


def another_client(on: Installation) -> list[Row]:
    """(c) The claims of one client beside 50,000 of another, the sweep's look at them, and what accepting one costs."""
    ours, theirs = Client(on, "ours"), Client(on, "theirs")
    alone = _alone({"claim": ours.claim})["claim"]
    accepted = ours.posts(EACH)
    wait_for(lambda: not on.sql(_WAITS, ours.id, "claim"), seconds=60, why="all claims came to their end")
    on.stop("worker")
    say(f"{ROWS} claims of another client are made")
    filling.fill(on, theirs, ROWS)
    looks = _looks(on)
    on.start_worker("worker")
    beside = in_turn(ours.claim)
    busy = ours.posts(EACH)
    _must_wait(on, theirs, "claim")
    return [
        *compared(f"claim beside {ROWS}", alone, beside, median=25, worst=5),
        *compared("its POST", accepted, busy, median=3, worst=1),
        Row(name="the sweep's look, worst", value=f"{max(looks):.2f} s", base="1 s", ratio=max(looks), most=1),
    ]


Places = Mapping[str, Callable[[], float]]


def _alone(places: Places) -> dict[str, list[float]]:
    say(f"alone: {', '.join(places)}")
    warm(*places.values())
    return {name: in_turn(place) for name, place in places.items()}


def _beside(places: Places, alone: Mapping[str, list[float]], what: str) -> list[Row]:
    say(f"{what}: {', '.join(places)}")
    return [row for name, place in places.items() for row in compared(f"{name} {what}", alone[name], in_turn(place))]


def _must_wait(on: Installation, client: Client, kind: str) -> None:
    """Raises BenchFailed where the backlog has ended already: then nothing was measured."""
    if not on.sql(_WAITS, client.id, kind):
        raise BenchFailed(f"the backlog of {kind}s ended before the measurement did")


def _hung(on: Installation, upstream: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Measured while as many calls hang as can. The worker is killed, or it would wait for them."""

    def hanging() -> bool:
        calls = on.control("GET", f"calls?upstream={upstream}")["calls"]
        return sum(call["status"] is None for call in calls) >= HANGING[upstream]

    wait_for(hanging, seconds=20, why=f"{HANGING[upstream]} calls to {upstream} hang")
    rows = measure()
    if not hanging():
        raise BenchFailed(f"{upstream} did not hang all the while")
    on.kill("worker")
    return rows


def _looks(on: Installation) -> list[float]:
    """The seconds that the sweep's look at the due rows takes; what it picked is put back."""
    wanted = [due.Wanted(kind="claim", priority=1, entry="accepted", room=32, most=32)]
    found = []
    with Session(create_engine(on.postgres.url.replace("postgresql:", "postgresql+psycopg:"))) as session:
        for _ in range(ROUNDS):
            begun = time.monotonic()
            due.pick_due(session, wanted, again=5)
            found.append(time.monotonic() - begun)
            session.rollback()
    return found


SCENARIOS: Mapping[str, Scenario] = {
    "vouchers": Scenario(vouchers),
    "travel-pay-hangs": Scenario(travel_pay_hangs),
    "mdg-hangs": Scenario(mdg_hangs, {"MDG_READ_TIMEOUT": "45", "MDG_TOTAL_TIMEOUT": "60"}),
    "another-client": Scenario(another_client),
    "mdg-away": Scenario(outages.mdg_away, outages.MDG_SETTINGS),
    "travel-pay-away": Scenario(outages.travel_pay_away, outages.TRAVEL_PAY_SETTINGS),
    "redis-gone": Scenario(withoutredis.redis_gone),
}


def main(names: list[str]) -> int:
    """0: every limit was kept; 1: one was not; 2: something could not be measured."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    codes = [_run(name) for name in names or SCENARIOS]
    return max(codes)


def _run(name: str) -> int:
    one = SCENARIOS[name]
    say(f"{name} (load {os.getloadavg()[0]:.1f})")
    signal.alarm(LIMIT_SECONDS)
    var = ROOT / "var"
    var.mkdir(exist_ok=True)  # on the disk that `make up` uses: fsync must mean the same
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=var) as folder:
            Path(folder).chmod(0o755)  # Postgres runs as another user when we are root
            with opened(Path(folder)) as on:
                on.environment |= one.settings
                on.start_web()
                on.start_worker("worker")
                rows = one.measure(on)
                signal.alarm(0)
    except (BenchFailed, load.WrongAnswer, services.StartFailed, OSError) as problem:
        console.print(f"[bold red]Could not measure:[/] {problem}")
        return 2
    return targets.report(console, rows)


def _too_long(*_: Any) -> None:
    raise BenchFailed(f"it took longer than {LIMIT_SECONDS} s: this machine is too busy to measure")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
