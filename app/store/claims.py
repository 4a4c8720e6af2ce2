"""Travel claims in Postgres: accepting one per free visit, and reading them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Table, func, insert, select, text, true, tuple_
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from app import config, crypto, states
from app.models.callback import ClaimCallback
from app.models.claim import Claim
from app.models.client import Client as Owner
from app.models.notification import Notification
from app.models.orm import new_id
from app.models.workflow import Move, Workflow
from app.store import callbacks, workflows
from app.store.workflows import Seen, seconds

_W: Table = Workflow.__table__  # type: ignore[assignment]
_C: Table = Claim.__table__  # type: ignore[assignment]
_BEGUN = func.statement_timestamp()  # one moment for all columns of the new row
_SEALED = (Claim.icn, Claim.phone, Claim.expense_details, Claim.callback_url, Claim.btsss_token)
_UNSEALED = tuple(defer(column, raiseload=True) for column in _SEALED)


class Superseded(Exception):
    """The visit is held by a newer claim."""


class Client(Protocol):
    """Whose claim it is."""

    @property
    def id(self) -> UUID: ...
    @property
    def product(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class NewClaim:
    """A claim as accepted, before it has a row. `expense_details`: see `app.expenses.details`."""

    icn: str
    appointment: Mapping[str, Any]
    appointment_name: str | None
    expense_details: list[dict[str, Any]]
    rollback: bool
    phone: str | None
    callback_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that a claim's owner may see: the row without what is sealed, and the text and the callback that tell its
    outcome.
    """

    claim: Claim
    text: Notification | None
    callback: ClaimCallback | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which claims to list: of one client or (None) of all, in any of these states (none named: in any), made between
    two moments, both inclusive, and after (`older_than`) the last one that was listed before.
    """

    client_id: UUID | None
    states: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    older_than: tuple[datetime, UUID] | None = None


def accept(session: Session, client: Client, new: NewClaim, *, correlation_id: str, waiting: bool) -> tuple[UUID, bool]:
    """Store a new claim, or find the one that blocks its visit: `(id, created)`.

    The unique index on the visit's slot decides, not a prior read; of any number of simultaneous calls one creates.
    """
    visit = visit_of(client.id, new)
    slot = slot_of(client.id, visit)
    while True:
        created = _insert_workflow(session, client.id, slot, correlation_id=correlation_id, waiting=waiting)
        if created is not None:
            _insert_claim(session, created, client, new, visit)
            return created, True
        existing = session.scalar(select(_W.c.id).where(_W.c.slot == slot))
        if existing is not None:  # else it has just become free: try again
            return existing, False


def slot_of(client_id: UUID, visit: str) -> str:
    """What only one claim that blocks its visit can hold."""
    return f"claim:{client_id}:{visit}"


def reopen(session: Session, seen: Seen, claim: Claim, *, actor: str, lead: float, deadline: float) -> bool:
    """Move a failed claim back to where it failed, for another run; it holds its visit again.

    False: it has changed since it was read. Raises Superseded when another claim of the client holds the visit.
    """
    slot = slot_of(claim.client_id, claim.visit)
    try:
        with session.begin_nested():
            return workflows.move(
                session,
                seen,
                str(claim.failed_in),
                actor=actor,
                reason="retry",
                holder=False,
                lead=lead,
                deadline=deadline,
                slot=slot,
                attempt=0,
                crashes=0,
                error=None,
                asked=None,
            )
    except IntegrityError as error:
        raise Superseded from error


def visit_of(client_id: UUID, new: NewClaim) -> str:
    """The keyed hash under which the visit of a client's claim is found."""
    return crypto.keyed_hash(
        "visit", str(client_id), new.icn, new.appointment["stationNumber"], new.appointment["dateTime"]
    )


def _insert_workflow(
    session: Session, client_id: UUID, slot: str, *, correlation_id: str, waiting: bool
) -> UUID | None:
    deadline = config.settings().travel_claims.deadline_seconds
    values = {
        "id": new_id(),
        "kind": states.CLAIM.kind,
        "state": states.CLAIM.start,
        "slot": slot,
        "client_id": client_id,
        "correlation_id": correlation_id,
        "priority": 0 if waiting else 1,
        **dict.fromkeys(("due_at", "created_at", "updated_at"), _BEGUN),
        "wake_at": _BEGUN + seconds(config.settings().redispatch_seconds),  # its message is on the way
        "deadline_at": _BEGUN + seconds(deadline),
    }
    statement = insert_or_not(_W).values(**values).on_conflict_do_nothing(index_elements=["slot"])
    created: UUID | None = session.scalar(statement.returning(_W.c.id))
    return created


def _insert_claim(session: Session, claim_id: UUID, client: Client, new: NewClaim, visit: str) -> None:
    values = {
        "id": claim_id,
        "product": client.product,
        "visit": visit,
        "icn": new.icn,
        "phone": new.phone,
        "appointment": dict(new.appointment),
        "appointment_name": new.appointment_name,
        "expenses": [{"type": one["type"], "state": "pending", "expenseId": None} for one in new.expense_details],
        "expense_details": new.expense_details,
        "rollback": new.rollback,
        "callback_url": new.callback_url,
        "callback_wanted": new.callback_url is not None,
    }
    session.execute(insert(_C).values(**values))
    session.execute(insert(Move).values(workflow_id=claim_id, to=states.CLAIM.start, actor="client"))


