"""What `throughline doctor` looks at: one finding per thing that can be wrong, with what to do."""

from collections.abc import Callable
from dataclasses import dataclass

from app import config, db, errors, queue
from app.store import health


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
    checks: list[Callable[[], Finding]] = [_schema, _broker, _workers, _overdue, _lines]
    return [settings, database, *(check() for check in checks)]


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
        return Finding("Postgres", False, "cannot be reached", "start it, or correct DATABASE_URL")
    return Finding("Postgres", True, version)


def _schema() -> Finding:
    with db.transaction() as session:
        have, want = health.schema_version(session), health.schema_head()
    remedy = "" if have == want else "run `throughline migrate`"
    return Finding("schema", have == want, f"{have or 'none'}, newest is {want}", remedy)


def _broker() -> Finding:
    try:
        free = queue.room()
    except errors.BrokerAway:
        remedy = "start Redis, or correct REDIS_URL (BROKER_URL); until then workers take due work from Postgres"
        return Finding("Redis", False, "cannot be reached", remedy)
    waiting = sum(queue.MOST_WAITING - room for room in free.values())
    return Finding("Redis", True, f"{waiting} messages waiting")


def _workers() -> Finding:
    with db.transaction() as session:
        alive = health.living_workers(session, dead=config.settings().lease_dead_seconds)
    remedy = "" if alive else "start a worker: celery -A tasks.celery worker --pool threads"
    return Finding("workers", alive > 0, f"{alive} alive", remedy)


def _overdue() -> Finding:
    with db.transaction() as session:
        late, oldest = health.overdue(session)
    ok = oldest < 60
    remedy = "" if ok else "look at the workers' logs; `throughline show ID` tells what a workflow waits for"
    return Finding("due work", ok, f"{late} due, the oldest for {oldest:.0f} s", remedy)


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
