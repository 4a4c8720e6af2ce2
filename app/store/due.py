"""The sweep's two statements: take away what nobody tends, pick what is due."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, column, false, func, insert, or_, select, table, text, update
from sqlalchemy.orm import Session

from app.models.workflow import Move, Worker
from app.store.workflows import _SEEN, NOW, Seen, W, seconds

_SWEEP_LOCK = 7_301_001
_SOON_SECONDS = 2.0
_CONNECTED = table("pg_stat_activity", column("pid"))


def only_one_sweeps(session: Session) -> bool:
    """True for one transaction at a time in the whole system."""
    return bool(session.execute(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))).scalar())


def take_away(session: Session, *, dead: float, gone: float, limit: int = 500) -> list[tuple[Seen, bool]]:
    """Free what is held by the dead, or longer than its holder said. Returns each row as it is now, and whether its
    holder died: its heartbeat is older than `dead` seconds (infinite: nobody is taken for dead), or older than `gone`
    seconds and its connection is closed, as that of a killed process is at once."""
    died: ColumnElement[bool] = false()
    if dead < math.inf:
        closed = Worker.backend.not_in(select(_CONNECTED.c.pid))
        silent, silent_for_long = (Worker.beat_at < NOW - seconds(age) for age in (gone, dead))
        died = or_(Worker.beat_at.is_(None), silent_for_long, and_(silent, closed))
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
    WITH wanted AS (
        SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:priorities AS int[]), CAST(:entries AS text[]),
                             CAST(:rooms AS int[]), CAST(:mosts AS int[]), CAST(:probings AS boolean[]))
                      AS one(kind, priority, entry, room, most, probing)
    ), sent AS (
        SELECT DISTINCT w.kind, client_id
        FROM workflows w JOIN wanted ON wanted.kind = w.kind AND wanted.priority = w.priority
        WHERE worker IS NULL AND due_at <= now()
              AND wake_at > now() AND wake_at <= now() + make_interval(secs => :again)
    ), due AS (
        SELECT id, w.kind, w.priority, client_id, updated_at, room, most,
               deadline_at <= now() OR asked IS NOT NULL AS must,
               CASE WHEN probing THEN attempt ELSE 0 END AS tried,
               state = entry AND attempt = 0 AND crashes = 0 AND NOT in_doubt AS new
        FROM workflows w JOIN wanted ON wanted.kind = w.kind AND wanted.priority = w.priority
        WHERE wake_at <= now() AND worker IS NULL
    ), turns AS (
        SELECT *, row_number() OVER (
            PARTITION BY kind, priority, must IS TRUE, client_id ORDER BY tried, new, updated_at, id
        ) AS turn
        FROM due WHERE most > 0 OR must
    ), placed AS (
        SELECT *, row_number() OVER (
            PARTITION BY kind, priority ORDER BY must IS NOT TRUE, tried, turn, random()
        ) AS place
        FROM turns WHERE turn <= room
    ), free AS (
        SELECT w.id, place, new, turn = 1 AND NOT EXISTS (
            SELECT FROM sent WHERE sent.kind = w.kind AND sent.client_id = w.client_id
        ) AS first
        FROM workflows w JOIN placed USING (id)
        WHERE place <= CASE WHEN must THEN room ELSE most END AND w.wake_at <= clock_timestamp() AND w.worker IS NULL
        FOR UPDATE OF w SKIP LOCKED
    )
    UPDATE workflows
    SET wake_at = clock_timestamp() + make_interval(secs => CASE WHEN crashes > 0 THEN :soon ELSE :again END)
    FROM free WHERE workflows.id = free.id
    RETURNING workflows.id, kind, state, priority, place, new, first
""")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many due workflows of a kind and priority are wanted: those that must go up to `room`, others up to `most`.

    `entry` is the state in which a workflow of the kind begins. `probing`: the one with the fewest attempts.
    """

    kind: str
    priority: int
    entry: str
    room: int
    most: int
    probing: bool = False


@dataclass(frozen=True)
class Due:
    """A workflow whose time has come; `new`: nothing of it was tried yet; `first`: none of its client's is sent."""

    id: UUID
    kind: str
    state: str
    priority: int
    new: bool
    first: bool


def pick_due(session: Session, wanted: Sequence[Wanted], *, again: float) -> list[Due]:
    """Due workflows, as many as wanted: those somebody waits for first, then what must go (its deadline has passed, or
    a stop is asked for), then round robin over clients in random order (where one may go at a time, all have the same
    chance of being next), each client's begun ones first and then its oldest move.

    They are looked at again in `again` seconds unless somebody takes them; in 2 where a holder has died, for who has
    the message may die as well, and they have waited already.
    """
    asked = [one for one in wanted if one.room > 0]
    if not asked:
        return []
    given = {
        "kinds": [one.kind for one in asked],
        "priorities": [one.priority for one in asked],
        "entries": [one.entry for one in asked],
        "rooms": [one.room for one in asked],
        "mosts": [one.most for one in asked],
        "probings": [one.probing for one in asked],
    }
    rows = session.execute(_DUE, {**given, "again": again, "soon": min(again, _SOON_SECONDS)}).all()
    ordered = sorted(rows, key=lambda row: (row.priority, row.place))
    return [Due(row.id, row.kind, row.state, row.priority, row.new, row.first) for row in ordered]


@dataclass(frozen=True)
class UnderWay:
    """How many workflows somebody holds; of how many a call is on its way that has passed its upstream's limit."""

    held: int = 0
    calling: int = 0


def under_way(session: Session) -> dict[str, UnderWay]:
    """What of each kind is under way; a kind of which nothing is may be missing."""
    numbers = func.count(), func.count().filter(W.c.in_doubt)
    counted = select(W.c.kind, *numbers).where(W.c.worker.is_not(None)).group_by(W.c.kind)
    return {kind: UnderWay(held, calling) for kind, held, calling in session.execute(counted)}
