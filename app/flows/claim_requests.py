"""What a client may ask of a claim that exists: cancel it, retry it. Source: travel-claims contract 2.6 and 2.7.

Both write without holding the lease: guarded by state, fence and doubt as read, and read again where that hits no row.
What is to be known of it whoever dies then, such as its answer, is kept in the same transaction: by `keep`, which is
called with what was done, unless it was refused, and may raise so that nothing is done.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal
from uuid import UUID

from app import config, db, states
from app.db import Session
from app.flows import claims as flow
from app.flows import dispatch, texts
from app.models.claim import Claim
from app.models.notification import Notification
from app.store import claims, notifications, workflows
from app.store.workflows import Seen

Cancelled = Literal["done", "asked", "refused"]
Retried = Literal["done", "not-retryable", "superseded", "data-erased"]
Keep = Callable[[Session, str], None]
S, T = states.Claim, states.Notification
_CANCELLABLE = {S.ACCEPTED, S.AUTHORIZED, S.APPOINTMENT_FOUND, S.CREATED, S.EXPENSED}


def cancel(claim_id: UUID, *, keep: Keep = lambda *_: None) -> Cancelled:
    """`done`: cancelled, or being undone; no call begins any more. `asked`: a call is in flight, nothing follows it.

    `refused`: the submission is in flight, in doubt or done, or the claim is final or rolling back otherwise.
    """
    while True:
        with db.transaction() as session:
            answer = _cancel(session, workflows.read(session, claim_id))
            if answer in {"done", "asked"}:
                keep(session, answer)
        if answer is not None:
            return answer


def _cancel(session: Session, seen: Seen | None) -> Cancelled | None:
    """None: the row has changed since it was read."""
    if seen is None:
        return "refused"
    if seen.asked:
        return "asked" if seen.state in _CANCELLABLE else _settled(seen)
    if seen.state not in _CANCELLABLE or (seen.in_doubt and seen.state == S.EXPENSED):
        return "refused"
    if seen.in_doubt:
        return "asked" if workflows.ask(session, seen, "cancel") else None
    return "done" if _move_to_cancelled(session, seen) else None


def _settled(seen: Seen) -> Cancelled:
    return "done" if seen.state in {S.CANCELLED, S.ROLLING_BACK} else "refused"


def _move_to_cancelled(session: Session, seen: Seen) -> bool:
    claim = claims.load(session, seen.id)
    claim.asked = "cancel"
    session.expunge(claim)
    ending = flow.asked(claim)
    moved = workflows.move(
        session,
        seen,
        ending.state,
        actor="client",
        reason="cancel",
        holder=False,
        lead=config.settings().redispatch_seconds,
        deadline=ending.deadline,
        asked="cancel",
        attempt=0,
    )
    if moved:
        workflows.save(session, Claim, seen.id, ending.values)
        dispatch.follow_up(session, seen.kind, claim, ending.state)
        db.after_commit(session, partial(dispatch.enqueue, seen.id))
    return moved


def retry(claim_id: UUID, *, notify: bool, actor: str, keep: Keep = lambda *_: None) -> Retried:
    """Begin another run of a failed claim where it failed. `notify`: tell the new outcome even if the old one was told.

    `actor`: who asks, for the history (client, operator).
    """
    while True:
        with db.transaction() as session:
            answer = _retry(session, claim_id, notify=notify, actor=actor)
            if answer == "done":
                keep(session, answer)
        if answer is not None:
            return answer


def _retry(session: Session, claim_id: UUID, *, notify: bool, actor: str) -> Retried | None:
    seen = workflows.read(session, claim_id)
    if seen is None or seen.state != S.FAILED:
        return "not-retryable"
    claim = claims.load(session, claim_id)
    if claim.icn is None:
        return "data-erased"
    settings = config.settings()
    try:
        moved = claims.reopen(
            session,
            seen,
            claim,
            actor=actor,
            lead=settings.redispatch_seconds,
            deadline=settings.travel_claims.deadline_seconds,
        )
    except claims.Superseded:
        return "superseded"
    if moved:
        told = _was_told(session, claim)
        again = {"run": claim.run + 1, "failed_in": None, "told": told and not notify}
        workflows.save(session, Claim, claim_id, again)
        db.after_commit(session, partial(dispatch.enqueue, claim_id))
    return "done" if moved else None


def _was_told(session: Session, claim: Claim) -> bool:
    """Whether a text about the claim has gone out, or may have; one that has not is withdrawn."""
    told = claim.told
    for text in notifications.of_claim(session, claim.id):
        if text.state == T.PENDING and not text.in_doubt:
            seen = workflows.read(session, text.id)
            if seen and not seen.in_doubt and _withdraw(session, seen, text.product, text.template):
                continue
            told = True
        told = told or text.state in {T.PENDING, T.SENT, T.DELIVERED, T.UNDELIVERED}
    return told


def _withdraw(session: Session, seen: Seen, product: str, template: str) -> bool:
    if not workflows.move(session, seen, T.SKIPPED, actor="client", reason="withdrawn", holder=False):
        return False
    workflows.save(session, Notification, seen.id, {"reason": "withdrawn"})
    db.after_commit(session, partial(texts.count, product, template, "skipped"))
    return True
