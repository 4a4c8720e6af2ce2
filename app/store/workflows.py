"""The engine's statements on `workflows`. `move()` alone changes the state, but for the phases of a machine that has
them: those follow from a holder's writes (`_pass_on`) and from the end of its lease (`workers`), by the same table.

Every write of a holder is guarded by state and fence as it read them; every write of somebody who does not hold the
lease is guarded by `in_doubt` too, and adds 1 to the fence (but `ask`, which lets the holder finish its call). A
function that returns False hit no row: the caller's view is out of date and it must let go (or read again). Times are
Postgres's `clock_timestamp()`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from app import errors, states, steps
from app.models.workflow import Call, Move, Workflow
from app.store import updates

W: SqlTable = Workflow.__table__  # type: ignore[assignment]
NOW = updates.NOW
NEVER = cast(literal("infinity"), DateTime(timezone=True))  # until somebody else moves the row
ANY_NUMBER = 2**15 - 1  # the most that `crashes` can be
KEPT_FOR_RELEASE = 600  # seconds for which a row replayed for a release is left to its workers


@dataclass(frozen=True)
class Seen:
    """A workflow as somebody read it: what guards that reader's writes."""

    id: UUID
    kind: str
    state: str
    fence: int
    attempt: int
    crashes: int
    intent: Mapping[str, Any] | None
    in_doubt: bool
    asked: str | None
    priority: int
    deadline_at: datetime | None
    client_id: UUID
    correlation_id: str
    now: datetime

    @property
    def machine(self) -> states.Machine:
        return states.MACHINES[self.kind]


def seconds(value: float) -> ColumnElement[timedelta]:
    """SQL: an interval of so many seconds."""
    return cast(literal(timedelta(seconds=value)), INTERVAL)


_SEEN = (*(W.c[name] for name in Seen.__dataclass_fields__ if name != "now"), NOW.label("now"))
_READ = select(*_SEEN).where(W.c.id == bindparam("row"))
_TAKE = (
    update(W)
    .where(
        W.c.id == bindparam("row"),
        W.c.kind == bindparam("of_kind"),
        W.c.state == any_(bindparam("among", type_=ARRAY(Text))),
        W.c.worker.is_(None),
        W.c.due_at <= NOW,
        or_(
            W.c.for_release.is_(None),
            W.c.for_release == bindparam("by_release"),
            W.c.updated_at < NOW - seconds(KEPT_FOR_RELEASE),
        ),
        W.c.crashes < bindparam("fewer_than"),
    )
    .values(worker=bindparam("by"), fence=W.c.fence + 1, wake_at=updates.from_now("lease"))
    .returning(*_SEEN)
)
_AS_SEEN = (W.c.state == bindparam("seen_state"), W.c.fence == bindparam("seen_fence"))
_NOT_ASKED = W.c.asked.is_(None)
_DOUBTED = {doubt: W.c.in_doubt.is_(doubt) for doubt in (True, False)}
_UNWATCHED = (W.c.worker.is_(None), W.c.due_at <= NOW, W.c.wake_at > NOW)
_STAMPED = bindparam("call", type_=JSONB).concat(func.jsonb_build_object(literal("at", Text), NOW))
_IN_TIME = func.least(updates.from_now("after"), W.c.deadline_at)  # a null does not count
_WAITED = func.greatest(NOW, case((W.c.asked.is_not(None), NOW), else_=_IN_TIME))
_WAITED_IN_DOUBT = func.greatest(NOW, _IN_TIME)
_DEADLINE_HELD = W.c.deadline_at + bindparam("after", type_=INTERVAL)


def read(session: Session, workflow_id: UUID) -> Seen | None:
    """The workflow as it is now, or None if there is none."""
    row = session.execute(_READ, {"row": workflow_id}).one_or_none()
    return Seen(**row._mapping) if row else None


def take(
    session: Session,
    kind: str,
    workflow_id: UUID,
    *,
    among: Collection[str],
    worker: UUID,
    release: str,
    lease: float,
    fewer_crashes_than: int = ANY_NUMBER,
) -> Seen | None:
    """Hold a free and due workflow of this kind, in one of these states, for `lease` seconds.

    None: nothing to take (doubled, late, forged), too many of its holders died, or what was replayed for another
    release is still kept for it.
    """
    by = {"by": worker, "by_release": release, "lease": timedelta(seconds=lease), "fewer_than": fewer_crashes_than}
    row = session.execute(_TAKE, {"row": workflow_id, "of_kind": kind, "among": list(among), **by}).one_or_none()
    return Seen(**row._mapping) if row else None


