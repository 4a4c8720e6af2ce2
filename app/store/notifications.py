"""Text messages: begin one, load one."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert, null, select
from sqlalchemy.orm import Session

from app import states
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.orm import new_id
from app.models.workflow import Move
from app.store.workflows import NOW, W, seconds


def load(session: Session, workflow_id: UUID) -> Notification:
    """The text's row. Raises NoResultFound."""
    return session.execute(select(Notification).where(Notification.id == workflow_id)).scalar_one()


def error_of(session: Session, workflow_id: UUID) -> Mapping[str, Any] | None:
    """The error object as it stands in this transaction."""
    error: Mapping[str, Any] | None = session.execute(select(W.c.error).where(W.c.id == workflow_id)).scalar_one()
    return error


def begin(
    session: Session,
    claim: Claim,
    *,
    template: str,
    personalisation: Mapping[str, str],
    skipped: str | None,
    deadline: float,
    lead: float,
) -> UUID:
    """Begin the text of a claim's outcome, or (`skipped`: why) record that none is sent. Returns its id.

    `deadline` and `lead` (until the sweep looks, for its message is on the way) in seconds.
    """
    text_id = new_id()
    state = states.Notification.SKIPPED if skipped else states.Notification.PENDING
    when = (
        {"due_at": null(), "wake_at": null(), "finished_at": NOW}
        if skipped
        else {"due_at": NOW, "wake_at": NOW + seconds(lead), "deadline_at": NOW + seconds(deadline)}
    )
    row = Notification(
        id=text_id,
        state=state,
        client_id=claim.client_id,
        correlation_id=claim.correlation_id,
        claim_id=claim.id,
        run=claim.run,
        product=claim.product,
        template=template,
        phone=None if skipped else claim.phone,
        personalisation=None if skipped else dict(personalisation),
        reason=skipped,
    )
    for name, value in when.items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    session.execute(insert(Move).values(workflow_id=text_id, to=state, actor="worker", reason=skipped or template))
    return text_id


def of_claim(session: Session, claim_id: UUID) -> Sequence[Notification]:
    """All texts of a claim, of whatever run."""
    return session.scalars(select(Notification).where(Notification.claim_id == claim_id)).all()
