"""Whose codes are these, found by their keyed hashes. Source: vouchers contract, 2.6."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models.voucher import Voucher, VoucherCode
from app.store.vouchers import code_hash


def known(session: Session, client_id: UUID, kind: str, code: str) -> Sequence[VoucherCode]:
    """The subscriptions of this client that have or had this code as one of this kind; those that have it first."""
    found = (
        select(VoucherCode)
        .join(Voucher, Voucher.subscription_id == VoucherCode.subscription_id)
        .where(VoucherCode.hash == code_hash(kind, code), VoucherCode.kind == kind, Voucher.client_id == client_id)
        .order_by(VoucherCode.superseded_on.desc().nulls_first(), VoucherCode.subscription_id)
    )
    return session.scalars(found.execution_options(populate_existing=True)).all()
