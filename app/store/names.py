"""What people call work by: a workflow's id, a charge reference, a subscription id."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models.declaration import Declaration
from app.models.voucher import VoucherOperation
from app.store.workflows import W

_MOST = 20


def find(session: Session, name: str) -> list[UUID]:
    """The workflows of this name, in the order in which they came: one by its id, the submissions of a charge
    reference, or the newest operations on a subscription's voucher. None: there is nothing of this name."""
    if (by_id := _uuid(name)) is not None:
        return list(session.scalars(select(W.c.id).where(W.c.id == by_id)))
    submissions = select(Declaration.id).where(Declaration.charge_reference == name).order_by(Declaration.number)
    operations = (
        select(VoucherOperation.id)
        .where(VoucherOperation.subscription_id == name)
        .order_by(VoucherOperation.sequence.desc())
        .limit(_MOST)
    )
    return list(session.scalars(submissions)) or list(session.scalars(operations))[::-1]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
