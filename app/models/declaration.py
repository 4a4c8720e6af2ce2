"""Passenger declarations: one row per submission, each a workflow of its own."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Sequence, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.crypto import Encrypted
from app.models.orm import Stamp, Table
from app.models.workflow import Workflow

CHARGE_REFERENCES = Sequence(
    "charge_reference_seq", metadata=Table.metadata, start=1, maxvalue=9_999_999_999, cycle=False, cache=1
)


class Declaration(Workflow):
    """One document for MDG. `number` 0 is the original, 1, 2, ... its amendments; all have its charge reference.

    Payload, journey data and MDG's fault texts are sealed, and null once erased. `attempts` counts the calls made in
    all, lost ones included; `body_mode` is how the first of them since the payment or the last replay built its body.
    """

    __tablename__ = "declarations"
    __mapper_args__ = {"polymorphic_identity": "declaration"}

    id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    charge_reference: Mapped[str]
    number: Mapped[int] = mapped_column(default=0)
    payload: Mapped[dict[str, Any] | None] = mapped_column(Encrypted)
    journey_data: Mapped[dict[str, Any] | None] = mapped_column(Encrypted)
    last_name_hash: Mapped[str | None]
    faults: Mapped[list[str] | None] = mapped_column(Encrypted)
    attempts: Mapped[int] = mapped_column(default=0)
    body_mode: Mapped[str | None]
    paid_at: Mapped[Stamp | None]
    payment_timed_out: Mapped[bool] = mapped_column(default=False)
    overdue: Mapped[bool] = mapped_column(default=False)
    replayed_release: Mapped[str | None]

    __table_args__ = (UniqueConstraint("charge_reference", "number"),)

    @property
    def acknowledgement_reference(self) -> str:
        """The charge reference followed by the number of the submission; MDG recognises a repeat by it."""
        return f"{self.charge_reference}{self.number}"
