"""What `throughline doctor` and `throughline alive` look at: a finding per thing that can be wrong, with what to do."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from app import config, db, errors, queue
from app.store import health, ticks, workers
from app.store.workers import Pulse

STUCK_SECONDS = 30.0  # a worker that shows no sign for so long does nothing
_RESTART = "restart it; what it holds goes on elsewhere (docs/runbook.md)"
_CALENDAR_SECONDS = 120.0  # the jobs that run most often come every 15 s (tasks/beat.py)


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    detail: str
    remedy: str = ""


def run() -> list[Finding]:
    """All findings in the order in which to mend them; what an earlier one stands in the way of is left out."""
    settings = _settings()
    if not settings.ok:
        return [settings]
    database = _database()
    if not database.ok:
        return [settings, database, _broker()]
    schema = _schema()
    if not schema.ok:
        return [settings, database, schema, _broker()]
    checks: list[Callable[[], Finding]] = [_broker, _workers, _overdue, _calendar, _lines]
    return [settings, database, schema, *(check() for check in checks)]


def _settings() -> Finding:
    try:
        config.settings()
    except errors.BadSettings as error:
        return Finding(
            "environment", False, str(error), "set these variables; docs/configuration.md says what each must look like"
        )
    return Finding("environment", True, "complete")


def _database() -> Finding:
    try:
        with db.transaction() as session:
            version = health.postgres_version(session)
    except Exception as error:
        if not db.unreachable(error):
            raise
        if said := db.refusal(error):
            return Finding("Postgres", False, said, "correct DATABASE_URL, or wait while it starts")
        return Finding("Postgres", False, "cannot be reached", "start it, or correct DATABASE_URL")
    return Finding("Postgres", True, version)


def _schema() -> Finding:
    with db.transaction() as session:
        have, want = health.schema_version(session), health.schema_head()
    if not health.schema_serves(have):
        return Finding("schema", False, f"{have or 'none'}, newest is {want}", "run `throughline migrate`")
    return Finding("schema", True, f"{have}, newest is {want}" if have == want else f"{have}, newer than our {want}")


def _broker() -> Finding:
    try:
        waiting = sum(queue.waiting().values())
    except errors.BrokerAway:
        remedy = "start Redis, or correct REDIS_URL (BROKER_URL); until then workers take due work from Postgres"
        return Finding("Redis", False, "cannot be reached", remedy)
    return Finding("Redis", True, f"{waiting} messages waiting")


def _workers() -> Finding:
    dead = config.settings().lease_dead_seconds
    with db.transaction() as session:
        alive = [one for one in workers.pulses(session) if one.silent <= dead]
    if not alive:
        return Finding("workers", False, "0 alive", "start a worker: celery -A tasks.celery worker")
    wrongs = [(one, trouble(one)) for one in alive]
    stuck = [f"process {one.pid} on {one.host}: {wrong}" for one, wrong in wrongs if wrong]
    return Finding("workers", not stuck, "; ".join([f"{len(alive)} alive", *stuck]), _RESTART if stuck else "")


def workers_here() -> list[Finding]:
    """The worker processes of this host, each a finding; one finding if there is none, or Postgres cannot tell."""
    try:
        with db.transaction() as session:
            here = [one for one in workers.pulses(session) if one.host == socket.gethostname() and _exists(one.pid)]
    except Exception as error:
        if not db.unreachable(error):
            raise
        return [Finding("workers", True, "cannot be told, Postgres cannot be reached; that is no fault of a worker")]
    if not here:
        return [Finding("workers", False, f"none is known on {socket.gethostname()}", "start one")]
    return [_worker(one) for one in here]


def _worker(pulse: Pulse) -> Finding:
    wrong = trouble(pulse)
    does = "takes what is due" if pulse.signs else "beats"
    return Finding(f"worker {pulse.pid}", not wrong, wrong or does, _RESTART if wrong else "")


def trouble(pulse: Pulse) -> str:
    """Why this worker does nothing, though there is something to do; empty where that is not so.

    Its heartbeat, its sweep, or its taking of work of some kind has shown no sign for `STUCK_SECONDS`, or longer where
    the periods in the settings are long. Taking counts as stuck only if at every look in that time a message of the
    kind waited in Redis, or its last task had failed by an error of our own, and a row of it had been due and free for
    twice REDISPATCH_SECONDS, while no step of it was begun here nor one under way within its lease. So what an
    upstream's limit or breaker holds back is no sign: its messages are read, or not even sent.
    """
    settings = config.settings()
    limit = max(STUCK_SECONDS, 5 * settings.sweep_seconds, 2 * settings.lease_dead_seconds)
    if pulse.silent > limit:
        return f"no heartbeat for {pulse.silent:.0f} s; it is stopped, or hangs in its start"
    if pulse.signs is None:
        return ""
    if pulse.signs.swept > limit:
        return f"its sweep has not ended a round for {pulse.signs.swept:.0f} s"
    idle, kind = pulse.signs.idle, pulse.signs.kind
    return f"has taken no {kind} for {idle:.0f} s, though one is due" if idle > limit else ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _overdue() -> Finding:
    """What waits because its upstream takes no more now is told and nothing wrong. A full queue excuses nobody: it is
    full where nobody reads it, too."""
    try:
        waiting = queue.backlogs()
    except errors.BrokerAway:
        waiting = {}
    held, full = (sorted(kind for kind in waiting if waiting[kind] == why) for why in (queue.UPSTREAM, queue.FULL))
    with db.transaction() as session:
        late, oldest = health.overdue(session, held)
    told = f"{late} due, the oldest for {oldest:.0f} s"
    if held:
        told += f"; held back by their upstream: {', '.join(held)}"
    if full:
        told += f"; behind a full queue: {', '.join(full)}"
    ok = oldest < 60
    remedy = "" if ok else "look at the workers' logs; `throughline show ID` tells what a workflow waits for"
    return Finding("due work", ok, told, remedy)


def _calendar() -> Finding:
    """Whether its jobs run. A worker that has just been started, with beat or before it, is given time."""
    with db.transaction() as session:
        silent = ticks.silence(session, dead=config.settings().lease_dead_seconds)
    if silent <= _CALENDAR_SECONDS:
        return Finding("calendar", True, "its jobs run")
    remedy = "start beat: celery -A tasks.celery beat; if one runs, look at its log and the workers'"
    return Finding("calendar", False, f"no job has begun for {silent:.0f} s", remedy)


def _lines() -> Finding:
    settings = config.settings()
    lines = (
        ("travel claims", settings.travel_pay),
        ("texts", settings.notify),
        ("passenger declarations", settings.mdg),
        ("digital vouchers", settings.imovo),
    )
    on = [name for name, there in lines if there]
    none = "none is on (TRAVEL_PAY_URL, MDG_URL, IMOVO_URL are not set)"
    return Finding("lines", True, ", ".join(on) if on else none)
