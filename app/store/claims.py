"""Travel claims in Postgres: accepting one per free visit, and reading them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as insert_or_not
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from app import config, crypto, states
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.orm import new_id
from app.models.workflow import Move, Workflow
from app.store import workflows
from app.store.workflows import Seen, seconds

_W: Table = Workflow.__table__  # type: ignore[assignment]
_C: Table = Claim.__table__  # type: ignore[assignment]
_BEGUN = func.statement_timestamp()  # one moment for all columns of the new row
_SEALED = (Claim.icn, Claim.phone, Claim.expense_details, Claim.btsss_token)


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


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that a claim's owner may see: the row without what is sealed, and the newest text of its present run."""

    claim: Claim
    text: Notification | None


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
    }
    session.execute(insert(_C).values(**values))
    session.execute(insert(Move).values(workflow_id=claim_id, to=states.CLAIM.start, actor="client"))


def state_of(session: Session, claim_id: UUID) -> str | None:
    """The state of a claim, read from the narrow table."""
    return session.scalar(select(_W.c.state).where(_W.c.id == claim_id))


def view(session: Session, claim_id: UUID, client_id: UUID | None) -> Shown | None:
    """A claim as its owner may see it; `client_id` None: whoever owns it. None: there is no such claim."""
    statement = select(Claim).where(Claim.id == claim_id)
    if client_id is not None:
        statement = statement.where(Claim.client_id == client_id)
    claim = session.scalar(statement.options(*(defer(column, raiseload=True) for column in _SEALED)))
    if claim is None:
        return None
    of_this_run = select(Notification).where(Notification.claim_id == claim.id, Notification.run == claim.run)
    newest = of_this_run.options(defer(Notification.phone), defer(Notification.personalisation))
    return Shown(claim=claim, text=session.scalar(newest.order_by(Notification.created_at.desc()).limit(1)))


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
    """The claim with all that its verbs need, also what this client's other workflows know of the same visit.

    Raises NoResultFound.
    """
    claim = session.execute(select(Claim).where(Claim.id == claim_id)).scalar_one()
    own, doubted = session.execute(_OF_THE_VISIT, {"visit": claim.visit, "id": claim_id}).one()
    claim.own_claims, claim.visit_doubted = frozenset(own or ()), bool(doubted)
    return claim


# Contract 5.3: claim ids that workflows of the client for this visit recorded; and whether an earlier one of them saw
# no claim at its appointment and then had a create in doubt. (The visit's hash holds the client.)
_OF_THE_VISIT = text("""
    SELECT array_agg(c.claim_id) FILTER (WHERE c.claim_id IS NOT NULL),
           bool_or(c.id <> :id AND c.associated_claim_id IS NULL AND c.associated_claim_number IS NULL
                   AND (c.create_doubted OR w.in_doubt AND w.intent ->> 'step' = 'create_claim'))
    FROM claims c JOIN workflows w USING (id)
    WHERE c.visit = :visit
""")