def renew(session: Session, seen: Seen, *, lease: float) -> bool:
    """Keep holding for another `lease` seconds."""
    return _write(session, seen, wake_at=updates.In(lease))


def begin(session: Session, seen: Seen, to: str) -> bool:
    """The holder begins, and the state says so."""
    return _pass_on(session, seen, to)


def intend(session: Session, seen: Seen, intent: Mapping[str, Any], *, lease: float, anyway: bool) -> bool:
    """Record that a call with effects follows. False also when a cancel or withdrawal is asked for, unless `anyway`."""
    guard = () if anyway else (_NOT_ASKED,)
    call = {"intent": _STAMPED, "call": dict(intent)}
    to = seen.machine.busy(seen.state, in_doubt=True)
    return _pass_on(session, seen, to, *guard, **call, in_doubt=True, wake_at=updates.In(lease))


def progress(session: Session, seen: Seen, *, lease: float) -> bool:
    """A piece of the step is done, or a doubt is cleared; the state and the lease stay."""
    return _write(session, seen, intent=None, in_doubt=False, attempt=0, crashes=0, wake_at=updates.In(lease))


def settle(session: Session, seen: Seen, *, lease: float) -> bool:
    """The lost call certainly had no effect: it may be repeated. The attempts used stay used."""
    return _write(session, seen, intent=None, in_doubt=False, wake_at=updates.In(lease))


def later(session: Session, seen: Seen, *, after: float, attempt: int, intent: Mapping[str, Any] | None) -> bool:
    """Let go with a future: due in `after` seconds, at the deadline at the latest, at once where a stop is asked for.

    With an intent the row stays in doubt, and its find comes first.
    """
    due = _WAITED_IN_DOUBT if intent else _WAITED
    when = {"due_at": due, "wake_at": due, "after": timedelta(seconds=after)}
    kept = {"intent": dict(intent) if intent else None, "in_doubt": bool(intent)}
    to = seen.machine.rest(seen.state, in_doubt=bool(intent))
    return _pass_on(session, seen, to, worker=None, attempt=attempt, crashes=0, **when, **kept)


def hold(session: Session, seen: Seen, *, after: float) -> bool:
    """Let go because the line is off: due later, no attempt used, the deadline moved along."""
    to = seen.machine.rest(seen.state, in_doubt=seen.in_doubt)
    deadline = {"deadline_at": _DEADLINE_HELD, "after": timedelta(seconds=after)}
    return _pass_on(session, seen, to, worker=None, due_at=updates.In(after), wake_at=updates.In(after), **deadline)


def release(session: Session, seen: Seen, *, after: float, attempt: int) -> bool:
    """Let go as it stands, intent and doubt included; due in `after` seconds."""
    to, due = seen.machine.rest(seen.state, in_doubt=seen.in_doubt), updates.In(after)
    return _pass_on(session, seen, to, worker=None, due_at=due, wake_at=due, attempt=attempt)


def move(  # noqa: PLR0913 - everything that goes with a change of state is written with it
    session: Session,
    seen: Seen,
    to: str,
    *,
    actor: str,
    reason: str = "",
    holder: bool = True,
    lead: float = 0,
    deadline: float | None = None,
    detail: Mapping[str, Any] | None = None,
    **values: Any,
) -> bool:
    """The one writer of state: check the table of moves, update guarded, record history in the same transaction.

    Frees the lease. An unfinished target is due at once and looked at in `lead` seconds (its message is on the way), or
    never by itself where it waits for somebody else; a finished one has no time to look again, and gives up its slot
    where the state says so. `deadline`: anew, in seconds.
    """
    machine = seen.machine
    if not machine.allows(seen.state, to):
        raise errors.IllegalMove(f"{seen.kind}: {seen.state} -> {to}")
    if machine.is_finished(to):
        values |= {"due_at": None, "wake_at": None, "finished_at": NOW}
    elif machine.waits_in(to):
        values |= {"due_at": NEVER, "wake_at": NEVER, "finished_at": None}
    else:
        values |= {"due_at": NOW, "wake_at": updates.In(lead), "finished_at": None}
    if machine.is_free(to):
        values["slot"] = None
    if deadline is not None:
        values["deadline_at"] = updates.In(deadline)
    guard = () if holder else (_DOUBTED[seen.in_doubt],)
    fence = seen.fence if holder else seen.fence + 1
    if not _write(session, seen, *guard, state=to, fence=fence, worker=None, updated_at=NOW, **values):
        return False
    _record(session, seen, to, actor=actor, reason=reason, detail=detail)
    return True


