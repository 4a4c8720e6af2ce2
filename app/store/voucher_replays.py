"""Replaying an operation on a voucher: what is in the way of it, and bringing it back. Source: vouchers contract, 3.1.

The caller holds the lock on the subscription's voucher.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import and_, insert, select
from sqlalchemy.orm import Session

from app import config
from app.models.replay import Audit
from app.models.voucher import VoucherOperation
from app.store import workflows
from app.store.voucher_operations import slot_of
from app.store.vouchers import OPS
from app.store.workflows import Seen, W

LINE = "vouchers"


def in_the_way(session: Session, operation: VoucherOperation) -> UUID | None:
    """Another operation of the subscription that is unfinished, or that was accepted later and was sent."""
    sent_later = and_(OPS.c.sequence > operation.sequence, OPS.c.sends > 0)
    others = select(OPS.c.id).join(W, W.c.id == OPS.c.id).where(OPS.c.subscription_id == operation.subscription_id)
    found = others.where(OPS.c.id != operation.id, W.c.finished_at.is_(None) | sent_later)
    return session.scalar(found.order_by(OPS.c.sequence).limit(1))


def send_again(
    session: Session, operation: VoucherOperation, seen: Seen, to: str, *, intent: dict[str, Any] | None
) -> bool:
    """Due now and with all the time of a new one; in doubt where there is an intent. False: changed meanwhile."""
    moved = workflows.move(
        session, seen, to, actor="operator", reason="replayed", holder=False,
        deadline=config.settings().vouchers.give_up_seconds, slot=slot_of(operation.subscription_id),
        intent=intent, in_doubt=intent is not None, attempt=0, crashes=0, asked=None, error=None,
    )  # fmt: skip
    if moved:
        as_new = {"outcome_code": None, "answer": None, "withdrawable": False}
        workflows.save(session, VoucherOperation, operation.id, as_new)
    return moved


def audit(session: Session, operation_id: UUID, *, by: str, reason: str, of: str, to: str) -> None:
    """Who replayed it, and why."""
    told = {"line": LINE, "from": of, "to": to, "reason": reason}
    session.execute(insert(Audit).values(actor=by, action="replay", subject=str(operation_id), detail=told))
