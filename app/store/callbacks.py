"""Outcome callbacks: begin one, load one, and how those of some claims stand."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session, defer

from app import states
from app.models.callback import ClaimCallback
from app.models.claim import Claim
from app.models.client import Client
from app.models.orm import new_id
from app.models.workflow import Move
from app.store.workflows import NOW, seconds


def load(session: Session, workflow_id: UUID) -> ClaimCallback:
    """The callback's row and the secret that signs it now. Raises NoResultFound."""
    found = select(ClaimCallback, Client.webhook_secret).join(Client, Client.id == ClaimCallback.client_id)
    callback, secret = session.execute(found.where(ClaimCallback.id == workflow_id)).one()
    callback.secret = secret
    return callback


def begin(session: Session, claim: Claim, *, state: str, deadline: float, lead: float) -> ClaimCallback:
    """Begin the callback about a claim that has become final in `state`; its body is still to be written.

    `deadline` and `lead` (until the sweep looks, for its message is on the way) in seconds.
    """
    callback = ClaimCallback(
        id=new_id(),
        state=states.CLAIM_CALLBACK.start,
        client_id=claim.client_id,
        correlation_id=claim.correlation_id,
        claim_id=claim.id,
        run=claim.run,
        product=claim.product,
        url=claim.callback_url,
        due_at=NOW,
        wake_at=NOW + seconds(lead),
        deadline_at=NOW + seconds(deadline),
    )
    session.add(callback)
    session.flush()
    begun = {"workflow_id": callback.id, "to": states.CLAIM_CALLBACK.start, "actor": "worker", "reason": state}
    session.execute(insert(Move).values(begun))
    return callback


def standing(session: Session, claims: Sequence[Claim]) -> Mapping[UUID, ClaimCallback]:
    """By claim: the callback about its present run, without what is sealed."""
    runs = {claim.id: claim.run for claim in claims if claim.callback_wanted}
    if not runs:
        return {}
    sealed = (defer(ClaimCallback.url, raiseload=True), defer(ClaimCallback.body, raiseload=True))
    found = session.scalars(select(ClaimCallback).where(ClaimCallback.claim_id.in_(runs)).options(*sealed))
    return {callback.claim_id: callback for callback in found if callback.run == runs[callback.claim_id]}
