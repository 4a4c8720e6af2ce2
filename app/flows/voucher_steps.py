"""The two verbs of the one step of a voucher operation, for each kind of operation, and its last rule for sending."""

from collections.abc import Callable, Mapping
from typing import Any

from app import errors, vouchers
from app.db import Session
from app.flows import voucher_calls, voucher_cancel, voucher_create, voucher_replace, voucher_suspend
from app.flows.voucher_calls import Verb
from app.models.voucher import VoucherOperation
from app.steps import Ended, Failure, Outcome, Retry, Work
from app.store import workflows

_TOO_LATE = Failure(code="deadline-exceeded", http_status=503, message="The time for it was up before it was sent.")

_DO: Mapping[str, Verb] = {
    "create": voucher_create.create,
    "replace": voucher_replace.replace,
    "cancel": voucher_cancel.cancel,
    "suspend": voucher_suspend.suspend,
}
_FIND: Mapping[str, Verb] = {
    "create": voucher_create.find,
    "replace": voucher_replace.find,
    "cancel": voucher_cancel.find,
    "suspend": voucher_suspend.find,
}
_RULES: Mapping[str, Callable[[Session, VoucherOperation], Mapping[str, Any]]] = {
    "replace": voucher_replace.clearance,
    "suspend": voucher_suspend.clearance,
}


def do(operation: VoucherOperation, work: Work) -> Outcome:
    """Carry it out. A call that leaves a question open ends in doubt, and `find` answers it."""
    return voucher_calls.run(_DO[operation.operation], operation, work)


def find(operation: VoucherOperation, work: Work) -> Outcome:
    """Learn how a call in doubt has ended; where a repeat can have no second effect, by making it again."""
    return voucher_calls.run(_FIND[operation.operation], operation, work)


def clear(session: Session, operation: VoucherOperation) -> Mapping[str, Any]:
    """What is stored with the intent of each call. Raises Ended or NotSent: nothing is sent.

    After the time to give up only what is in doubt is sent again, to learn its outcome (contract 3.1).
    """
    if not operation.in_doubt and operation.deadline_at and workflows.now(session) >= operation.deadline_at:
        raise Ended(Retry(failure=_TOO_LATE))
    if vouchers.today() != operation.begun_on:
        raise errors.NotSent("another day has begun")
    rule = _RULES.get(operation.operation)
    return {"sends": operation.sends + 1, **(rule(session, operation) if rule else {})}
