"""Outcome callbacks to the clients, each a workflow of its own."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.crypto import Encrypted
from app.models.workflow import Workflow


class ClaimCallback(Workflow):
    """The one callback about one run of a claim. Its id is the delivery id; URL and body are sealed.

    `body` is what is posted, letter by letter the same on every try. `attempts` were really made; `last_status` is what
    the last one of them was answered, null where no answer came.
    """

    __tablename__ = "claim_callbacks"
    __mapper_args__ = {"polymorphic_identity": "claim-callback"}
    __allow_unmapped__ = True

    id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    claim_id: Mapped[UUID] = mapped_column(ForeignKey("claims.id"))
    run: Mapped[int]
    product: Mapped[str]
    url: Mapped[str | None] = mapped_column(Encrypted)
    body: Mapped[str | None] = mapped_column(Encrypted)
    attempts: Mapped[int] = mapped_column(default=0)
    last_status: Mapped[int | None]

    secret: str | None = None  # loaded beside the row: the client's webhook secret as it is now

    __table_args__: Any = (Index("ix_claim_callbacks_claim_id_run", "claim_id", "run", unique=True),)
