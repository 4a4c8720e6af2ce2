"""What is measured, one function each, on a running installation. A number means little by itself; see `targets`."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bench import load
from bench.installation import BenchFailed, Installation, wait_for

CHAINS = 400
CLAIMS = 300
FIRST_CLAIMS = 32  # not timed: they warm up the web process
HEALTH_CHECKS = 1_000
IDLE = 30
KILLS = 3
DRAIN_SECONDS = 90.0
TAKE_SECONDS = 30.0
_HELD_CALL_SECONDS = 20

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Drained:
    """How a worker got through a backlog: pieces of work per second; what each cost in CPU milliseconds by process,
    in writing transactions and in Redis commands; how many tasks it ran for each."""

    rate: float
    cpu: Mapping[str, float]
    counts: Mapping[str, float]
    tasks: float


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Requests per second, latencies and the web process's CPU milliseconds per request."""

    ran: load.Ran
    cpu: float


def baseline(on: Installation, say: Say) -> tuple[Drained, Sequence[float]]:
    """(a) What Celery alone does with chains of five tasks, and how long one takes while nothing else runs."""
    ends = on.folder / "ends"
    ends.touch()
    say(f"sending {CHAINS} chains of tasks that do nothing")
    on.run_python("-m", "bench.baseline", "backlog", str(CHAINS))
    say("running them")
    meter = Meter(on)
    ready = meter.start_worker("baseline", app="bench.baseline")
    wait_for(lambda: ends.read_text().count("\n") >= CHAINS, seconds=DRAIN_SECONDS, why="the chains ended")
    drained = meter.read(CHAINS, seconds=max(map(float, ends.read_text().split())) - ready)
    say("one chain after the other")
    idle = json.loads(on.run_python("-m", "bench.baseline", "idle", str(IDLE)))
    on.stop("baseline")
    return drained, idle


def intake(on: Installation, say: Say) -> tuple[Intake, Intake]:
    """(c) Claims accepted while no worker runs, and the health check under the same load."""
    say(f"{HEALTH_CHECKS} health checks, {load.THREADS} at a time")
    checks = _asked(on, [load.health()] * HEALTH_CHECKS, say)
    load.run(on.at.web, [load.claim(number, on.key) for number in range(FIRST_CLAIMS)], tick=_silent)
    say(f"{CLAIMS} claims, {load.THREADS} at a time")
    numbers = range(FIRST_CLAIMS, FIRST_CLAIMS + CLAIMS)
    return _asked(on, [load.claim(number, on.key) for number in numbers], say), checks


def _asked(on: Installation, requests: Sequence[load.Request], say: Say) -> Intake:
    before, done = on.used()["web"], [0]

    def tick() -> None:
        done[0] += 1
        if done[0] % 100 == 0:
            say(f"{done[0]} of {len(requests)}")

    ran = load.run(on.at.web, requests, tick=tick)
    return Intake(ran=ran, cpu=1_000 * (on.used()["web"] - before) / len(requests))


def drain(on: Installation, say: Say) -> Drained:
    """(b) The accepted claims, from a fresh worker's readiness to the last claim final. CPU includes the texts."""
    number = FIRST_CLAIMS + CLAIMS
    say(f"{number} claims wait; starting the worker")
    meter = Meter(on)
    ready = meter.start_worker("worker")

    def all_done() -> bool:
        steps = int(on.sql("SELECT count(*) FROM moves WHERE of IS NOT NULL"))
        say(f"{steps} of {6 * number} steps are done")
        return steps == 6 * number

    wait_for(all_done, seconds=DRAIN_SECONDS, why="every claim and text came to its end", pause=1.0)
    last = on.sql("SELECT extract(epoch FROM max(finished_at)) FROM workflows WHERE kind = 'claim'")
    drained = meter.read(number, seconds=float(last) - ready)
    _each_once(on, number)
    return drained


def _each_once(on: Installation, number: int) -> None:
    """Speed counts only where every effect happened exactly once."""
    ledger = on.ledger()
    for kind in ("claims", "expenses", "submissions", "texts"):
        found = [entry["count"] for entry in ledger[kind]]
        if len(found) != number or any(count != 1 for count in found):
            raise BenchFailed(
                f"{number} {kind} were to happen once each; the sandbox saw {len(found)}, {sum(found)} times"
            )


def idle(on: Installation, say: Say) -> Sequence[float]:
    """(d) A claim whose caller waits, while nothing else runs: from POST to the final answer, many times."""
    say(f"{IDLE} claims, one after the other, whose caller waits")
    first = 2_000
    requests = [load.claim(number, on.key, wait=20) for number in range(first, first + IDLE)]
    return load.run(on.at.web, requests, threads=1, tick=_silent).latencies


