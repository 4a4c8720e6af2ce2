"""Operations on vouchers in Postgres: accepting and joining them, how one stands, and reading them.

Whoever accepts, joins or withdraws holds the lock on the subscription's voucher first, then writes in `workflows`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, case, func, insert, null, or_, select, update
from sqlalchemy.orm import Session, aliased, defer

from app import config, states
from app.models.orm import new_id
from app.models.voucher import Voucher, VoucherOperation
from app.models.workflow import Move
from app.store.workflows import NEVER, NOW, W, seconds

Op = VoucherOperation
_OWN: Table = VoucherOperation.__table__  # type: ignore[assignment]
_UNSEALED = tuple(defer(column, raiseload=True) for column in (Op.baseline, Op.answer))
_QUEUED = states.VoucherOperation.QUEUED
T = TypeVar("T", str, ColumnElement[str])


@dataclass(frozen=True, kw_only=True)
class NewOperation:
    """An operation as accepted, before it has a row. `urgent`: somebody waits; `withdrawable`: he takes no 202."""

    client_id: UUID
    correlation_id: str
    operation: str
    parameters: Mapping[str, Any]
    urgent: bool
    withdrawable: bool


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far an operation is. `due_in`: seconds until the next attempt of it, or of the one it waits for."""

    state: str
    due_in: float

    @property
    def is_final(self) -> bool:
        return states.VOUCHER_OPERATION.is_finished(self.state)


def slot_of(subscription_id: T) -> T:
    """What only the oldest unfinished operation of a subscription holds; also as SQL."""
    return "voucher:" + subscription_id


def accept(session: Session, voucher: Voucher, new: NewOperation) -> UUID:
    """Queue a new operation behind the unfinished ones of a locked voucher; the first of them is due at once."""
    voucher.last_sequence += 1
    settings, first = config.settings(), newest_unfinished(session, voucher.subscription_id) is None
    operation = VoucherOperation(
        id=new_id(),
        state=_QUEUED,
        slot=slot_of(voucher.subscription_id) if first else None,
        due_at=NOW if first else NEVER,
        wake_at=NOW + seconds(settings.redispatch_seconds) if first else NEVER,  # its message is on the way
        deadline_at=NOW + seconds(settings.vouchers.give_up_seconds),
        priority=0 if new.urgent else 1,
        client_id=new.client_id,
        correlation_id=new.correlation_id,
        subscription_id=voucher.subscription_id,
        sequence=voucher.last_sequence,
        operation=new.operation,
        parameters=dict(new.parameters),
        withdrawable=new.withdrawable,
    )
    session.add(operation)
    session.flush()
    session.add(Move(workflow_id=operation.id, to=_QUEUED, actor="client"))
    return operation.id


def join(session: Session, operation: VoucherOperation, *, urgent: bool, strict: bool) -> None:
    """One more request waits for an unfinished operation of a locked voucher. For one that is not strict it goes on."""
    values: dict[str, Any] = {"priority": 0} if urgent else {}
    if not strict:
        session.execute(update(_OWN).where(_OWN.c.id == operation.id).values(withdrawable=False))
        _take_back(session, operation.id)
        values |= {"asked": null()}
    if values:
        session.execute(update(W).where(W.c.id == operation.id, W.c.finished_at.is_(None)).values(**values))


def _take_back(session: Session, operation_id: UUID) -> None:
    """What is to be withdrawn and not in doubt, its holder may be withdrawing right now: he may write no more."""
    withdrawn = (W.c.asked.is_not(None), W.c.in_doubt.is_(False), W.c.finished_at.is_(None))
    state = session.scalar(select(W.c.state).where(W.c.id == operation_id, *withdrawn).with_for_update())
    if state is None:
        return
    rest = states.VOUCHER_OPERATION.rest(state, in_doubt=False)
    free = {"state": rest, "worker": None, "fence": W.c.fence + 1, "due_at": NOW, "wake_at": NOW}
    session.execute(update(W).where(W.c.id == operation_id).values(**free))
    if rest != state:
        row = {"workflow_id": operation_id, "of": state, "to": rest, "actor": "client", "reason": "joined"}
        session.execute(insert(Move).values(**row))


def newest_unfinished(session: Session, subscription_id: str) -> VoucherOperation | None:
    """The last of the unfinished operations of a subscription."""
    of_it = select(Op).where(Op.subscription_id == subscription_id, Op.finished_at.is_(None))
    return session.scalar(_fresh(of_it.order_by(Op.sequence.desc()).limit(1)))


def unfinished_create(session: Session, subscription_id: str) -> UUID | None:
    """The create that is under way, if one is."""
    of_it = select(Op.id).where(Op.subscription_id == subscription_id, Op.operation == "create")
    return session.scalar(of_it.where(Op.finished_at.is_(None)).order_by(Op.sequence.desc()).limit(1))


def standing(session: Session, operation_id: UUID) -> Standing | None:
    """How far an operation is. None: there is none."""
    head = aliased(Op)
    due = (
        select(case((head.due_at == NEVER, null()), else_=head.due_at))
        .where(head.subscription_id == Op.subscription_id, head.finished_at.is_(None))
        .order_by(head.sequence)
        .limit(1)
        .scalar_subquery()
    )
    left = func.greatest(func.extract("epoch", due - NOW), 0)
    row = session.execute(select(Op.state, left).where(Op.id == operation_id)).one_or_none()
    return Standing(state=row[0], due_in=float(row[1] or 0)) if row else None


def find(session: Session, operation_id: UUID) -> VoucherOperation | None:
    """An operation with its answer, as it is now."""
    return session.scalar(_fresh(select(Op).where(Op.id == operation_id)))


def visible(session: Session, operation_id: UUID, client_id: UUID | None) -> VoucherOperation | None:
    """As `find`, if the client has started it or owns its subscription; of any client where it is None."""
    wanted = select(Op).join(Voucher, Voucher.subscription_id == Op.subscription_id).where(Op.id == operation_id)
    if client_id is not None:
        wanted = wanted.where(or_(Op.client_id == client_id, Voucher.client_id == client_id))
    return session.scalar(_fresh(wanted))


def listed(
    session: Session, subscription_id: str, *, client_id: UUID | None, before: int | None, limit: int
) -> Sequence[VoucherOperation]:
    """So many operations of a subscription without what is sealed, newest first, older than sequence `before`.

    `client_id`: only those that this client has started.
    """
    wanted = select(Op).where(Op.subscription_id == subscription_id)
    if client_id is not None:
        wanted = wanted.where(Op.client_id == client_id)
    if before is not None:
        wanted = wanted.where(Op.sequence < before)
    return session.scalars(wanted.options(*_UNSEALED).order_by(Op.sequence.desc()).limit(limit)).all()


def _fresh(statement: Select[VoucherOperation]) -> Select[VoucherOperation]:
    return statement.execution_options(populate_existing=True)
