"""What the documentation shows for every answer: claims as in the contract's section 10, and a problem of each kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.api import problems

CLAIM_ID = "0197c2a4-7c1e-7b2a-9d55-3f0c8e6a1b42"
PLACE = f"/travel-claims/{CLAIM_ID}"
_TEXT_ID = "0197c2a4-8a02-7c11-8f60-b7d2e94c5a13"
_UPSTREAM = "7d0f2c1e-5b0a-4b86-9c3d-0a1f6e2b8c44"
_CORRELATION = "6f1d2c9e-4b7a-4e0d-9a35-2f8c7b1e0d44"
_AT, _LATER = "2026-03-02T15:04:05.120Z", "2026-03-02T15:04:52.871Z"
_NO_ROLLBACK = {"requested": False, "result": "none", "detail": None}

NEW_CLAIM = {
    "icn": "1012667122V019349",
    "appointment": {"dateTime": "2026-03-02T10:00:00-05:00", "stationNumber": "983GC"},
    "phone": "+12025550143",
}
RECEIPT = {
    "id": "c9a1e7b4-0d52-4f6e-93b8-7e2f1a6c5d08",
    "reference": _TEXT_ID,
    "to": "+12025550143",
    "status": "delivered",
    "status_reason": None,
    "notification_type": "sms",
    "completed_at": "2026-03-02T15:05:31.000000Z",
}
ACCEPTED: dict[str, Any] = {
    "id": CLAIM_ID,
    "state": "accepted",
    "final": False,
    "product": "pci",
    "correlationId": _CORRELATION,
    "run": 1,
    "createdAt": _AT,
    "updatedAt": _AT,
    "dueAt": _AT,
    "appointment": {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"},
    "appointmentId": None,
    "claimId": None,
    "claimNumber": None,
    "status": None,
    "step": "authorize",
    "attempt": 0,
    "expenses": [{"index": 0, "type": "mileage", "state": "pending", "expenseId": None}],
    "rollback": _NO_ROLLBACK,
    "cancelRequested": False,
    "error": None,
    "text": {"state": "none", "template": None, "reason": None},
    "callback": None,
}
_FINAL = {"final": True, "updatedAt": _LATER, "dueAt": None}
SUBMITTED = ACCEPTED | _FINAL | {
    "state": "submitted",
    "appointmentId": "b2c7a3de-1f40-4d8b-8e21-90c4f6a7d512",
    "claimId": _UPSTREAM,
    "claimNumber": "TC202603000013890",
    "status": "ClaimSubmitted",
    "step": None,
    "expenses": [
        {"index": 0, "type": "mileage", "state": "added", "expenseId": "e41b9a70-6d35-4c0e-a7f8-3b52d1c09e66"}
    ],
    "text": {"state": "delivered", "template": "success", "reason": None},
}  # fmt: skip
FAILED = ACCEPTED | _FINAL | {
    "state": "failed",
    "step": "find_appointment",
    "attempt": 1,
    "error": {
        "step": "find_appointment",
        "httpStatus": 404,
        "code": "appointment-not-found",
        "message": "Travel Pay knows no appointment that fits the visit.",
        "claim": {"id": None, "state": "none"},
        "rollback": _NO_ROLLBACK,
        "retryable": True,
        "correlationId": _CORRELATION,
    },
    "text": {"state": "skipped", "template": "error", "reason": "no-phone"},
}  # fmt: skip
CANCELLED = ACCEPTED | _FINAL | {"state": "cancelled", "step": None, "cancelRequested": True}
CANCEL_REQUESTED = ACCEPTED | {
    "state": "appointment-found",
    "updatedAt": _LATER,
    "dueAt": _LATER,
    "appointmentId": SUBMITTED["appointmentId"],
    "step": "create_claim",
    "cancelRequested": True,
}
RETRIED = ACCEPTED | {"state": "authorized", "run": 2, "updatedAt": _LATER, "dueAt": _LATER, "step": "find_appointment"}
PAGE = {"items": [SUBMITTED], "next": None}
MORE = {"items": [SUBMITTED], "next": "MjAyNi0wMy0wMlQxNTowNDowNS4xMjA0NTYrMDA6MDB8MDE5N2MyYTQ"}


@dataclass(frozen=True)
class _Refusal:
    status: int
    detail: str
    faults: Sequence[Mapping[str, str]] = ()


def _fault(pointer: str, code: str, detail: str) -> dict[str, str]:
    return {"pointer": pointer, "code": code, "detail": detail}


_REFUSALS: Mapping[str, _Refusal] = {
    "invalid-request": _Refusal(
        400,
        "The header X-Correlation-ID is not usable.",
        [
            _fault(
                "header:X-Correlation-ID",
                "pattern",
                "Must be 1 to 64 letters, digits, dots, underscores or hyphens.",
            )
        ],
    ),
    "invalid-parameter": _Refusal(
        400,
        "1 parameter is at fault.",
        [_fault("?limit", "out-of-range", "Must be a whole number from 1 to 100.")],
    ),
    "malformed-json": _Refusal(400, "The body cannot be read as JSON: expecting value (character 0)."),
    "unauthorized": _Refusal(401, "Send a valid key in x-api-key."),
    "forbidden": _Refusal(403, "This needs scope {line}."),
    "client-not-set-up": _Refusal(403, "This client has no product yet."),
    "not-found": _Refusal(404, "There is no such {one}."),
    "feature-disabled": _Refusal(404, "The line {line} is switched off."),
    "idempotency-in-progress": _Refusal(409, "The first request with this key is still being accepted."),
    "not-cancellable": _Refusal(409, "The claim is submitted."),
    "not-retryable": _Refusal(409, "Only a failed claim can be retried; this one is submitted."),
    "superseded": _Refusal(409, "The client has a newer claim for the same visit."),
    "data-erased": _Refusal(409, "The personal data of this claim are erased."),
    "too-large": _Refusal(413, "A body may have 102400 bytes here."),
    "unsupported-media-type": _Refusal(415, "Send application/json."),
    "validation-failed": _Refusal(
        422,
        "1 field is at fault.",
        [_fault("/notify", "type", "Must be true or false.")],
    ),
    "idempotency-mismatch": _Refusal(422, "This Idempotency-Key was used for another request."),
    "internal-error": _Refusal(500, "The error is logged under the correlation id."),
    "unavailable": _Refusal(503, "Try again in a few seconds."),
}


def refusals(kinds: Sequence[str], *, instance: str, line: str = "claims") -> dict[int, dict[str, Any]]:
    """Per status, an example of each of these kinds of problems by its name, as a route of this line gives it."""
    found: dict[int, dict[str, Any]] = {}
    for kind in kinds:
        one = _REFUSALS[kind]
        detail = one.detail.format(line=line, one=line.removesuffix("s"))
        value = problems.document(one.status, kind, detail, one.faults, instance=instance, correlation_id=_CORRELATION)
        found.setdefault(one.status, {})[kind] = {"value": value}
    return dict(sorted(found.items()))
