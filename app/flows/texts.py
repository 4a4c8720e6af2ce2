"""Which text a claim's outcome gets, and its one workflow. Source: travel-claims contract 2.4, 4.7 and 5.6."""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

from app import config, db, metrics, states
from app.db import Session
from app.models.claim import Claim
from app.store import clients, notifications
from app.upstreams import travel_pay_answers as answers

S = states.Claim
TIMEOUTS = frozenset({"rate-limited", "upstream-timeout", "outcome-unknown", "deadline-exceeded"})
_OUTCOMES = {  # how the metric calls what a template tells
    "success": "success", "duplicate": "duplicate", "timeout": "timeout", "error": "error",
    "failure": "claim_failure", None: "cancelled",
}  # fmt: skip
_BAD_NEWS = {"error", "failure", "timeout"}
_SILENT_FAILURE = {
    "pci": "CheckIn Travel Pay Notification Failure",
    "oh": "OH Travel Pay Notification Failure",
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def template(claim: Claim, state: str, error: Mapping[str, Any] | None) -> str | None:
    """The template that tells this outcome; None where nothing is told (cancelled)."""
    if state == S.CANCELLED:
        return None
    if state == S.SUBMITTED:
        return "failure" if answers.group(claim.status) == "denied" else "success"
    if state == S.DUPLICATE:
        return "duplicate"
    return "timeout" if (error or {}).get("code") in TIMEOUTS else "error"


def personalisation(claim: Claim) -> dict[str, str]:
    """The last four of the claim number, or `unknown`; month and day of the visit, in English whatever the locale."""
    day = date.fromisoformat(claim.appointment["dateTime"][:10])
    number = claim.claim_number
    return {"claim_number": number[-4:] if number else "unknown", "appt_date": f"{_MONTHS[day.month - 1]} {day.day:02}"}


def tell(session: Session, claim: Claim, state: str) -> Sequence[UUID]:
    """Begin the one text of this outcome, in the transaction that makes the claim final. Returns what to dispatch."""
    error = notifications.error_of(session, claim.id)
    chosen = template(claim, state, error)
    db.after_commit(session, metrics.claims_outcome.labels(claim.product, _OUTCOMES[chosen]).inc)
    if chosen is None or claim.told:
        return []
    skipped = _why_not(session, claim)
    line = config.settings().notify
    text_id = notifications.begin(
        session,
        claim,
        template=chosen,
        personalisation=personalisation(claim),
        skipped=skipped,
        deadline=line.deadline_seconds if line else 0,
        lead=config.settings().redispatch_seconds,
    )
    if skipped:
        result = "error" if skipped == "no-phone" else "skipped"
        db.after_commit(session, partial(count, claim.product, chosen, result))
    return [] if skipped else [text_id]


def _why_not(session: Session, claim: Claim) -> str | None:
    if not claim.phone:
        return "no-phone"
    if config.settings().notify is None or not clients.is_on(session, claim.client_id, "claims-texts"):
        return "texts-disabled"
    return None


def count(product: str, template: str, result: str) -> None:
    """Count a text's fate; bad news that did not get through is a silent failure (contract, section 7)."""
    metrics.claims_notify.labels(product, template, result).inc()
    if result == "error" and template in _BAD_NEWS:
        metrics.silent_failure.labels("check-in", _SILENT_FAILURE[product]).inc()
