"""The members of a travel claim as its owner sees it, in order. Source: travel-claims contract, 2.4."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app import states
from app.models.claim import Claim
from app.store.claims import Shown

S = states.Claim
_WITH_ERROR = {S.FAILED, S.DUPLICATE, S.ROLLING_BACK, S.ROLLED_BACK, S.ROLLBACK_FAILED}
_UNFINISHED_UPSTREAM = {None, "Incomplete", "Saved"}
_ERROR_MEMBERS = ("step", "httpStatus", "code", "message", "expenseIndex")


def render(shown: Shown, *, step: str | None) -> dict[str, Any]:
    """The claim as JSON shows it; `step` is the one in progress. Nothing sealed is in it but the appointment's name."""
    claim, final = shown.claim, states.CLAIM.is_finished(shown.claim.state)
    failed = error(claim)
    return {
        "id": str(claim.id),
        "state": claim.state,
        "final": final,
        "product": claim.product,
        "correlationId": claim.correlation_id,
        "run": claim.run,
        "createdAt": time(claim.created_at),
        "updatedAt": time(claim.updated_at),
        "dueAt": None if final or claim.due_at is None else time(claim.due_at),
        "appointment": _appointment(claim),
        "appointmentId": claim.appointment_id,
        "claimId": claim.claim_id,
        "claimNumber": claim.claim_number,
        "status": claim.status,
        "step": str(failed["step"]) if failed else step,
        "attempt": claim.error.get("attempt", claim.attempt) if failed and claim.error else claim.attempt,
        "expenses": [_expense(claim, index, one) for index, one in enumerate(claim.expenses)],
        "rollback": _rollback(claim),
        "cancelRequested": claim.asked == "cancel" or claim.state == S.CANCELLED,
        "error": failed,
        "text": _text(shown),
        "callback": _callback(shown),
    }


def time(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _appointment(claim: Claim) -> dict[str, Any]:
    members = {name: claim.appointment.get(name) for name in ("dateTime", "stationNumber", "type", "complete")}
    members["name"] = claim.appointment_name
    return {name: value for name, value in members.items() if value is not None}


def _expense(claim: Claim, index: int, one: Mapping[str, Any]) -> dict[str, Any]:
    intent = claim.intent or {}
    lost = claim.in_doubt and intent.get("step") == "add_expenses" and intent.get("index") == index
    return {
        "index": index,
        "type": one["type"],
        "state": "in-doubt" if lost else one["state"],
        "expenseId": one["expenseId"],
    }


def _rollback(claim: Claim) -> dict[str, Any]:
    return {"requested": claim.rollback, "result": claim.rollback_result, "detail": claim.rollback_detail}


def error(claim: Claim) -> dict[str, Any] | None:
    """The error object, in the states that show one."""
    if claim.error is None or claim.state not in _WITH_ERROR:
        return None
    members = {name: claim.error[name] for name in _ERROR_MEMBERS if name in claim.error}
    if members["step"] == "add_expenses":
        members.setdefault("expenseIndex", _expense_at_fault(claim))
    return members | {
        "claim": {"id": claim.claim_id, "state": claim_state(claim)},
        "rollback": _rollback(claim),
        "retryable": claim.error["retryable"],
        "correlationId": claim.correlation_id,
    }


def _expense_at_fault(claim: Claim) -> int:
    """The expense whose call is in doubt, else the first that is not there: for failures that name none themselves."""
    intent = claim.intent or {}
    if claim.in_doubt and intent.get("step") == "add_expenses":
        return int(intent["index"])
    return next((index for index, one in enumerate(claim.expenses) if one["state"] == "pending"), 0)


def claim_state(claim: Claim) -> str:
    """What became of the upstream claim, as the error object tells it."""
    undone = claim.undo.get("claim")
    if undone in {"deleted", "gone"}:
        return "deleted" if undone == "deleted" else "none"
    lost = (claim.intent or {}).get("step") if claim.in_doubt else None
    if claim.claim_id is None:
        return "unknown" if lost == "create_claim" else "none"
    if claim.status not in _UNFINISHED_UPSTREAM:
        return str(claim.status)
    if lost == "submit_claim":
        return "unknown"
    progress = {one["state"] for one in claim.expenses}
    if progress & {"added", "adopted"}:
        return "Saved"
    return "Incomplete" if "removed" in progress else claim.status or "Incomplete"


def _text(shown: Shown) -> dict[str, Any]:
    text = shown.text
    if text is None:
        return {"state": "none", "template": None, "reason": None}
    return {"state": text.state, "template": text.template, "reason": text.reason}


def _callback(shown: Shown) -> dict[str, Any] | None:
    if not shown.claim.callback_wanted:
        return None
    callback = shown.callback
    if callback is None:
        return {"state": "none", "attempts": 0, "lastStatus": None}
    return {"state": callback.state, "attempts": callback.attempts, "lastStatus": callback.last_status}
