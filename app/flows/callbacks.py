"""The outcome callback: one step, tried with the same body until the client took it. Contract 2.9 and 5.6.

What happened is told as it was when the claim became final, however late it arrives.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from app import config, db, logs, metrics, states
from app.db import Session
from app.flows import claim_members
from app.flows.flow import Ending, Flow, Policy, Verdict
from app.models.callback import ClaimCallback
from app.models.claim import Claim
from app.steps import Ended, Failure, Ok, Outcome, Rejected, Retry, Step, Work
from app.store import callbacks, claims, clients, workflows
from app.upstreams.callbacks import WHOLE_SECONDS, Delivery, Receiver

S = states.ClaimCallback
BACKOFF_SECONDS, BACKOFF_MAX_SECONDS, DEADLINE_SECONDS = 30, 3_600, 86_400
_NO_SECRET = Failure(
    code="no-webhook-secret", http_status=502, message="The client has no webhook secret to sign with."
)
_ERASED = Failure(code="data-erased", http_status=410, message="The callback's data is erased.", retryable=False)
log = logs.get(__name__)


def call_back(session: Session, claim: Claim, state: str) -> Sequence[UUID]:
    """Begin the one callback of this run, where the client wants one, in the transaction that makes the claim final.

    Returns what to dispatch.
    """
    if claim.callback_url is None:
        return []
    lead = config.settings().redispatch_seconds
    callback = callbacks.begin(session, claim, state=state, deadline=DEADLINE_SECONDS, lead=lead)
    shown = claims.view(session, claim.id, None)
    if shown is None:
        return []
    body = {
        "id": str(callback.id),
        "type": f"travel-claim.{state}",
        "createdAt": claim_members.time(callback.created_at),
        "claim": claim_members.render(shown, step=None),
    }
    workflows.save(session, ClaimCallback, callback.id, {"body": json.dumps(body, ensure_ascii=False)})
    return [callback.id]


def deliver(callback: ClaimCallback, work: Work) -> Outcome:
    """Post it. Whatever goes wrong may pass, but for a receiver that wants no more or may not be called any more."""
    if callback.url is None or callback.body is None:
        return Rejected(failure=_ERASED)
    if callback.secret is None:
        return Retry(failure=_NO_SECRET)
    delivery = Delivery(id=str(callback.id), body=callback.body.encode(), secret=callback.secret)
    receiver = Receiver(config.settings().travel_claims, url=callback.url, work=work)
    try:
        return Ok(values=_tried(callback, receiver.post(delivery)))
    except Ended as ended:
        return replace(ended.outcome, values=_tried(callback, ended.status))


def _tried(callback: ClaimCallback, status: int | None) -> dict[str, int | None]:
    return {"attempts": callback.attempts + 1, "last_status": status}


def policy() -> Policy:
    """Contract 2.9: 30 s doubling to 1 h, for 24 h; no number of attempts ends it sooner."""
    return Policy(
        attempts=None,
        backoff=BACKOFF_SECONDS,
        factor=2,
        backoff_max=BACKOFF_MAX_SECONDS,
        find_after=BACKOFF_SECONDS,
        settle=BACKOFF_SECONDS,
        lease=WHOLE_SECONDS + 15,
    )


def held(session: Session, callback: ClaimCallback) -> str | None:
    """Nothing is sent to a client whose line is off."""
    if not clients.is_on(session, callback.client_id, "claims"):
        return "the toggle claims is off for this client"
    return None


def failed(callback: ClaimCallback, failure: Failure) -> Ending:
    return Ending(state=S.UNDELIVERED)


def asked(callback: ClaimCallback) -> Ending:
    return Ending(state=S.UNDELIVERED)


def entered(session: Session, callback: ClaimCallback, state: str) -> Sequence[UUID]:
    """Count how it ended. It never changes the claim."""
    db.after_commit(session, metrics.claims_callbacks.labels(callback.product, str(state)).inc)
    return []


def observed(callback: ClaimCallback, verdict: Verdict) -> None:
    """One log record per try. The URL is the client's secret and stays out of it."""
    failure = getattr(verdict.outcome, "failure", None)
    log.info(
        "claims.callback",
        line="claims",
        claim=str(callback.claim_id),
        client=str(callback.client_id),
        product=callback.product,
        run=callback.run,
        step=verdict.step,
        verb=verdict.verb,
        attempt=callback.attempts + 1,
        outcome=type(verdict.outcome).__name__.lower(),
        http_status=verdict.calls[-1].status if verdict.calls else None,
        code=failure.code if failure else None,
        seconds=round(verdict.seconds, 3),
    )


FLOW = Flow(
    machine=states.CLAIM_CALLBACK,
    line="claims",
    table=ClaimCallback,
    steps=(Step(name="deliver", of=S.PENDING, to=S.DELIVERED, do=deliver),),
    policy=policy,
    load=callbacks.load,
    held=held,
    failed=failed,
    asked=asked,
    entered=entered,
    observed=observed,
)
