"""What the background work of passenger declarations finds and writes: rows for its jobs, page by page, and gauges.

Every job looks at a row again once it holds its lock; rows that others hold are left out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, func, insert, select, text, tuple_, update
from sqlalchemy.orm import Session, defer

from app import states
from app.models.declaration import Declaration
from app.models.workflow import Move
from app.store import workflows
from app.store.workflows import _SEEN, NOW, Seen, W

S = states.Declaration
D: Table = Declaration.__table__  # type: ignore[assignment]
KIND = states.DECLARATION.kind
_SEALED = (Declaration.payload, Declaration.journey_data, Declaration.faults)
Place = tuple[datetime, UUID]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A submission that is locked now. `seen` guards the writes to it."""

    seen: Seen
    charge_reference: str
    number: int
    finished_at: datetime | None

    @property
    def id(self) -> UUID:
        return self.seen.id

    @property
    def client_id(self) -> UUID:
        return self.seen.client_id

    @property
    def correlation_id(self) -> str:
        return self.seen.correlation_id


@dataclass(frozen=True, kw_only=True)
class Page:
    """Rows, oldest first, and where the next page begins; None after the last one."""

    rows: Sequence[Found]
    next: Place | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the gauges show. Ages in seconds, 0 where there is nothing."""

    states: dict[str, int]
    oldest_unsent: float
    oldest_failed: float
    overdue: int


# The row of one submission


def load(session: Session, declaration_id: UUID) -> Declaration:
    """The submission without what is sealed: a row that cannot be opened must still be able to fail.

    Raises NoResultFound.
    """
    unsealed = [defer(column, raiseload=True) for column in _SEALED]
    return session.execute(select(Declaration).where(Declaration.id == declaration_id).options(*unsealed)).scalar_one()


def payload(session: Session, declaration_id: UUID) -> Any:
    """The stored payload; None once erased. Raises whatever opening a damaged one raises."""
    return session.scalar(select(D.c.payload).where(D.c.id == declaration_id))


def error_code(session: Session, declaration_id: UUID) -> str:
    """Why the submission failed, as an error code of contract 5.2."""
    return session.scalar(select(W.c.error["code"].astext).where(W.c.id == declaration_id)) or ""


# Pages of work


def unpaid(session: Session, *, before: datetime, marked: bool, limit: int, after: Place | None) -> Page:
    """Unpaid submissions that came into their state before that moment; `marked`: also those marked as timed out."""
    old = [W.c.state.in_(sorted(states.UNPAID)), W.c.updated_at < before]
    wanted = old if marked else [*old, D.c.payment_timed_out.is_(False)]
    return page(session, wanted, by=W.c.updated_at, limit=limit, after=after)


def unsent(session: Session, *, before: datetime, limit: int, after: Place | None) -> Page:
    """Submissions paid (or replayed) before that moment of which nobody was told yet."""
    wanted = [W.c.state == S.PAID, W.c.updated_at < before, D.c.overdue.is_(False)]
    return page(session, wanted, by=W.c.updated_at, limit=limit, after=after)


def erasable(session: Session, *, before: datetime, limit: int, after: Place | None) -> Page:
    """Declarations that have been finished since that moment or longer, and still hold personal data."""
    done = W.c.state.in_((S.SUBMITTED, S.EXPIRED))
    wanted = [done, W.c.erased_at.is_(None), W.c.finished_at <= before, D.c.number == 0]
    return page(session, wanted, by=W.c.finished_at, limit=limit, after=after)


def page(session: Session, wanted: Sequence[ColumnElement[bool]], *, by: Any, limit: int, after: Place | None) -> Page:
    """The oldest so many after a place of whatever is wanted."""
    further = [] if after is None else [tuple_(by, W.c.id) > tuple_(*after)]
    whole = W.join(D, D.c.id == W.c.id)
    places = select(by, W.c.id).select_from(whole).where(W.c.kind == KIND, *wanted, *further)
    rows = session.execute(places.order_by(by, W.c.id).limit(limit)).all()
    following = (rows[-1][0], rows[-1][1]) if len(rows) == limit else None
    return Page(rows=lock(session, [row[1] for row in rows], wanted, by=by), next=following)


def lock(
    session: Session, ids: Collection[UUID], wanted: Sequence[ColumnElement[bool]] = (), *, by: Any = W.c.id
) -> list[Found]:
    """Those of these rows that nobody else holds and that are still wanted, read anew under their lock."""
    if not ids:
        return []
    held = list(session.scalars(select(W.c.id).where(W.c.id.in_(ids)).with_for_update(skip_locked=True)))
    whole = W.join(D, D.c.id == W.c.id)
    columns = (*_SEEN, D.c.charge_reference, D.c.number, W.c.finished_at)
    rows = session.execute(select(*columns).select_from(whole).where(W.c.id.in_(held), *wanted).order_by(by, W.c.id))
    return [_found(dict(row._mapping)) for row in rows]


def _found(row: dict[str, Any]) -> Found:
    seen = Seen(**{name: row[name] for name in Seen.__dataclass_fields__})
    return Found(
        seen=seen, charge_reference=row["charge_reference"], number=row["number"], finished_at=row["finished_at"]
    )


def mark(session: Session, found: Found, **columns: Any) -> None:
    """Set columns of the submission's own row, under its lock."""
    workflows.save(session, Declaration, found.id, columns)


def erase(session: Session, ids: Collection[UUID]) -> None:
    """Overwrite what is personal, under the locks; references, states, times and the timeline stay.

    The fence moves on, so that who has read such a row before hits nothing and reads again.
    """
    gone = dict.fromkeys(("payload", "journey_data", "last_name_hash", "faults"))
    session.execute(update(D).where(D.c.id.in_(ids)).values(**gone))
    session.execute(update(W).where(W.c.id.in_(ids)).values(erased_at=NOW, fence=W.c.fence + 1))
    session.execute(insert(Move), [{"workflow_id": one, "actor": "timer", "reason": "erased"} for one in ids])


# Numbers


def standing(session: Session, *, overdue_before: datetime) -> Standing:
    """How many submissions there are in each state, and how old the oldest work is."""
    ours = W.c.kind == KIND
    counts = session.execute(select(W.c.state, func.count()).where(ours).group_by(W.c.state))
    paid, failed = (ours, W.c.state == S.PAID), (ours, W.c.state == S.FAILED)
    late = select(func.count()).where(*paid, W.c.updated_at < overdue_before)
    return Standing(
        states={row[0]: int(row[1]) for row in counts},
        oldest_unsent=_age(session, W.c.updated_at, *paid),
        oldest_failed=_age(session, W.c.finished_at, *failed),
        overdue=session.scalar(late) or 0,
    )


def _age(session: Session, since: Any, *of: ColumnElement[bool]) -> float:
    return float(session.scalar(select(func.extract("epoch", NOW - func.min(since))).where(*of)) or 0)


def start_charge_references(session: Session, least: int) -> None:
    """See to it that the next charge number is at least this one; the sequence never goes back (contract 2.10)."""
    session.execute(text("ALTER SEQUENCE charge_reference_seq NO CYCLE"))  # as it is: for the lock, nobody draws now
    drawn, called = session.execute(text("SELECT last_value, is_called FROM charge_reference_seq")).one()
    if drawn + called < least:
        session.execute(text("SELECT setval('charge_reference_seq', :least, false)"), {"least": least})
