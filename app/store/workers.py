"""Living workers, and the sweep's two statements: take away what nobody tends, pick what is due."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.models.workflow import Move, Worker
from app.store.workflows import _SEEN, NOW, Seen, W, seconds

_SWEEP_LOCK = 7_301_001


def beat(session: Session, worker: UUID, *, host: str, pid: int, release: str) -> None:
    """Say that this incarnation lives."""
    row = upsert(Worker).values(id=worker, host=host, pid=pid, release=release)
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
        select(*_SEEN, died.label("died"))
        .select_from(W.outerjoin(Worker, Worker.id == W.c.worker))
        .where(W.c.worker.is_not(None), or_(died, W.c.wake_at <= NOW))
        .limit(limit)
        .with_for_update(of=W, skip_locked=True)
    )
    rows = [dict(row._mapping) for row in session.execute(held)]
    died_of = {row["id"]: bool(row.pop("died")) for row in rows}
    taken = [Seen(**row) for row in rows]
    crashed = W.c.id.in_([one for one, gone in died_of.items() if gone]).cast(W.c.crashes.type)
    return [(seen, died_of[seen.id]) for seen in _free(session, taken, crashes=W.c.crashes + crashed)]


def _free(session: Session, held: Sequence[Seen], **values: Any) -> list[Seen]:
    """Free these locked rows, in doubt where they are; each as it is then."""
    if not held:
        return []
    rest = {seen.id: seen.machine.rest(seen.state, in_doubt=seen.in_doubt) for seen in held}
    moved = [seen for seen in held if rest[seen.id] != seen.state]
    state = case({seen.id: rest[seen.id] for seen in moved}, value=W.c.id, else_=W.c.state) if moved else W.c.state
    since = case((W.c.id.in_([seen.id for seen in moved]), NOW), else_=W.c.updated_at)
    freed = (
        update(W)
        .where(W.c.id.in_(rest))
        .values(worker=None, fence=W.c.fence + 1, wake_at=NOW, state=state, updated_at=since, **values)
        .returning(*_SEEN)
    )
    rows = [Seen(**row._mapping) for row in session.execute(freed)]
    if moved:
        moves = [{"workflow_id": seen.id, "of": seen.state, "to": rest[seen.id], "actor": "sweep"} for seen in moved]
        session.execute(insert(Move), moves)
    return rows


_DUE = text("""
    WITH due AS (
        SELECT id, updated_at, row_number() OVER (PARTITION BY client_id ORDER BY updated_at, id) AS turn
        FROM workflows
        WHERE wake_at <= clock_timestamp() AND worker IS NULL AND priority = :priority
    ), next AS (
        SELECT id, turn, updated_at FROM due ORDER BY turn, updated_at LIMIT :most
    ), free AS (
        SELECT w.id FROM workflows w JOIN next USING (id)
        WHERE w.wake_at <= clock_timestamp() AND w.worker IS NULL
        FOR UPDATE OF w SKIP LOCKED
    ), picked AS (
        UPDATE workflows SET wake_at = clock_timestamp() + make_interval(secs => :again)
        FROM free WHERE workflows.id = free.id
        RETURNING workflows.id, kind, state
    )
    SELECT id, kind, state FROM picked JOIN next USING (id) ORDER BY turn, updated_at
""")


def pick_due(session: Session, room: Mapping[int, int], *, again: float) -> list[tuple[UUID, str, str, int]]:
    """Due workflows, those somebody waits for first, then round robin over clients, each client's oldest move first.

    `room` says how many of each priority. They are looked at again in `again` seconds unless somebody takes them.
    """
    picked = []
    for priority, most in room.items():
        if most > 0:
            rows = session.execute(_DUE, {"priority": priority, "most": most, "again": again})
            picked += [(row.id, row.kind, row.state, priority) for row in rows]
    return picked


def let_go(session: Session, worker: UUID) -> int:
    """Free all that this worker still holds, because it is about to exit. What was in doubt stays in doubt."""
    held = session.execute(select(*_SEEN).where(W.c.worker == worker).with_for_update(skip_locked=True))
    return len(_free(session, [Seen(**row._mapping) for row in held]))


def forget_silent(session: Session, *, after: float) -> int:
    """Drop workers that have been silent for `after` seconds and hold nothing."""
    statement = text(
        "DELETE FROM workers k WHERE beat_at < clock_timestamp() - make_interval(secs => :after) "
        "AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.worker = k.id)"
    )
    return session.execute(statement, {"after": after}).rowcount  # type: ignore[attr-defined,no-any-return]
