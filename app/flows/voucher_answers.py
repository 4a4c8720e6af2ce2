"""How an operation on a voucher ends: its outcome code, and the answer that everybody who waits for it gets.

Source: vouchers contract, 2.10. Codes stand in the answer of a success alone, which is sealed.
"""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from app import states, vouchers
from app.models.voucher import VoucherOperation
from app.steps import Failure, Ok, Rejected

S = states.VoucherOperation
_STATUS = {
    "not-live": 404,
    "plan-conflict": 409,
    "already-replaced": 409,
    "holiday-conflict": 409,
    "currently-suspended": 409,
    "start-date-passed": 409,
    "refused": 502,
    "incomplete-answer": 502,
    "unchanged-codes": 502,
    "outcome-unknown": 503,
    "given-up": 503,
    "withdrawn": 503,
}
OPEN = frozenset({"incomplete-answer", "unchanged-codes", "outcome-unknown"})  # of what ends unresolved
Values = dict[str, Any]


def values(code: str, message: str) -> Values:
    """The columns of an operation that ended otherwise than asked for."""
    return {"outcome_code": code, "answer": {"status": _STATUS[code], "body": {"message": message}}}


def done(operation: VoucherOperation, codes: Mapping[str, str] | None = None) -> Ok:
    """It was carried out. `codes`: by kind, those that the caller is told."""
    body = {f"{kind}Code": code for kind, code in (codes or {}).items()}
    answer = {"status": 201 if operation.operation == "create" else 200, "body": body}
    return Ok(state=S.SUCCEEDED, values={"outcome_code": "done", "answer": answer})


def rejected(code: str, message: str) -> Ok:
    """A definite no: nothing was changed."""
    return Ok(state=S.REJECTED, failure=_failure(code, message), values=values(code, message))


def unresolved(code: str, message: str, more: Mapping[str, Any] | None = None) -> Rejected:
    """A person has to look; what was sent stays on the row as it is. `more`: further columns."""
    return Rejected(failure=_failure(code, message), values={**values(code, message), **(more or {})})


def refused(operation: VoucherOperation, texts: str) -> Ok:
    """i-Movo said no. `texts`: in its scrubbed words, or none."""
    return rejected("refused", vouchers.refused(operation.operation, texts))


def not_live(operation: VoucherOperation) -> Ok:
    return rejected("not-live", vouchers.not_live(operation.subscription_id))


def incomplete(operation: VoucherOperation, kinds: Collection[str]) -> str:
    return vouchers.incomplete(operation.subscription_id, kinds)


def outcome_unknown() -> Rejected:
    return unresolved("outcome-unknown", vouchers.OUTCOME_UNKNOWN)


def currently_suspended(until: date) -> Ok:
    return rejected("currently-suspended", vouchers.currently_suspended(until))


def start_date_passed() -> Ok:
    code, message = "start-date-passed", vouchers.START_DATE_PASSED
    return Ok(state=S.FAILED, failure=_failure(code, message), values=values(code, message))


def _failure(code: str, message: str) -> Failure:
    return Failure(code=code, http_status=_STATUS[code], message=message, retryable=False)
