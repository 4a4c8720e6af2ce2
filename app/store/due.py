"""The sweep's two statements: take away what nobody tends, pick what is due."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, insert, or_, select, text, update
from sqlalchemy.orm import Session

from app.models.workflow import Move, Worker
from app.store.workflows import _SEEN, NOW, Seen, W, seconds

_SWEEP_LOCK = 7_301_001


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
    return [(seen, died_of[seen.id]) for seen in free(session, taken, crashes=W.c.crashes + crashed)]


def free(session: Session, held: Sequence[Seen], **values: Any) -> list[Seen]:
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
    WITH room AS (
        SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:priorities AS int[]), CAST(:mosts AS int[]),
                             CAST(:entries AS text[])) AS r(kind, priority, most, entry)
    ), due AS (
        SELECT id, w.kind, w.priority, state <> entry AS begun, updated_at, most, row_number() OVER (
            PARTITION BY w.kind, w.priority, client_id ORDER BY state = entry, updated_at, id
        ) AS turn
        FROM workflows w JOIN room ON room.kind = w.kind AND room.priority = w.priority
        WHERE wake_at <= clock_timestamp() AND worker IS NULL
    ), placed AS (
        SELECT *, row_number() OVER (PARTITION BY kind, priority ORDER BY turn, NOT begun, updated_at, id) AS place
        FROM due WHERE turn <= most
    ), free AS (
        SELECT w.id, place FROM workflows w JOIN placed USING (id)
        WHERE place <= most AND w.wake_at <= clock_timestamp() AND w.worker IS NULL
        FOR UPDATE OF w SKIP LOCKED
    )
    UPDATE workflows SET wake_at = clock_timestamp() + make_interval(secs => :again)
    FROM free WHERE workflows.id = free.id
    RETURNING workflows.id, kind, state, priority, place
""")


@dataclass(frozen=True)
class Due:
    """A workflow whose time has come."""

    id: UUID
    kind: str
    state: str
    priority: int


def pick_due(
    session: Session, room: Mapping[tuple[str, int], int], *, entries: Mapping[str, str], again: float
) -> list[Due]:
    """Due workflows of each kind and priority, as many as there is room for: those somebody waits for first, then
    round robin over clients, each client's begun ones first and then its oldest move.

    `entries`: the state in which a workflow of the kind begins. They are looked at again in `again` seconds unless
    somebody takes them.
    """
    asked = [(kind, priority, most, entries[kind]) for (kind, priority), most in room.items() if most > 0]
    if not asked:
        return []
    kinds, priorities, mosts, states = zip(*asked, strict=True)
    given = {"kinds": list(kinds), "priorities": list(priorities), "mosts": list(mosts), "entries": list(states)}
    rows = session.execute(_DUE, {**given, "again": again}).all()
    ordered = sorted(rows, key=lambda row: (row.priority, row.place))
    return [Due(row.id, row.kind, row.state, row.priority) for row in ordered]
