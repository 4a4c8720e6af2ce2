"""The operations of a subscription one after another: the next one, what follows from its end, how many there are.

The caller holds the lock on the subscription's voucher, but for the questions about all of them.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import and_, exists, func, select, true, update
from sqlalchemy.orm import Session

from app import config, states, vouchers
from app.models.client import Toggle
from app.models.voucher import Voucher, VoucherOperation
from app.store import vouchers as records
from app.store.voucher_operations import slot_of
from app.store.vouchers import OPS
from app.store.workflows import NEVER, NOW, W, seconds

S, V = states.VoucherOperation, states.Voucher
_SWEPT_AT_ONCE = 500
_WAITING = (W.c.kind == states.VOUCHER_OPERATION.kind, W.c.wake_at == NEVER)
_IS_ON = exists().where(Toggle.client_id == W.c.client_id, Toggle.name == "vouchers", Toggle.on == true())


def load(session: Session, operation_id: UUID) -> VoucherOperation:
    """An operation with the record of its subscription, as of today."""
    operation = session.get_one(VoucherOperation, operation_id)
    operation.voucher = session.get_one(Voucher, operation.subscription_id)
    operation.suspensions = records.suspensions(session, operation.subscription_id)
    operation.begun_on = vouchers.today()
    return operation


def is_held_as(session: Session, operation: VoucherOperation) -> bool:
    """Whether the right to write the operation is still with who loaded it."""
    return session.scalar(select(W.c.fence).where(W.c.id == operation.id)) == operation.fence


def after_operation(session: Session, voucher: Voucher) -> None:
    """Bring `requested` in step with the creates: it stands while one is unfinished, or its outcome is not known.

    Else the record goes back to what it was, and nobody owns a subscription that never had a voucher.
    """
    latest = and_(W.c.state == S.UNRESOLVED, records.since_confirmed(voucher))
    pending = session.execute(
        select(W.c.client_id, W.c.finished_at)
        .join(OPS, OPS.c.id == W.c.id)
        .where(OPS.c.subscription_id == voucher.subscription_id, OPS.c.operation == "create")
        .where(W.c.finished_at.is_(None) | latest)
        .order_by(W.c.finished_at.is_not(None), OPS.c.sequence)
        .limit(1)
    ).one_or_none()
    if pending is None and voucher.state == V.REQUESTED:
        records.become(voucher, V(voucher.state_before) if voucher.state_before else None)
        voucher.client_id = voucher.client_id if voucher.state else None
    elif pending is not None and pending.finished_at is None:
        records.request(voucher, pending.client_id)


def release_next(session: Session, subscription_id: str) -> Sequence[UUID]:
    """Make the oldest unfinished operation due, if no other one is at work. Returns its id, for the queue."""
    oldest = (
        select(OPS.c.id)
        .join(W, W.c.id == OPS.c.id)
        .where(OPS.c.subscription_id == subscription_id, W.c.finished_at.is_(None))
        .order_by(OPS.c.sequence)
        .limit(1)
    )
    slot = slot_of(subscription_id)
    at_work = select(W.c.id).where(W.c.slot == slot)
    released = (
        update(W)
        .where(W.c.id == oldest.scalar_subquery(), W.c.state == S.QUEUED)
        .where(W.c.slot.is_(None), ~at_work.exists())
        .values(
            slot=slot,
            due_at=NOW,
            wake_at=NOW + seconds(config.settings().redispatch_seconds),
            fence=W.c.fence + 1,
        )
    )
    return session.scalars(released.returning(W.c.id)).all()


def blocked(session: Session) -> Sequence[str]:
    """Subscriptions whose operations wait behind none: what released the next one did not happen."""
    taken = W.alias()
    free = ~exists().where(taken.c.slot == slot_of(OPS.c.subscription_id))
    waiting = select(OPS.c.subscription_id).join(W, W.c.id == OPS.c.id).where(*_WAITING, free)
    return session.scalars(waiting.distinct().limit(_SWEPT_AT_ONCE)).all()


def wait_along(session: Session, *, by: float) -> None:
    """What waits behind others for a client whose toggle is off, or while the line is off, loses no time: so many
    seconds more. (Who is first has its deadline moved by its holders.)"""
    off = select(W.c.id).where(*_WAITING).with_for_update(skip_locked=True)
    if config.settings().imovo is not None:
        off = off.where(~_IS_ON)
    later = update(W).where(W.c.id.in_(off))
    session.execute(later.values(deadline_at=W.c.deadline_at + seconds(by)))


def overdue(session: Session) -> Sequence[tuple[str, UUID]]:
    """Operations that wait behind others and whose time is up, with their subscriptions; none while they are off."""
    if config.settings().imovo is None:
        return []
    found = select(OPS.c.subscription_id, W.c.id).join(W, W.c.id == OPS.c.id)
    found = found.where(*_WAITING, _IS_ON, W.c.deadline_at <= NOW).order_by(W.c.deadline_at)
    return [(row[0], row[1]) for row in session.execute(found.limit(_SWEPT_AT_ONCE))]


def put_off(session: Session, operation_id: UUID, *, by: float) -> None:
    """What the contract has an operation wait for does not count towards giving up."""
    later = update(W).where(W.c.id == operation_id)
    session.execute(later.values(deadline_at=W.c.deadline_at + seconds(by)))


def standing(session: Session) -> tuple[Mapping[tuple[str, str], int], float]:
    """How many unfinished operations there are by operation and state, and the age of the oldest in seconds."""
    rows = session.execute(
        select(OPS.c.operation, W.c.state, func.count(), func.extract("epoch", NOW - func.min(W.c.created_at)))
        .join(W, W.c.id == OPS.c.id)
        .where(W.c.wake_at.is_not(None), W.c.kind == states.VOUCHER_OPERATION.kind)
        .group_by(OPS.c.operation, W.c.state)
    ).all()
    counts = {(operation, state): int(count) for operation, state, count, _ in rows}
    return counts, max((float(age) for *_, age in rows), default=0.0)
