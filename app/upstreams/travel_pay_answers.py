"""What Travel Pay says: its records, its status words, its ways to say no (contract 4.4 to 4.6)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app import steps
from app.upstreams.answers import Answer
from app.upstreams.outcomes import NotUnderstood

Group = Literal["unfinished", "submitted", "denied", "other"]
_UNFINISHED = frozenset({"Incomplete", "Saved"})
_DENIED = frozenset({"Denied", "ClosedWithNoPayment", "PaymentCanceled", "FiscalRescinded"})
_SUBMITTED = frozenset(
    {
        *("ClaimSubmitted", "InProcess", "In-Process", "InProgress", "InManualReview", "OnHold", "Appealed", "Appeal"),
        *("PartialPayment", "PreApprovedForPayment", "ApprovedForPayment", "SubmittedForPayment", "ClaimPaid"),
    }
)
_DUPLICATE = ("clm_002_claim_exists", "already been created", "already has a claim", "already exists", "duplicate")


@dataclass(frozen=True, kw_only=True)
class Appointment:
    """`date_time` is Travel Pay's wall-clock time, marked Z; compare it with `same_minute` only."""

    id: str
    date_time: str | None = None
    status: str | None = None
    current_status: str | None = None
    facility_name: str | None = None
    claim_id: str | None = None
    claim_number: str | None = None

    @property
    def cancelled(self) -> bool:
        return any("cancel" in (word or "").casefold() for word in (self.status, self.current_status))


@dataclass(frozen=True, kw_only=True)
class ClaimSummary:
    id: str
    claim_number: str | None = None
    status: str | None = None
    date_time: str | None = None
    facility_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Expense:
    """An expense as read back. Its type may hide in `name` (parking comes back as type `Other`)."""

    id: str | None = None
    type: str | None = None
    name: str | None = None
    date_incurred: str | None = None
    description: str | None = None
    cost: float | int | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimDetails:
    id: str
    claim_number: str | None = None
    status: str | None = None
    date_time: str | None = None
    facility_name: str | None = None
    expenses: tuple[Expense, ...] = ()


def group(status: str | None) -> Group:
    """The group of a claim status; a word we do not know is `other`: neither unfinished nor submitted."""
    if status in _UNFINISHED:
        return "unfinished"
    if status in _DENIED:
        return "denied"
    return "submitted" if status in _SUBMITTED else "other"


def is_submitted(status: str | None) -> bool:
    """Whether the claim was submitted, whatever was decided since."""
    return group(status) in ("submitted", "denied")


def is_duplicate(ended: steps.Ended) -> bool:
    """Whether a refused create says that the visit already has a claim."""
    return ended.status in (400, 409, 422) and _says(ended, *_DUPLICATE)


def is_already_submitted(ended: steps.Ended) -> bool:
    """Whether a refused submit says that the claim had been submitted."""
    refused = ended.status is not None and 400 <= ended.status < 500
    return refused and _says(ended, "claim_already_submitted", "already been submitted")


def is_claim_not_found(ended: steps.Ended) -> bool:
    """Whether a 404 speaks of the claim, and not of the way to it."""
    return ended.status == 404 and _says(ended, "claim_not_found", "claim not found")


def _says(ended: steps.Ended, *words: str) -> bool:
    text = f"{ended.code} {ended.message}".casefold()
    return any(word in text for word in words)


def same_minute(one: str | None, other: str | None) -> bool:
    """Whether two wall-clock times, with or without zone marks, show the same minute."""
    return one is not None and other is not None and one[:16] == other[:16]


def wire_time(wall_clock: str) -> str:
    """A wall-clock time (`2026-03-02T10:00:00`) as Travel Pay wants it: marked Z, not converted."""
    return wall_clock if wall_clock.endswith("Z") else f"{wall_clock}Z"


def status_of(answer: Answer) -> int:
    """Where the answer really stands: a 2xx may carry `success: false` or an inner status of 400 and up."""
    document = answer.json
    if not 200 <= answer.status < 300 or not isinstance(document, dict):
        return answer.status
    inner = document.get("statusCode")
    inner = int(inner) if isinstance(inner, int) or (isinstance(inner, str) and inner.isdecimal()) else 0
    if inner >= 400:
        return inner if inner < 600 else 502
    return 502 if document.get("success") is False else answer.status


