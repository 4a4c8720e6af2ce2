"""Text messages, each a workflow of its own."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.crypto import Encrypted
from app.models.workflow import Workflow


class Notification(Workflow):
    """One text about one claim. Phone and personalisation are sealed; `reference` at Notify is our id."""

    __tablename__ = "notifications"
    __mapper_args__ = {"polymorphic_identity": "notification"}

    id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    claim_id: Mapped[UUID] = mapped_column(ForeignKey("claims.id"), index=True)
    run: Mapped[int]
    product: Mapped[str]
    template: Mapped[str]
    phone: Mapped[str | None] = mapped_column(Encrypted)
    personalisation: Mapped[dict[str, Any] | None] = mapped_column(Encrypted)
    notify_id: Mapped[str | None] = mapped_column(index=True)
    reason: Mapped[str | None]
