"""Cancel: at once, or from a date on; done twice it does no harm. Source: vouchers contract, 5.2."""

from datetime import date
from functools import partial

from app import states
from app.flows import voucher_answers as answers
from app.flows.voucher_calls import Refused, adopt, again, ask, is_live, learn, state_today
from app.models.voucher import VoucherOperation
from app.steps import Nothing, Outcome, Work
from app.store import vouchers as records
from app.upstreams.imovo import Imovo

V = states.Voucher


def cancel(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    if first_day(operation) and not is_live(operation) and (ended := adopted(operation, imovo)):
        return ended
    return _send(operation, imovo)


def find(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    """With a date the very same call again: it cannot have a second effect."""
    if first_day(operation):
        return _send(operation, imovo)
    try:
        ask(lambda: imovo.get(operation.subscription_id))
    except Refused as refused:
        return _cancelled(operation) if refused.code == "not-live" else again(refused)
    return Nothing(values={"lost_sends": operation.lost_sends + 1}, at_once=True)


def adopted(operation: VoucherOperation, imovo: Imovo) -> Outcome | None:
    """Read a voucher that our record does not show as live. An outcome: there is none, and no call follows."""
    try:
        shown = ask(lambda: imovo.get(operation.subscription_id))
    except Refused as refused:
        if refused.code != "not-live":
            return answers.refused(operation, refused.texts)
        learn(operation, records.not_live)
        gone_before = operation.operation == "cancel" and state_today(operation) == V.CANCELLED
        return answers.done(operation) if gone_before else answers.not_live(operation)
    adopt(operation, shown)
    return None


def first_day(operation: VoucherOperation) -> date | None:
    """The first day without voucher; None: at once."""
    day = operation.parameters["cancellationDate"]
    return date.fromisoformat(day) if day else None


def _send(operation: VoucherOperation, imovo: Imovo) -> Outcome:
    day = first_day(operation)
    try:
        ask(lambda: imovo.cancel(operation.subscription_id, day))
    except Refused as refused:
        return _not_live(operation) if refused.code == "not-live" else answers.refused(operation, refused.texts)
    if day is None:
        return _cancelled(operation)
    learn(operation, partial(records.cancel_due, day=day))
    return answers.done(operation)


def _cancelled(operation: VoucherOperation) -> Outcome:
    learn(operation, partial(records.cancel_taken, client_id=operation.client_id))
    return answers.done(operation)


def _not_live(operation: VoucherOperation) -> Outcome:
    """There was a voucher, or this very operation may have ended it: then it is cancelled, which is what was asked."""
    known = state_today(operation) in {V.ACTIVE, V.SUSPENDED, V.CANCELLED}
    learn(operation, records.not_live)
    if known or operation.in_doubt or operation.lost_sends:
        return _cancelled(operation)
    return answers.not_live(operation)
