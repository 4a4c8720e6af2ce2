"""What happens to a travel claim, in order: the step table, and where a claim goes that cannot go on.

Source: travel-claims contract, sections 3 and 5. The verbs live in `claim_steps`, undo in `claim_undo`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from app import config, db, errors, logs, metrics, states
from app.db import Session
from app.flows import callbacks, claim_expenses, claim_steps, claim_undo, texts
from app.flows.flow import Ending, Flow, Policy, Verdict
from app.models.claim import Claim
from app.steps import Call, Failure, Ok, Outcome, Rejected, Retry, Step, Unknown
from app.store import claims, workflows
from app.upstreams.http import Pace
from app.upstreams.travel_pay_access import gateway

S = states.Claim
_MADE_NOTHING_YET = (S.ACCEPTED, S.AUTHORIZED)
log = logs.get(__name__)


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
    line = config.settings().travel_pay
    if line is None:
        return "TRAVEL_PAY_URL is not set"
    try:
        line.credentials(claim.product)
    except errors.BadSettings as missing:
        return str(missing)
    if not claim.line_on:
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
    """Once final: the tokens are erased, the outcome is counted, and its one text and its callback begin."""
    db.after_commit(session, partial(log.info, "claims.state", **_ids(claim), of=claim.state, to=str(state)))
    if not states.CLAIM.is_finished(state):
        return []
    workflows.save(session, Claim, claim.id, {"btsss_token": None, "veis_fingerprint": None})
    if claim.state == S.ROLLING_BACK:
        db.after_commit(session, metrics.claims_rollback.labels(claim.product, claim.rollback_result).inc)
    seen = workflows.read(session, claim.id)  # as this move left it
    if seen and seen.in_doubt:
        step = str((seen.intent or {}).get("step"))
        db.after_commit(session, metrics.claims_in_doubt.labels(claim.product, step, "unresolved").inc)
    return [*texts.tell(session, claim, state), *callbacks.call_back(session, claim, state)]


def observed(claim: Claim, verdict: Verdict) -> None:
    """Contract section 7: each verb's end is counted, timed and logged. A call that was held back is none."""
    outcome = verdict.outcome
    if not isinstance(outcome, Ok | Rejected | Retry | Unknown) and verdict.verb == "do":
        return
    metrics.claims_step_seconds.labels(claim.product, verdict.step, verdict.verb).observe(verdict.seconds)
    if verdict.verb == "do":
        metrics.claims_step.labels(claim.product, verdict.step, _word(outcome)).inc()
    elif doubt := _how_the_doubt_ended(verdict):
        metrics.claims_in_doubt.labels(claim.product, verdict.step, doubt).inc()
    wrong = _what_went_wrong(verdict)
    if wrong:
        metrics.claims_step_errors.labels(claim.product, verdict.step, *wrong).inc()
    _log_step(claim, verdict, wrong[0] if wrong else None)


def _word(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()


def _how_the_doubt_ended(verdict: Verdict) -> str | None:
    if isinstance(verdict.outcome, Ok):
        return "unresolved" if verdict.outcome.state == S.DUPLICATE else "adopted"
    return "repeated" if verdict.settled else None


def _what_went_wrong(verdict: Verdict) -> tuple[str, str] | None:
    """Kind and source of the failed call that ended the verb; None where none did."""
    failure = getattr(verdict.outcome, "failure", None)
    if failure is None or isinstance(verdict.outcome, Ok):
        return None
    if failure.code == "appointment-not-found":
        return "empty_response", "btsss"
    last = next((call for call in reversed(verdict.calls) if call.outcome != "ok"), None)
    return (_error_type(failure, last.status), _source(last)) if last else None


def _source(call: Call) -> str:
    return "auth" if call.upstream == "travel-pay-auth" or call.name == "system-token" else "btsss"


def _error_type(failure: Failure, status: int | None) -> str:
    if failure.code == "malformed-answer":
        return "empty_response"
    if status is not None:
        return "http"
    return "timeout" if failure.code == "upstream-timeout" else "connection"


def _ids(claim: Claim) -> dict[str, Any]:
    """What stands on every record about a claim."""
    return {
        "line": "claims",
        "claim": str(claim.id),
        "client": str(claim.client_id),
        "product": claim.product,
        "correlation_id": claim.correlation_id,
        "run": claim.run,
    }


def _log_step(claim: Claim, verdict: Verdict, error_class: str | None) -> None:
    failure = getattr(verdict.outcome, "failure", None)
    now = vars(claim) | dict(verdict.outcome.values)
    log.info(
        "claims.step",
        **_ids(claim),
        step=verdict.step,
        verb=verdict.verb,
        attempt=claim.attempt + 1,
        outcome=_word(verdict.outcome),
        http_status=verdict.calls[-1].status if verdict.calls else None,
        code=failure.code if failure else None,
        seconds=round(verdict.seconds, 3),
        veis_token_present=now["veis_fingerprint"] is not None,
        btsss_token_present=now["btsss_token"] is not None,
        **({"failed_step": verdict.step, "error_class": error_class} if error_class else {}),
    )


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
        complete=claim_steps.claim_is_there,
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


def pace() -> Pace:
    """As Travel Pay takes them."""
    line = config.settings().travel_pay
    return gateway(line).api.pace() if line else Pace()


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
    pace=pace,
)
