"""Living workers: heartbeat, signs of work, and end."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Float, func, null, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.models.workflow import Worker
from app.store import due
from app.store.workflows import _SEEN, NOW, Seen, W, seconds


@dataclass(frozen=True, kw_only=True)
class Signs:
    """How many seconds ago a worker's sweep ended a round, and for how many it has taken nothing of the kind that it
    has neglected longest, though there was something to take."""

    swept: float
    idle: float
    kind: str


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """A worker as its last heartbeat shows it; for how many seconds Postgres, while it was up, has heard none.

    Without signs: it is of a release that shows none, or has not become ready.
    """

    host: str
    pid: int
    silent: float
    signs: Signs | None


def beat(session: Session, worker: UUID, *, host: str, pid: int, release: str, signs: Signs | None = None) -> None:
    """Say that this incarnation lives, over which connection it says so, and what it shows of its work."""
    said: dict[str, Any] = dict.fromkeys(("swept_at", "idle_at", "idle_kind"), null())
    if signs:
        said = {"swept_at": NOW - seconds(signs.swept), "idle_at": NOW - seconds(signs.idle), "idle_kind": signs.kind}
    said["backend"] = func.pg_backend_pid()
    row = upsert(Worker).values(id=worker, host=host, pid=pid, release=release, **said)
    session.execute(row.on_conflict_do_update(index_elements=[Worker.id], set_={"beat_at": NOW, **said}))


def pulses(session: Session) -> Sequence[Pulse]:
    """Every process that was a worker in the last hour, by host and pid; of several that had the pid the last one."""
    heard = func.greatest(Worker.beat_at, func.pg_postmaster_start_time())
    ages = [func.extract("epoch", NOW - at).cast(Float) for at in (heard, Worker.swept_at, Worker.idle_at)]
    rows = session.execute(select(Worker.host, Worker.pid, *ages, Worker.idle_kind).order_by(Worker.started_at))
    last = {
        (host, pid): Pulse(
            host=host, pid=pid, silent=silent,
            signs=None if swept is None else Signs(swept=swept, idle=idle, kind=kind),
        )
        for host, pid, silent, swept, idle, kind in rows
    }  # fmt: skip
    return list(last.values())


# Each kind reads the index of what wakes (ix_workflows_wake) in its order, up to its own first row: no backlog of
# others hides it, but 100,000 rows of others before it cost some 50 ms.
_LONG_DUE = text("""
    SELECT kind FROM unnest(CAST(:kinds AS text[])) AS asked(kind), LATERAL (
        SELECT FROM workflows w
        WHERE w.kind = asked.kind AND wake_at <= now() + make_interval(secs => :again)
          AND due_at <= now() - make_interval(secs => 2 * :again) AND worker IS NULL AND for_release IS NULL
        ORDER BY priority, wake_at LIMIT 1
    ) AS first
""")


def long_due(session: Session, kinds: Collection[str], *, again: float) -> set[str]:
    """Of which of these kinds a row has been due and free for twice the time (`again`, in seconds) after which it is
    offered anew.

    What is kept for one release is not for everybody.
    """
    return set(session.scalars(_LONG_DUE, {"kinds": list(kinds), "again": again}))


def let_go(session: Session, worker: UUID) -> int:
    """Free all that this worker still holds, because it is about to exit. What was in doubt stays in doubt."""
    held = session.execute(select(*_SEEN).where(W.c.worker == worker).with_for_update(skip_locked=True))
    return len(due.free(session, [Seen(**row._mapping) for row in held]))


def forget_silent(session: Session, *, after: float) -> int:
    """Drop workers that have been silent for `after` seconds and hold nothing."""
    statement = text(
        "DELETE FROM workers k WHERE beat_at < clock_timestamp() - make_interval(secs => :after) "
        "AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.worker = k.id)"
    )
    return session.execute(statement, {"after": after}).rowcount  # type: ignore[attr-defined,no-any-return]