def state_of(session: Session, claim_id: UUID) -> str | None:
    """The state of a claim, read from the narrow table."""
    return session.scalar(select(_W.c.state).where(_W.c.id == claim_id))


def owner_of(session: Session, claim_id: UUID) -> UUID | None:
    """Whose claim it is; None: there is no such claim."""
    return session.scalar(select(_W.c.client_id).where(_W.c.id == claim_id, _W.c.kind == states.CLAIM.kind))


def view(session: Session, claim_id: UUID, client_id: UUID | None) -> Shown | None:
    """A claim as its owner may see it; `client_id` None: whoever owns it. None: there is no such claim."""
    statement = select(Claim).where(Claim.id == claim_id)
    if client_id is not None:
        statement = statement.where(Claim.client_id == client_id)
    claim = session.scalar(statement.options(*_UNSEALED).execution_options(populate_existing=True))
    return None if claim is None else _shown(session, [claim])[0]


def listed(session: Session, wanted: Wanted, *, limit: int) -> list[Shown]:
    """So many of the wanted claims, newest first. Each client's newest come from the index, whoever asks."""
    made = (_W.c.created_at.desc(), _W.c.id.desc())
    asked = select(_W.c.id, _W.c.created_at).where(_W.c.client_id == Owner.id, _W.c.kind == states.CLAIM.kind)
    of_one = asked.where(*_filters(wanted)).order_by(*made).limit(limit).lateral()
    whose = true() if wanted.client_id is None else Owner.id == wanted.client_id
    found = select(of_one.c.id).select_from(Owner).join(of_one, true()).where(whose)
    newest = found.order_by(of_one.c.created_at.desc(), of_one.c.id.desc()).limit(limit)
    rows = session.scalars(select(Claim).where(Claim.id.in_(newest.scalar_subquery())).options(*_UNSEALED)).all()
    return _shown(session, sorted(rows, key=lambda claim: (claim.created_at, claim.id), reverse=True))


def _shown(session: Session, rows: Sequence[Claim]) -> list[Shown]:
    texts, called = _texts(session, rows), callbacks.standing(session, rows)
    return [Shown(claim=row, text=texts.get(row.id), callback=called.get(row.id)) for row in rows]


def _filters(wanted: Wanted) -> Iterable[ColumnElement[bool]]:
    if wanted.states:
        yield _W.c.state.in_(wanted.states)
    if wanted.since is not None:
        yield _W.c.created_at >= wanted.since
    if wanted.until is not None:
        yield _W.c.created_at <= wanted.until
    if wanted.older_than is not None:
        yield tuple_(_W.c.created_at, _W.c.id) < tuple_(*wanted.older_than)


def _texts(session: Session, shown: Sequence[Claim]) -> dict[UUID, Notification]:
    """The text that each claim shows: the newest of its run, or of an earlier one that stands for it."""
    of_these = select(Notification).where(Notification.claim_id.in_([claim.id for claim in shown]))
    unsealed = of_these.options(defer(Notification.phone), defer(Notification.personalisation))
    found: dict[UUID, Notification] = {}
    claims = {claim.id: claim for claim in shown}
    for message in session.scalars(unsealed.order_by(Notification.run, Notification.created_at)):
        claim = claims[message.claim_id]
        if message.run == claim.run or (claim.told and states.CLAIM.is_finished(claim.state)):
            found[claim.id] = message
    return {key: found[key] for key in found if claims[key].state != states.Claim.CANCELLED}


def standing(session: Session) -> list[tuple[str, str, int, float]]:
    """Per product and state: how many claims there are, and for how many seconds the oldest due one has been due."""
    overdue = func.extract("epoch", func.clock_timestamp() - func.min(_W.c.due_at))
    rows = session.execute(
        select(_C.c.product, _W.c.state, func.count(), func.greatest(overdue, 0))
        .join(_W, _W.c.id == _C.c.id)
        .group_by(_C.c.product, _W.c.state)
    )
    return [(product, state, count, float(age or 0)) for product, state, count, age in rows]


def load(session: Session, claim_id: UUID) -> Claim:
    """The claim with all that its verbs need: also whether its line is on for its client, and what this client's other
    workflows know of the same visit.

    Raises NoResultFound.
    """
    claim = session.execute(select(Claim).where(Claim.id == claim_id)).scalar_one()
    around = {"visit": claim.visit, "id": claim_id, "client": claim.client_id}
    own, doubted, line_on = session.execute(_AROUND, around).one()
    claim.own_claims, claim.visit_doubted, claim.line_on = frozenset(own or ()), bool(doubted), bool(line_on)
    return claim


# Contract 5.3: claim ids that workflows of the client for this visit recorded; and whether an earlier one of them saw
# no claim at its appointment and then had a create in doubt. (The visit's hash holds the client.)
_AROUND = text("""
    SELECT array_agg(c.claim_id) FILTER (WHERE c.claim_id IS NOT NULL),
           bool_or(c.id <> :id AND c.associated_claim_id IS NULL AND c.associated_claim_number IS NULL
                   AND (c.create_doubted OR w.in_doubt AND w.intent ->> 'step' = 'create_claim')),
           (SELECT "on" FROM toggles WHERE client_id = :client AND name = 'claims')
    FROM claims c JOIN workflows w USING (id)
    WHERE c.visit = :visit
""")