def payments(on: Installation, say: Say) -> Sequence[float]:
    """(e) Declarations paid one after the other on an idle system: from each 202 to MDG's receipt, in seconds."""
    say(f"{IDLE} declarations, paid one after the other")
    key = on.client("passengers", "--scope", "declarations")
    submits = [load.declaration(number, key) for number in range(IDLE)]
    load.run(on.at.web, submits, threads=1, tick=_silent)
    paid_at = {}
    for number in range(IDLE):
        reference = on.sql(_REFERENCE, f"declared-{number}")
        load.run(on.at.web, [load.payment(reference, key)], threads=1, tick=_silent)
        paid_at[reference] = time.time()
        wait_for(lambda: on.sql(_SUBMITTED) > number, seconds=TAKE_SECONDS, why="it was sent", pause=0.01)  # noqa: B023 - called at once
    received = {entry["chargeReference"]: datetime.fromisoformat(entry["at"]) for entry in on.ledger()["declarations"]}
    return [received[reference].timestamp() - at for reference, at in paid_at.items()]


_REFERENCE = "SELECT charge_reference FROM declarations JOIN workflows USING (id) WHERE correlation_id = %s"
_SUBMITTED = "SELECT count(*) FROM workflows WHERE kind = 'declaration' AND state = 'submitted'"


def recovery(on: Installation, say: Say) -> Sequence[float]:
    """(f) Two workers; the one that holds a call is killed: how long until the row is taken again, three times."""
    names = ["worker", "worker-1"]
    on.start_worker(names[1])
    found = []
    for number in range(KILLS):
        say(f"kill -9 number {number + 1} of {KILLS}")
        found.append(_taken_again(on, names, 3_000 + number))
        if number + 1 < KILLS:
            names.append(f"worker-{number + 2}")
            on.start_worker(names[-1])
    wait_for(
        lambda: on.sql("SELECT count(*) FROM workflows WHERE wake_at IS NOT NULL") == 0,
        seconds=DRAIN_SECONDS,
        why="what the killed workers held came to its end",
    )
    return found


def _taken_again(on: Installation, names: list[str], number: int) -> float:
    match = {"correlation_id": f"bench-{number}"}
    on.fault(call="create-claim", fault="hang-after", seconds=_HELD_CALL_SECONDS, times=1, match=match)
    load.run(on.at.web, [load.claim(number, on.key)], threads=1, tick=_silent)
    who = f"bench-{number}"
    wait_for(lambda: on.sql(_HELD, who), seconds=TAKE_SECONDS, why="the call was made")
    pid = on.sql(_HELD, who)
    name = next(name for name in names if on.pid(name) == pid)
    killed = time.monotonic()
    on.kill(name)
    names.remove(name)
    wait_for(lambda: on.sql(_TAKEN, pid, who), seconds=TAKE_SECONDS, why="taken again", pause=0.005)
    return time.monotonic() - killed


# The process that holds the claim with its call sent; and whether, since that one died, another one had it.
_HELD = """
    SELECT k.pid FROM workflows w JOIN workers k ON k.id = w.worker
    WHERE w.kind = 'claim' AND w.correlation_id = %s AND w.in_doubt
"""
_TAKEN = """
    SELECT w.state <> 'appointment-found' OR w.worker IS NOT NULL AND k.pid <> %s
    FROM workflows w LEFT JOIN workers k ON k.id = w.worker
    WHERE w.kind = 'claim' AND w.correlation_id = %s
"""


class Meter:
    """What a worker uses, from its readiness on."""

    def __init__(self, on: Installation) -> None:
        self._on = on
        self._name = ""
        self._used: Mapping[str, float] = {}
        self._counted: Mapping[str, float] = {}

    def start_worker(self, name: str, app: str = "tasks.celery") -> float:
        ready = self._on.start_worker(name, app)
        self._name, self._used, self._counted = name, self._on.used(name), self._on.counted()
        return ready

    def read(self, number: int, *, seconds: float) -> Drained:
        """What it came to, for `number` pieces of work done in so many seconds."""
        used, counted = self._on.used(self._name), self._on.counted()
        return Drained(
            rate=number / seconds,
            cpu={name: 1_000 * (used[name] - before) / number for name, before in self._used.items()},
            counts={name: (counted[name] - before) / number for name, before in self._counted.items()},
            tasks=self._on.log(self._name).read_text(errors="replace").count("] received") / number,
        )


def _silent() -> None:
    """For what is too short to report."""


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]
