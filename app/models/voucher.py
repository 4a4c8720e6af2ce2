"""Digital vouchers: the long-lived record of a subscription, its codes and suspensions, and the operations on it."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.crypto import Encrypted
from app.models.orm import NewStamp, Stamp, Table
from app.models.workflow import Workflow


class Voucher(Table):
    """What we know of one subscription's voucher. The row's lock is the subscription's lock.

    `state` null: nothing known (an operation may be on its way); else as stored last: the present one is derived from
    dates when read. `state_before`: what `requested` goes back to when the create comes to nothing.
    """

    __tablename__ = "vouchers"

    subscription_id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[UUID | None] = mapped_column(ForeignKey("clients.id"))
    state: Mapped[str | None]
    state_before: Mapped[str | None]
    scheme: Mapped[str | None]
    card_code: Mapped[str | None] = mapped_column(Encrypted)
    letter_code: Mapped[str | None] = mapped_column(Encrypted)
    codes_since: Mapped[Stamp | None]
    confirmed_at: Mapped[Stamp | None]
    last_replaced_on: Mapped[date | None]
    cancel_on: Mapped[date | None]
    provisioned_at: Mapped[Stamp | None]
    last_sequence: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[NewStamp]

    __table_args__ = (
        CheckConstraint("state IN ('requested', 'active', 'suspended', 'cancelled')", name="state"),
        Index("ix_vouchers_cancel_on", "cancel_on", postgresql_where=text("cancel_on IS NOT NULL")),
    )


class VoucherCode(Table):
    """The keyed hash of a code that a subscription has or had, by kind (`card`, `letter`)."""

    __tablename__ = "voucher_codes"

    hash: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("vouchers.subscription_id"), primary_key=True, index=True)
    superseded_on: Mapped[date | None]
    superseded_by: Mapped[UUID | None]


class VoucherSuspension(Table):
    """A suspension that i-Movo took: from `starts_on`, works again on `ends_on`."""

    __tablename__ = "voucher_suspensions"

    operation_id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("vouchers.subscription_id"), index=True)
    starts_on: Mapped[date]
    ends_on: Mapped[date]


class VoucherOperation(Workflow):
    """One requested change. `operation`: create, replace, cancel or suspend (the contract's `kind`).

    `sends` counts calls with side effects, `lost_sends` those of them that ended unknown and were settled as without
    effect. A replacement counts on `counted_on` for each kind that `counts_card` and `counts_letter` name.
    `withdrawable`: every caller so far was strict. Baseline and answer hold codes and are sealed.
    """

    __tablename__ = "voucher_operations"
    __mapper_args__ = {"polymorphic_identity": "voucher-operation"}
    __allow_unmapped__ = True

    id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("vouchers.subscription_id"))
    sequence: Mapped[int]
    operation: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(JSONB)
    baseline: Mapped[dict[str, Any] | None] = mapped_column(Encrypted)
    counted_on: Mapped[date | None]
    counts_card: Mapped[bool] = mapped_column(default=False)
    counts_letter: Mapped[bool] = mapped_column(default=False)
    sends: Mapped[int] = mapped_column(default=0)
    lost_sends: Mapped[int] = mapped_column(default=0)
    origin: Mapped[str] = mapped_column(default="api")
    outcome_code: Mapped[str | None]
    answer: Mapped[dict[str, Any] | None] = mapped_column(Encrypted)
    withdrawable: Mapped[bool] = mapped_column(default=False)

    # Loaded beside the row: our record as of `begun_on` (a London date), which must still be that day when a call is
    # sent; and what the verb learned of the voucher, to be written with whatever its holder writes next.
    voucher: Voucher
    suspensions: Sequence[VoucherSuspension] = ()
    begun_on: date
    learned: Sequence[Callable[[Session, Voucher], None]] = ()

    __table_args__ = (UniqueConstraint("subscription_id", "sequence"),)
