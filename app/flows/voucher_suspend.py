"""Suspend: i-Movo refuses a second holiday on the same days, so a lost call is simply made again.

Source: vouchers contract, 5.2 and 5.5. Suspensions cannot be read back; what we recorded is all there is.
"""

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from app import clock, vouchers
from app.db import Session
from app.flows import voucher_answers as answers
from app.flows.voucher_calls import Refused, ask, is_live, learn
from app.flows.voucher_cancel import adopted
from app.models.voucher import Voucher, VoucherOperation, VoucherSuspension
from app.steps import Ended, Failure, Outcome, Retry, Work
from app.store import voucher_queue
from app.store import vouchers as records
from app.upstreams.imovo import Imovo

_SUSPENDED = Failure(code="currently-suspended", http_status=409, message="Another suspension has to end first.")


def suspend(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    _must_lie_ahead(operation)
    if not is_live(operation) and (ended := adopted(operation, imovo)):
        return ended
    return find(operation, work, imovo)


def find(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    start, end = days(operation)
    try:
        ask(lambda: imovo.suspend(operation.subscription_id, start, end))
    except Refused as refused:
        return _refused(operation, refused)
    return _taken(operation)


def clearance(_session: Session, operation: VoucherOperation) -> Mapping[str, Any]:
    """Directly before each send. Raises Ended when the start date has passed."""
    _must_lie_ahead(operation)
    return {}


def _must_lie_ahead(operation: VoucherOperation) -> None:
    """i-Movo takes suspensions from tomorrow on; what was once sent may have been taken before. Raises Ended."""
    if days(operation)[0] < vouchers.tomorrow():
        raise Ended(answers.outcome_unknown() if operation.in_doubt else answers.start_date_passed())


def days(operation: VoucherOperation) -> tuple[date, date]:
    """The first day, and the day on which the voucher works again."""
    given = operation.parameters
    return date.fromisoformat(given["startDate"]), date.fromisoformat(given["endDateExclusive"])


def _taken(operation: VoucherOperation) -> Outcome:
    start, end = days(operation)
    learn(operation, partial(records.suspended, operation_id=operation.id, start=start, end=end))
    return answers.done(operation)


def _refused(operation: VoucherOperation, refused: Refused) -> Outcome:
    if refused.code == "not-live":
        learn(operation, records.not_live)
        return answers.not_live(operation)
    if refused.code == "already-exists":
        return answers.refused(operation, refused.texts)
    return _in_the_way(operation, refused)


def _in_the_way(operation: VoucherOperation, refused: Refused) -> Outcome:
    """Table 5.5; before it, what we know to be suspended already is in the way of nothing."""
    conflict = refused.code == "holiday-conflict"
    if conflict and records.is_suspended_throughout(operation.suspensions, *days(operation)):
        return answers.done(operation)
    running = records.covering(operation.suspensions, operation.begun_on)
    if running:
        return _after(operation, running)
    if conflict and operation.in_doubt:
        return _taken(operation)
    if conflict:
        return answers.rejected("holiday-conflict", vouchers.HOLIDAY_CONFLICT)
    return answers.refused(operation, refused.texts)


def _after(operation: VoucherOperation, running: VoucherSuspension) -> Outcome:
    """i-Movo takes none while one is running: wait for its end, unless ours is to follow directly."""
    if running.ends_on < days(operation)[0]:
        wait = (vouchers.lifted_at(running.ends_on) - clock.now()).total_seconds()
        learn(operation, partial(_put_off, operation=operation, by=wait))
        return Retry(failure=_SUSPENDED, after=wait, free=True)
    if operation.in_doubt:
        return answers.outcome_unknown()
    return answers.currently_suspended(running.ends_on)


def _put_off(session: Session, _voucher: Voucher, *, operation: VoucherOperation, by: float) -> None:
    voucher_queue.put_off(session, operation.id, by=by)
