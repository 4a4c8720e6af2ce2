"""Text messages: begin one, load one, take receipts for one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Table, func, insert, null, select, update
from sqlalchemy.orm import Session

from app import states
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.orm import new_id
from app.models.workflow import Move
from app.store.workflows import NOW, W, seconds

NOTIFY = "notify"  # the actor of what a receipt says
_N: Table = Notification.__table__  # type: ignore[assignment]


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


@dataclass(frozen=True, kw_only=True)
class Told:
    """A text as far as a receipt concerns it."""

    id: UUID
    claim_id: UUID
    product: str
    template: str
    correlation_id: str


def told(session: Session, *, reference: str | None, notify_id: str | None) -> Told | None:
    """The text that a receipt is about: by our reference, or by Notify's id where it has none. None: not ours.

    From here to the end of the transaction no other receipt for the text is looked at.
    """
    columns = (Notification.id, Notification.claim_id, Notification.product, Notification.template)
    about = select(*columns, Notification.correlation_id)
    if reference is None:
        about = about.where(Notification.notify_id == notify_id).order_by(Notification.created_at.desc()).limit(1)
    elif (ours := _uuid(reference)) is not None:
        about = about.where(Notification.id == ours)
    else:
        return None
    row = session.execute(about).one_or_none()
    if row is None:
        return None
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"receipt {row.id}", 0))))
    return Told(**row._mapping)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def had_receipt(session: Session, text_id: UUID, status: str) -> bool:
    """Whether Notify has told this status of the text before."""
    earlier = select(Move.id).where(Move.workflow_id == text_id, Move.actor == NOTIFY, Move.reason == status)
    return session.scalar(select(earlier.exists())) or False


def keep_notify_id(session: Session, text_id: UUID, notify_id: str) -> None:
    """Store Notify's id of the text, unless one is known."""
    unknown = update(_N).where(_N.c.id == text_id, _N.c.notify_id.is_(None))
    session.execute(unknown.values(notify_id=notify_id))
