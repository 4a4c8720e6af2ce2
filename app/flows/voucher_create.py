"""Create: i-Movo itself refuses a second live voucher; what it has is looked at before anything is repeated.

Source: vouchers contract, 5.2. An answer that is no end yet leaves the call in doubt, with what is known of it, and
`find` reads what stands there now.
"""

from app import vouchers
from app.flows import voucher_answers as answers
from app.flows.voucher_calls import Refused, adopt, ask, codes_of, learn, lost_as, missing
from app.models.voucher import VoucherOperation
from app.steps import Failure, Nothing, Outcome, Unknown, Work
from app.store import vouchers as records
from app.upstreams.imovo import Imovo
from app.upstreams.imovo_answers import Pair

_EXISTS, _INCOMPLETE = "already-exists", "incomplete-answer"
_OTHER_SCHEME = Failure(code="malformed-answer", http_status=502, message="i-Movo answered with another scheme.")
_LONGEST = 500


def create(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    scheme = str(operation.parameters["scheme"])
    try:
        made = ask(lambda: imovo.create(operation.subscription_id, scheme))
    except Refused as refused:
        if refused.code == _EXISTS:
            return Unknown(failure=refused.failure)
        return answers.refused(operation, refused.texts)
    if not vouchers.same_scheme(made.scheme, scheme):
        return Unknown(failure=_OTHER_SCHEME)
    if gone := missing(made):
        said = answers.incomplete(operation, gone)
        return Unknown(failure=Failure(code=_INCOMPLETE, http_status=502, message=said))
    learn(operation, records.not_live)  # else i-Movo would have refused
    return _adopted(operation, made)


def find(operation: VoucherOperation, work: Work, imovo: Imovo) -> Outcome:
    scheme = str(operation.parameters["scheme"])
    try:
        shown = ask(lambda: imovo.get(operation.subscription_id))
    except Refused as refused:
        return _not_there(operation, refused)
    if not vouchers.same_scheme(shown.scheme, scheme):
        conflict = vouchers.plan_conflict(operation.subscription_id, shown.scheme, scheme)
        return answers.rejected("plan-conflict", conflict)
    if gone := missing(shown):
        return answers.unresolved(_INCOMPLETE, answers.incomplete(operation, gone))
    return _adopted(operation, shown)


def _adopted(operation: VoucherOperation, pair: Pair) -> Outcome:
    adopt(operation, pair, made=True)
    return answers.done(operation, codes_of(pair))


def _not_there(operation: VoucherOperation, read: Refused) -> Outcome:
    """Nothing to adopt: do it again, unless i-Movo had answered."""
    if read.code == "not-live":
        learn(operation, records.not_live)
    lost = lost_as(operation)
    if lost and lost.code == _EXISTS:
        both = f"{lost.message or 'no reason given'}; reading it back: {read.texts or 'no reason given'}"
        return answers.refused(operation, both[:_LONGEST])
    if lost and lost.code == _INCOMPLETE:
        return answers.unresolved(_INCOMPLETE, answers.incomplete(operation, vouchers.KINDS))
    return Nothing(values={"lost_sends": operation.lost_sends + 1}, at_once=True)
