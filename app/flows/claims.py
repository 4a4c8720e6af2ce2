"""What happens to a travel claim, in order: the step table, and where a claim goes that cannot go on.

Source: travel-claims contract, sections 3 and 5. The verbs live in `claim_steps`, undo in `claim_undo`.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app import config, metrics, states
from app.db import Session
from app.flows import claim_expenses, claim_steps, claim_undo, texts
from app.flows.flow import Ending, Flow, Policy, Verdict
from app.models.claim import Claim
from app.steps import Failure, Ok, Step
from app.store import claims, clients, workflows

S = states.Claim
_MADE_NOTHING_YET = (S.ACCEPTED, S.AUTHORIZED)


def policy() -> Policy:
    """Contract 3.3. The lease outlives one call: connect, read, and the time to send."""
    line = config.settings().travel_pay or config.TravelPay.model_construct()
    return Policy(
        attempts=line.max_attempts,
        backoff=line.backoff_seconds,
        factor=3,
        backoff_max=line.backoff_max_seconds,
        find_after=line.find_seconds,
        settle=line.settle_seconds,
        lease=line.connect_timeout + max(line.read_timeout, line.auth_read_timeout) + 10,
    )


def held(session: Session, claim: Claim) -> str | None:
    """Why nothing may be sent for this claim now, or None."""
    if config.settings().travel_pay is None:
        return "TRAVEL_PAY_URL is not set"
    if not clients.is_on(session, claim.client_id, "claims"):
        return "the toggle claims is off for this client"
    return None


def failed(claim: Claim, failure: Failure) -> Ending:
    """Contract 3.1: undo only where it was asked for and something was made, or may have been."""
    if claim.state == S.ROLLING_BACK:
        detail = "The rollback did not come to its end; what this claim made may be left."
        return Ending(state=S.ROLLBACK_FAILED, values={"rollback_result": "failed", "rollback_detail": detail})
    if may_undo(claim):
        return _rolling_back({"failed_in": claim.state})
    return Ending(state=S.FAILED, values={"failed_in": claim.state})


def asked(claim: Claim) -> Ending:
    """A cancel was asked for, and nothing is in flight."""
    return _rolling_back({}) if may_undo(claim) else Ending(state=S.CANCELLED)


def may_undo(claim: Claim) -> bool:
    """Whether undoing was asked for, and this claim made something, or may have."""
    if not claim.rollback or claim.state in _MADE_NOTHING_YET:
        return False
    made_an_expense = any(item["state"] == "added" for item in claim.expenses)
    return claim.claim_made or made_an_expense or claim.in_doubt


def _rolling_back(values: dict[str, Any]) -> Ending:
    return Ending(state=S.ROLLING_BACK, values=values, deadline=config.settings().travel_claims.deadline_seconds)


def entered(session: Session, claim: Claim, state: str) -> Sequence[UUID]:
    """Once final: the tokens are erased, the outcome is counted, and its one text begins."""
    if not states.CLAIM.is_finished(state):
        return []
    workflows.save(session, Claim, claim.id, {"btsss_token": None, "veis_fingerprint": None})
    if claim.state == S.ROLLING_BACK:
        metrics.claims_rollback.labels(claim.product, claim.rollback_result).inc()
    if claim.in_doubt:
        metrics.claims_in_doubt.labels(claim.product, str((claim.intent or {}).get("step")), "unresolved").inc()
    return texts.tell(session, claim, state)


def observed(claim: Claim, verdict: Verdict) -> None:
    """Contract section 7: each verb's end is counted and timed."""
    product, step, outcome = claim.product, verdict.step, verdict.outcome
    metrics.claims_step_seconds.labels(product, step, verdict.verb).observe(verdict.seconds)
    if verdict.verb == "do":
        metrics.claims_step.labels(product, step, type(outcome).__name__.lower()).inc()
    elif isinstance(outcome, Ok):
        metrics.claims_in_doubt.labels(product, step, "adopted").inc()
    elif verdict.settled:
        metrics.claims_in_doubt.labels(product, step, "repeated").inc()
    failure = getattr(outcome, "failure", None)
    if failure and verdict.calls:
        last = verdict.calls[-1]
        source = "auth" if last.upstream == "travel-pay-auth" or last.name == "system-token" else "btsss"
        metrics.claims_step_errors.labels(product, step, _error_type(failure, last.status), source).inc()


def _error_type(failure: Failure, status: int | None) -> str:
    if failure.code == "malformed-answer":
        return "empty_response"
    if status is not None:
        return "http"
    return "timeout" if failure.code == "upstream-timeout" else "connection"


STEPS = (
    Step(name="authorize", of=S.ACCEPTED, to=S.AUTHORIZED, do=claim_steps.authorize),
    Step(name="find_appointment", of=S.AUTHORIZED, to=S.APPOINTMENT_FOUND, do=claim_steps.find_appointment),
    Step(
        name="create_claim",
        of=S.APPOINTMENT_FOUND,
        to=S.CREATED,
        do=claim_steps.create_claim,
        find=claim_steps.find_claim,
        undo=claim_undo.delete_claim,
    ),
    Step(
        name="add_expenses",
        of=S.CREATED,
        to=S.EXPENSED,
        do=claim_expenses.add_expense,
        find=claim_expenses.find_expense,
        undo=claim_undo.delete_expenses,
        complete=claim_expenses.all_expenses_added,
    ),
    Step(
        name="submit_claim",
        of=S.EXPENSED,
        to=S.SUBMITTED,
        do=claim_steps.submit_claim,
        find=claim_steps.find_submission,
    ),
)
ROLLBACK = Step(name="rollback", of=S.ROLLING_BACK, to=S.ROLLED_BACK, do=claim_undo.rollback(STEPS))

FLOW = Flow(
    machine=states.CLAIM,
    line="claims",
    table=Claim,
    steps=(*STEPS, ROLLBACK),
    undo_state=S.ROLLING_BACK,
    policy=policy,
    load=claims.load,
    held=held,
    failed=failed,
    asked=asked,
    entered=entered,
    observed=observed,
)