def ask(session: Session, seen: Seen, what: str) -> bool:
    """Ask the holder to start no further step (`cancel`, `withdraw`). Guarded like any write without the lease."""
    return _write(session, seen, _DOUBTED[seen.in_doubt], asked=what)


def wake(session: Session, seen: Seen) -> None:
    """Let the sweep look at this free and due row at once: no message is on its way."""
    _write(session, seen, *_UNWATCHED, wake_at=NOW)


def save(session: Session, table: type[Workflow], workflow_id: UUID, values: Mapping[str, Any]) -> None:
    """Store columns of a line's own row; the guarded write of the same transaction has proved the right to."""
    if values:
        own: SqlTable = table.__table__  # type: ignore[assignment]
        updates.run(session, own, workflow_id, **values)


def add_event(
    session: Session, workflow_id: UUID, reason: str, *, actor: str, detail: Mapping[str, Any] | None = None
) -> None:
    """An entry of the timeline that changes no state."""
    session.execute(insert(Move).values(workflow_id=workflow_id, actor=actor, reason=reason, detail=detail))


def add_calls(session: Session, seen: Seen, step: str, verb: str, calls: Sequence[steps.Call]) -> None:
    """Keep upstream calls for the timeline, whoever holds the workflow by now."""
    if calls:
        common = {"workflow_id": seen.id, "step": step, "verb": verb, "attempt": seen.attempt + 1}
        session.execute(insert(Call), [{**common, **vars(call)} for call in calls])


def now(session: Session) -> datetime:
    """Postgres's clock."""
    moment: datetime = session.execute(select(NOW)).scalar_one()
    return moment


def _pass_on(session: Session, seen: Seen, to: str, *guard: ColumnElement[bool], **values: Any) -> bool:
    """A holder's write that may show in the state how far its step is."""
    if to == seen.state:
        return _write(session, seen, *guard, **values)
    if not seen.machine.allows(seen.state, to):
        raise errors.IllegalMove(f"{seen.kind}: {seen.state} -> {to}")
    if not _write(session, seen, *guard, state=to, updated_at=NOW, **values):
        return False
    _record(session, seen, to, actor="worker", reason="")
    return True


def _record(
    session: Session, seen: Seen, to: str, *, actor: str, reason: str, detail: Mapping[str, Any] | None = None
) -> None:
    row = insert(Move).values(workflow_id=seen.id, of=seen.state, to=to, actor=actor, reason=reason, detail=detail)
    session.execute(row)


def _write(session: Session, seen: Seen, *guard: ColumnElement[bool], **values: Any) -> bool:
    as_seen = {"seen_state": seen.state, "seen_fence": seen.fence}
    return updates.run(session, W, seen.id, *_AS_SEEN, *guard, **as_seen, **values)


def timeline(session: Session, workflow_id: UUID) -> Iterable[Mapping[str, Any]]:
    """Moves and calls of a workflow in the order in which they happened."""
    moves = session.execute(select(Move).where(Move.workflow_id == workflow_id)).scalars()
    calls = session.execute(select(Call).where(Call.workflow_id == workflow_id)).scalars()
    return sorted([_shown(row) for row in (*moves, *calls)], key=lambda entry: entry["at"])


def _shown(row: Move | Call) -> dict[str, Any]:
    if isinstance(row, Move):
        what = f"{row.of} -> {row.to}" if row.of else row.to or row.reason
        return {"at": row.at, "what": what, "actor": row.actor, "detail": row.reason}
    answer = row.status if row.status is not None else "no answer"
    detail = f"{row.method} {row.path}: {answer}, {row.outcome}, {row.milliseconds} ms"
    return {"at": row.at, "what": f"{row.step} {row.verb}", "actor": row.upstream, "detail": detail}
