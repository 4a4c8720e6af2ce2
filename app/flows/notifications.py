"""The text message: one step, sent once, found by its reference when the answer was lost. Contract 5.6."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from app import config, db, errors, logs, states
from app.db import Session
from app.flows import texts
from app.flows.flow import Ending, Flow, Policy, Verdict
from app.models.notification import Notification
from app.steps import Failure, Nothing, Ok, Outcome, Step, Work
from app.store import notifications
from app.upstreams import notify
from app.upstreams.http import Pace
from app.upstreams.notify import Notify

S = states.Notification
log = logs.get(__name__)
_SEND_SECONDS = 15  # connecting and the library's own work, above its read limit


def _settings() -> config.Notify:
    found = config.settings().notify
    if found is None:
        raise errors.BadSettings("NOTIFY_URL is not set")
    return found


def send(text: Notification, work: Work) -> Outcome:
    notify_id = Notify(_settings(), product=text.product, work=work).send(
        reference=str(text.id),
        phone=str(text.phone),
        template=text.template,
        personalisation=text.personalisation or {},
    )
    return Ok(values={"notify_id": notify_id})


def find(text: Notification, work: Work) -> Outcome:
    notify_id = Notify(_settings(), product=text.product, work=work).find(reference=str(text.id))
    return Ok(values={"notify_id": notify_id}) if notify_id else Nothing()


def policy() -> Policy:
    """Contract 3.3: 30 s doubling to 1 h, for 24 h."""
    line = config.settings().notify or config.Notify.model_construct()
    return Policy(
        attempts=None,
        backoff=line.backoff_seconds,
        factor=2,
        backoff_max=3_600,
        find_after=5,
        settle=line.settle_seconds,
        lease=line.timeout + _SEND_SECONDS,
    )


def held(session: Session, text: Notification) -> str | None:
    """A text that was begun waits while it cannot be sent from here: Notify, its sender or template is not set."""
    line = config.settings().notify
    if line is None:
        return "NOTIFY_URL is not set"
    try:
        line.sender(text.product)
        line.template(text.product, text.template)
    except errors.BadSettings as missing:
        return str(missing)
    return None


def failed(text: Notification, failure: Failure) -> Ending:
    return Ending(state=S.FAILED)


def asked(text: Notification) -> Ending:
    return Ending(state=S.SKIPPED, values={"reason": "withdrawn"})


def entered(session: Session, text: Notification, state: str) -> Sequence[UUID]:
    """Count how the text ended. Its fate never changes the claim."""
    result = {S.SENT: "success", S.FAILED: "error", S.SKIPPED: "skipped"}.get(S(state))
    if result:
        db.after_commit(session, partial(texts.count, text.product, text.template, result))
    return []


def observed(text: Notification, verdict: Verdict) -> None:
    """One log record per try; texts are counted by their end alone."""
    failure = getattr(verdict.outcome, "failure", None)
    log.info(
        "notifications.step",
        line="claims",
        claim=str(text.claim_id),
        client=str(text.client_id),
        product=text.product,
        correlation_id=text.correlation_id,
        run=text.run,
        step=verdict.step,
        verb=verdict.verb,
        attempt=text.attempt + 1,
        outcome=type(verdict.outcome).__name__.lower(),
        http_status=verdict.calls[-1].status if verdict.calls else None,
        code=failure.code if failure else None,
        seconds=round(verdict.seconds, 3),
    )


def pace() -> Pace:
    """As Notify takes them."""
    line = config.settings().notify
    return notify.upstream(line.url).pace() if line else Pace()


FLOW = Flow(
    machine=states.NOTIFICATION,
    line="notifications",
    table=Notification,
    steps=(Step(name="send_text", of=S.PENDING, to=S.SENT, do=send, find=find),),
    policy=policy,
    load=notifications.load,
    held=held,
    failed=failed,
    asked=asked,
    entered=entered,
    observed=observed,
    pace=pace,
)
