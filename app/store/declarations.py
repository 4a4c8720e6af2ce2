"""Passenger declarations in Postgres: accepting them, finding them, and the lock under which they are paid for.

The lock of a declaration is the row lock on the `workflows` row of its original (contract 3.4).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, Select, Table, func, insert, or_, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, defer

from app import charge_references, states
from app.models.declaration import CHARGE_REFERENCES, Declaration
from app.models.orm import new_id
from app.models.replay import Audit
from app.models.workflow import Call, Move
from app.store import workflows
from app.store.workflows import NEVER, Seen, W

_D: Table = Declaration.__table__  # type: ignore[assignment]
_BEGUN = func.now()  # one moment for everything that a transaction creates
_SEALED = (Declaration.payload, Declaration.journey_data, Declaration.faults)
_UNSEALED = tuple(defer(column, raiseload=True) for column in _SEALED)
_LOCK_NOT_AVAILABLE = "55P03"
NOT_CONNECTED = ("mdg-dns", "mdg-refused", "mdg-tls", "mdg-connect-timeout")  # before the intent, which counts
TAKEN_AWAY = ("holder died", "lease ran out")  # the sweep's events: a call under way then was lost
EVENTS = (
    "payment-repeated",
    "payment-contradicted",
    "payment-refused",
    "payment-timed-out",
    "overdue",
    "erased",
)  # what a timeline shows beside moves and attempts (contract 3.1)


class Locked(Exception):
    """Somebody else holds the lock of the declaration."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A declaration, the newest of its moves and events, and of its calls, each oldest first.

    `made`: how many calls there are in all; `sent`: those of them that had a connection.
    """

    declaration: Declaration
    moves: Sequence[Move]
    calls: Sequence[Call]
    made: int
    sent: int


def load(session: Session, declaration_id: UUID) -> Declaration:
    """The submission with all its columns. Raises NoResultFound."""
    return session.execute(select(Declaration).where(Declaration.id == declaration_id)).scalar_one()


def accept(session: Session, client_id: UUID, payload: Mapping[str, Any], correlation_id: str) -> Declaration:
    """Store a valid payload as a new declaration that waits for its payment, under the next charge reference.

    What is stored and returned has both references in place. The number is used up even if the transaction fails.
    """
    reference = charge_references.make(session.scalar(select(CHARGE_REFERENCES.next_value())) or 0)
    declaration = Declaration(
        id=new_id(),
        state=states.DECLARATION.start,
        due_at=NEVER,
        wake_at=NEVER,
        client_id=client_id,
        correlation_id=correlation_id,
        created_at=_BEGUN,
        updated_at=_BEGUN,
        charge_reference=reference,
        number=0,
    )
    declaration.payload = charge_references.placed(payload, reference, declaration.acknowledgement_reference)
    session.add(declaration)
    session.flush()
    accepted = {"to": states.DECLARATION.start, "actor": "client", "reason": "accepted", "at": _BEGUN}
    session.execute(insert(Move).values(workflow_id=declaration.id, **accepted))
    return declaration


def lock(session: Session, reference: str, *, client_id: UUID, wait: float) -> Seen | None:
    """The original of the client's declaration as it is under its lock, which lasts until the transaction ends.

    None: the client has none of this reference. Raises Locked when somebody else still holds it after `wait` seconds.
    """
    session.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{math.ceil(wait * 1000)}ms"})
    mine = select(W.c.id).join(_D, _D.c.id == W.c.id).where(*_original(reference), W.c.client_id == client_id)
    try:
        found = session.scalar(mine.with_for_update(of=W))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise Locked from error
        raise
    return workflows.read(session, found) if found else None


def view(
    session: Session, reference: str, *, client_id: UUID | None, newest: int, sealed: bool = False
) -> Shown | None:
    """What may be shown of the original, of this client or (None) of any, with so many of its moves and calls.

    Payload, journey data and faults cannot be read of it unless asked for as `sealed`.
    """
    asked = _whose(reference, client_id)
    declaration = session.scalar(asked if sealed else asked.options(*_UNSEALED))
    if declaration is None:
        return None
    told = or_(Move.to.is_not(None), Move.reason.in_((*EVENTS, *TAKEN_AWAY)))
    moves = select(Move).where(Move.workflow_id == declaration.id, told).order_by(Move.id.desc()).limit(newest)
    calls = select(Call).where(Call.workflow_id == declaration.id).order_by(Call.id.desc()).limit(newest)
    connected = func.count().filter(Call.code.not_in(NOT_CONNECTED))
    made, sent = session.execute(select(func.count(), connected).where(Call.workflow_id == declaration.id)).one()
    return Shown(
        declaration=declaration,
        moves=[*session.scalars(moves)][::-1],
        calls=[*session.scalars(calls)][::-1],
        made=made,
        sent=sent,
    )


def _whose(reference: str, client_id: UUID | None) -> Select[Declaration]:
    asked = select(Declaration).where(*_original(reference))
    return asked if client_id is None else asked.where(Declaration.client_id == client_id)


def _original(reference: str) -> tuple[ColumnElement[bool], ...]:
    return (_D.c.charge_reference == reference, _D.c.number == 0)


def state_of(session: Session, reference: str) -> str | None:
    """The state of the original alone; None if there is none."""
    return session.scalar(select(W.c.state).join(_D, _D.c.id == W.c.id).where(*_original(reference)))


def moved_at(declaration_id: UUID) -> ScalarSelect[datetime]:
    """SQL: when it last changed its state."""
    return select(W.c.updated_at).where(W.c.id == declaration_id).scalar_subquery()


def note_read(session: Session, reader: str, reference: str, *, correlation_id: str) -> None:
    """Leave in the audit who read the data of a declaration, and with which request (contract 2.4)."""
    entry = {"actor": reader, "action": "declaration-data-read", "subject": reference}
    session.execute(insert(Audit).values(**entry, detail={"correlationId": correlation_id}))
