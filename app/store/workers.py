"""Living workers, and the sweep's two statements: take away what nobody tends, pick what is due."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models.workflow import Worker
from app.store.workflows import _SEEN, NOW, Seen, W, seconds

_SWEEP_LOCK = 7_301_001


def beat(session: Session, worker: UUID, *, host: str, pid: int, release: str) -> None:
    """Say that this incarnation lives."""
    row = insert(Worker).values(id=worker, host=host, pid=pid, release=release)
    session.execute(row.on_conflict_do_update(index_elements=[Worker.id], set_={"beat_at": NOW}))


def only_one_sweeps(session: Session) -> bool:
    """True for one transaction at a time in the whole system."""
    return bool(session.execute(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))).scalar())


def take_away(session: Session, *, dead: float, limit: int = 500) -> list[tuple[Seen, bool]]:
    """Free what is held by the dead, or longer than its holder said. Returns each row as it is now, and whether its
    holder died (heartbeat older than `dead` seconds, while Postgres itself was up that long)."""
    silent = or_(Worker.beat_at.is_(None), Worker.beat_at < NOW - seconds(dead))
    died = silent & (func.pg_postmaster_start_time() < NOW - seconds(dead))
    held = (
        select(W.c.id, died.label("died"))
        .select_from(W.outerjoin(Worker, Worker.id == W.c.worker))
        .where(W.c.worker.is_not(None), or_(died, W.c.wake_at <= NOW))
        .limit(limit)
        .with_for_update(of=W, skip_locked=True)
    )
    dead_rows = {row.id: bool(row.died) for row in session.execute(held)}
    if not dead_rows:
        return []
    freed = (
        update(W)
        .where(W.c.id.in_(dead_rows))
        .values(
            worker=None,
            fence=W.c.fence + 1,
            wake_at=NOW,
            crashes=W.c.crashes
            + W.c.id.in_([row_id for row_id, gone in dead_rows.items() if gone]).cast(W.c.crashes.type),
        )
        .returning(*_SEEN)
    )
    return [(seen := Seen(**row._mapping), dead_rows[seen.id]) for row in session.execute(freed)]


_DUE = text("""
    WITH due AS (
        SELECT id, priority, wake_at, row_number() OVER (PARTITION BY client_id, priority ORDER BY wake_at) AS turn
        FROM workflows
        WHERE wake_at <= clock_timestamp() AND worker IS NULL AND priority = ANY(:priorities)
    ), next AS (
        SELECT id, priority, turn, wake_at FROM due ORDER BY priority, turn, wake_at LIMIT :most
    ), free AS (
        SELECT w.id FROM workflows w JOIN next USING (id)
        WHERE w.wake_at <= clock_timestamp() AND w.worker IS NULL
        FOR UPDATE OF w SKIP LOCKED
    ), picked AS (
        UPDATE workflows SET wake_at = clock_timestamp() + make_interval(secs => :again)
        FROM free WHERE workflows.id = free.id
        RETURNING workflows.id, kind, state
    )
    SELECT id, kind, state, priority FROM picked JOIN next USING (id) ORDER BY priority, turn, next.wake_at
""")


def pick_due(session: Session, room: Mapping[int, int], *, again: float) -> list[tuple[UUID, str, str, int]]:
    """Due workflows, those somebody waits for first, then round robin over clients, oldest first.

    `room` says how many of each priority. They are looked at again in `again` seconds unless somebody takes them.
    """
    picked = []
    for priority, most in room.items():
        if most > 0:
            rows = session.execute(_DUE, {"priorities": [priority], "most": most, "again": again})
            picked += [(row.id, row.kind, row.state, row.priority) for row in rows]
    return picked


def let_go(session: Session, worker: UUID) -> int:
    """Free all that this worker still holds, because it is about to exit. What was in doubt stays in doubt."""
    freed = update(W).where(W.c.worker == worker).values(worker=None, fence=W.c.fence + 1, wake_at=NOW)
    return session.execute(freed).rowcount  # type: ignore[attr-defined,no-any-return]


def forget_silent(session: Session, *, after: float) -> int:
    """Drop workers that have been silent for `after` seconds and hold nothing."""
    statement = text(
        "DELETE FROM workers k WHERE beat_at < clock_timestamp() - make_interval(secs => :after) "
        "AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.worker = k.id)"
    )
    return session.execute(statement, {"after": after}).rowcount  # type: ignore[attr-defined,no-any-return]