def anything(answer: Answer) -> None:
    """The reader of an answer whose body does not matter."""


def identified(key: str) -> Callable[[Answer], str]:
    """A reader of the id (or token) that a success carries under this key."""
    return lambda answer: _needed(_one(_data(answer)), key)


def appointments(answer: Answer) -> list[Appointment]:
    return [_appointment(record) for record in _many(_data(answer))]


def claim_summaries(answer: Answer) -> list[ClaimSummary]:
    return [_claim_summary(record) for record in _many(_data(answer) or [])]


def claim_details(answer: Answer) -> ClaimDetails:
    record = _one(_data(answer))
    visit = record.get("appointment")
    visit = visit if isinstance(visit, dict) else {}
    return ClaimDetails(
        id=_needed(record, "claimId", "id"),
        claim_number=word(record, "claimNumber"),
        status=_needed(record, "claimStatus"),
        date_time=word(record, "appointmentDate") or word(visit, "appointmentDateTime"),
        facility_name=word(record, "facilityName") or word(visit, "facilityName"),
        expenses=tuple(_expense(entry) for entry in _many(record.get("expenses") or [])),
    )


def submitted(answer: Answer) -> str | None:
    """The status after a submit, None where only the claim's id is told. Neither, or one that says unfinished, is not
    understood: whether the claim was submitted is then for a read to tell."""
    found = _data(answer)
    status = word(found, "status") if isinstance(found, dict) else None
    if status is None and not (isinstance(found, dict) and word(found, "claimId")):
        raise NotUnderstood
    if group(status) == "unfinished":
        raise NotUnderstood("The claim is still unfinished although the answer was a success.")
    return status


def word(record: Mapping[str, Any], key: str) -> str | None:
    """An optional text of a record."""
    value = record.get(key)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _data(answer: Answer) -> Any:
    """The `data` of the envelope. Raises NotUnderstood when the body is not the envelope."""
    document = answer.json
    if not isinstance(document, dict) or not {"data", "success"} & document.keys():
        raise NotUnderstood
    return document.get("data")


def _one(value: Any) -> Mapping[str, Any]:
    records = _many(value)
    if len(records) != 1:
        raise NotUnderstood
    return records[0]


def _many(value: Any) -> list[dict[str, Any]]:
    """A list of records; one object counts as a list of one. Raises NotUnderstood."""
    entries = [value] if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise NotUnderstood
    records = [entry for entry in entries if isinstance(entry, dict)]
    if len(records) != len(entries):
        raise NotUnderstood
    return records


def _needed(record: Mapping[str, Any], *keys: str) -> str:
    """The text under the first of these keys. Raises NotUnderstood when there is none."""
    for key in keys:
        if (value := word(record, key)) is not None:
            return value
    raise NotUnderstood


def _appointment(record: Mapping[str, Any]) -> Appointment:
    return Appointment(
        id=_needed(record, "id"),
        date_time=word(record, "appointmentDateTime"),
        status=word(record, "appointmentStatus"),
        current_status=word(record, "currentStatus"),
        facility_name=word(record, "facilityName"),
        claim_id=word(record, "associatedClaimId"),
        claim_number=word(record, "associatedClaimNumber"),
    )


def _claim_summary(record: Mapping[str, Any]) -> ClaimSummary:
    return ClaimSummary(
        id=_needed(record, "id", "claimId"),
        claim_number=word(record, "claimNumber"),
        status=word(record, "claimStatus"),
        date_time=word(record, "appointmentDateTime"),
        facility_name=word(record, "facilityName"),
    )


def _expense(record: Mapping[str, Any]) -> Expense:
    cost = record.get("costRequested")
    return Expense(
        id=word(record, "id") or word(record, "expenseId"),
        type=word(record, "expenseType"),
        name=word(record, "name"),
        date_incurred=word(record, "dateIncurred"),
        description=word(record, "description"),
        cost=cost if isinstance(cost, int | float) and not isinstance(cost, bool) else None,
    )
