"""Replace: what i-Movo shows before and after is compared; a kind counts as replaced only if its code has changed.

Source: vouchers contract, 5.2 to 5.4. A replacement is never sent again before looking, and never after an answer.
"""

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from app import config, metrics, vouchers
from app.db import Session
from app.flows import voucher_answers as answers
from app.flows.voucher_calls import Refused, adopt, again, ask, codes_of, learn, lost_as, missing
from app.models.voucher import Voucher, VoucherOperation
from app.steps import Ended, Failure, Nothing, Outcome, Rejected, Retry, Unknown, Work
from app.store import vouchers as records
from app.upstreams.imovo import Imovo
from app.upstreams.imovo_answers import Pair

_ANSWERED = Failure(code="read-back", http_status=502, message="i-Movo answered; what it did is read back.")
_EXISTS = "already-exists"


def replace(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    kinds, lost_before = vouchers.asked_kinds(operation.parameters), operation.lost_sends > 0
    try:
        shown = ask(lambda: imovo.get(operation.subscription_id))
    except Refused as refused:
        return _no_baseline(operation, refused)
    gone = missing(shown, kinds)
    if lost_before and (gone or _changed(operation, shown)):
        return _judge(operation, shown, conclusive=True)
    if gone:
        return answers.rejected("incomplete-answer", answers.incomplete(operation, gone))
    adopt(operation, shown)
    if not lost_before:
        operation.baseline = codes_of(shown)
    return _send(operation, imovo)


def clearance(session: Session, operation: VoucherOperation) -> Mapping[str, Any]:
    """The day rule (5.3), and what is stored with the intent. Raises Ended when a kind is used up."""
    kinds, day = vouchers.asked_kinds(operation.parameters), vouchers.today()
    used_up = records.used_up(session, operation.subscription_id, kinds, day, besides=operation.id)
    if used_up:
        metrics.voucher_replacements_refused.inc()
        message = vouchers.already_replaced(operation.subscription_id, used_up, day)
        raise Ended(answers.rejected("already-replaced", message))
    return {"baseline": operation.baseline, "counted_on": day, **counting(kinds)}


def counting(kinds: Collection[str]) -> dict[str, bool]:
    """The columns that say for which kinds a replacement counts."""
    return {f"counts_{kind}": kind in kinds for kind in vouchers.KINDS}


def _no_baseline(operation: VoucherOperation, refused: Refused) -> Outcome:
    lost_before = operation.lost_sends > 0
    if refused.code != "not-live":
        return again(refused) if lost_before else answers.refused(operation, refused.texts)
    learn(operation, records.not_live)
    if lost_before:
        kinds = vouchers.asked_kinds(operation.parameters)
        return answers.unresolved("incomplete-answer", answers.incomplete(operation, kinds), counting(kinds))
    return answers.not_live(operation)


def _send(operation: VoucherOperation, imovo: Imovo) -> Outcome:
    kinds = vouchers.asked_kinds(operation.parameters)
    card, letter = "card" in kinds, "letter" in kinds
    try:
        answer = ask(lambda: imovo.replace(operation.subscription_id, card=card, letter=letter))
    except Refused as refused:
        if refused.code == _EXISTS:
            return Unknown(failure=refused.failure)
        if refused.code == "not-live":
            learn(operation, records.not_live)
            return answers.not_live(operation)
        return answers.refused(operation, refused.texts)
    except Ended as ended:
        if isinstance(ended.outcome, Retry):  # without effect, so it counts no more
            return dataclasses.replace(ended.outcome, values=counting(()))
        raise
    if operation.sends > 1 or _changed(operation, answer) != set(kinds):
        return Unknown(failure=_ANSWERED)
    return _replaced(operation, answer)


def find(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    lost = lost_as(operation)
    answered = lost is not None and lost.code == _ANSWERED.code
    try:
        shown: Pair | None = ask(lambda: imovo.get(operation.subscription_id))
    except Refused as refused:
        if refused.code != "not-live":
            return again(refused)
        shown = None
    return _judge(operation, shown, conclusive=work.settled or answered, lost=lost)


def _judge(
    operation: VoucherOperation, shown: Pair | None, *, conclusive: bool, lost: Failure | None = None
) -> Outcome:
    """Table 5.4. `conclusive`: what has not changed by now counts as unchanged. `lost`: what is known of the call."""
    kinds = set(vouchers.asked_kinds(operation.parameters))
    changed, gone = _changed(operation, shown), missing(shown, kinds)
    if shown and changed == kinds:
        return _replaced(operation, shown)
    if not conclusive:
        return Nothing()
    if gone or changed or lost == _ANSWERED:
        return _partly(operation, shown, changed, gone)
    if lost and lost.code == _EXISTS:
        return answers.refused(operation, lost.message)
    lost_sends = {"lost_sends": operation.lost_sends + 1}
    if lost_sends["lost_sends"] >= config.settings().vouchers.replace_max_sends:
        return answers.unresolved("outcome-unknown", vouchers.OUTCOME_UNKNOWN, lost_sends)
    return Nothing(values={**lost_sends, **counting(())})


def _changed(operation: VoucherOperation, shown: Pair | None) -> set[str]:
    """The requested kinds that are live with another code than before."""
    before, now = operation.baseline or {}, codes_of(shown)
    return {
        kind for kind in vouchers.asked_kinds(operation.parameters) if kind in now and now[kind] != before.get(kind)
    }


def _replaced(operation: VoucherOperation, shown: Pair) -> Outcome:
    _take(operation, shown)
    codes, kinds = codes_of(shown), vouchers.asked_kinds(operation.parameters)
    done = answers.done(operation, {kind: codes[kind] for kind in kinds})
    return dataclasses.replace(done, values={**done.values, **counting(kinds)})  # also what took effect late


def _partly(operation: VoucherOperation, shown: Pair | None, changed: set[str], gone: set[str]) -> Rejected:
    """What changed is adopted and counts; what is certainly as before counts no more."""
    if shown is None:
        learn(operation, records.not_live)
    elif changed:
        _take(operation, shown)
    counts = counting(changed | gone)
    if gone:
        return answers.unresolved("incomplete-answer", answers.incomplete(operation, gone), counts)
    unchanged = set(vouchers.asked_kinds(operation.parameters)) - changed
    return answers.unresolved("unchanged-codes", vouchers.unchanged(unchanged), counts)


def _take(operation: VoucherOperation, shown: Pair) -> None:
    """Our record takes all that i-Movo shows; a kind that nobody asked for and that changed is drift."""
    adopt(operation, shown, made=True)
    if operation.counted_on:
        learn(operation, partial(records.replaced, on=operation.counted_on))
    before, now = operation.baseline or {}, codes_of(shown)
    others = set(now) & set(before) - set(vouchers.asked_kinds(operation.parameters))
    if any(now[kind] != before[kind] for kind in others):
        learn(operation, _unasked)


def _unasked(session: Session, _voucher: Voucher) -> None:
    records.count_drift(session, "unasked-kind")
