"""The ends of operations that no holder brings about: withdrawn by its caller, given up while it waits behind others.

Source: vouchers contract, 2.3, 3.1 and 3.3. The caller holds the lock on the subscription's voucher.
"""

from uuid import UUID

from app import states, vouchers
from app.db import Session
from app.flows import dispatch
from app.flows import voucher_answers as answers
from app.flows.flow import Ending
from app.models.voucher import VoucherOperation
from app.store import voucher_operations, workflows
from app.store.workflows import Seen

S = states.VoucherOperation
_GIVEN_UP = Ending(state=S.FAILED, values=answers.values("given-up", vouchers.GIVEN_UP))


def end(session: Session, operation: VoucherOperation, seen: Seen, ending: Ending, *, actor: str, reason: str) -> bool:
    """End it with its answer, which the operation then shows. False: the row has changed since it was read."""
    if not workflows.move(session, seen, ending.state, actor=actor, reason=reason, holder=False):
        return False
    for name, value in ending.values.items():
        setattr(operation, name, value)
    workflows.save(session, VoucherOperation, operation.id, ending.values)
    dispatch.follow_up(session, seen.kind, operation, ending.state)
    return True


def give_up(session: Session, operation_id: UUID) -> bool:
    """An operation whose time is up, if nobody is at it."""
    operation, seen = voucher_operations.find(session, operation_id), workflows.read(session, operation_id)
    if operation is None or seen is None or seen.state != S.QUEUED:
        return False
    return end(session, operation, seen, _GIVEN_UP, actor="sweep", reason="given-up")
