"""Erasing personal data: which claims are due, and what is overwritten. Times are Postgres's."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Table, insert, select, union_all, update
from sqlalchemy.orm import Session

from app import states
from app.models.callback import ClaimCallback
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.workflow import Move
from app.store.workflows import NOW, W, seconds

_C: Table = Claim.__table__  # type: ignore[assignment]
_N: Table = Notification.__table__  # type: ignore[assignment]
_B: Table = ClaimCallback.__table__  # type: ignore[assignment]


@dataclass(frozen=True)
class Pending:
    """A text or callback of a claim that is not finished yet. `held`: a worker is at it now."""

    id: UUID
    claim_id: UUID
    held: bool


def due(session: Session, *, after: float, limit: int) -> list[UUID]:
    """Claims that have been final for so many seconds, oldest first, locked; those that others hold are left out."""
    rows = (
        select(W.c.id)
        .where(W.c.kind == states.CLAIM.kind, W.c.erased_at.is_(None), W.c.finished_at <= NOW - seconds(after))
        .order_by(W.c.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(session.scalars(rows))


def pending(session: Session, claim_ids: Sequence[UUID]) -> list[Pending]:
    """What is still under way for these claims."""
    theirs = union_all(*(select(own.c.id, own.c.claim_id).where(own.c.claim_id.in_(claim_ids)) for own in (_N, _B)))
    them = theirs.subquery()
    rows = select(W.c.id, them.c.claim_id, W.c.worker.is_not(None)).join(them, them.c.id == W.c.id)
    return [Pending(*row) for row in session.execute(rows.where(W.c.wake_at.is_not(None)))]


def erase(session: Session, claim_ids: Sequence[UUID]) -> None:
    """Overwrite what is personal; ids, states and the visit's hash stay.

    The fence moves on, so that who has read such a claim before (a retry) hits nothing and reads again.
    """
    gone = dict.fromkeys(("icn", "phone", "appointment_name", "expense_details", "callback_url", "btsss_token"))
    session.execute(update(_C).where(_C.c.id.in_(claim_ids)).values(**gone))
    session.execute(update(_N).where(_N.c.claim_id.in_(claim_ids)).values(phone=None, personalisation=None))
    session.execute(update(_B).where(_B.c.claim_id.in_(claim_ids)).values(url=None, body=None))
    session.execute(update(W).where(W.c.id.in_(claim_ids)).values(erased_at=NOW, fence=W.c.fence + 1))
    session.execute(insert(Move), [{"workflow_id": one, "actor": "timer", "reason": "erased"} for one in claim_ids])
