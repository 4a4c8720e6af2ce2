"""Replays of failed work: what was asked for, and what became of each row; and the audit of operators."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.orm import NewStamp, Table, new_id


class Replay(Table):
    """One replay that an operator asked for. (What a new release replays stands in the timelines alone.)"""

    __tablename__ = "replays"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    line: Mapped[str]
    asked_by: Mapped[str]
    filter: Mapped[dict[str, Any]] = mapped_column(JSONB)
    reason: Mapped[str] = mapped_column(default="")
    created_at: Mapped[NewStamp]


class ReplayItem(Table):
    """One row of a replay: its turn has yet to come (`queued`), on its way (`sent`), or how it ended."""

    __tablename__ = "replay_items"

    replay_id: Mapped[UUID] = mapped_column(ForeignKey("replays.id"), primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), primary_key=True)
    position: Mapped[int]
    state: Mapped[str] = mapped_column(default="queued")

    __table_args__ = (
        CheckConstraint("state IN ('queued', 'sent', 'submitted', 'failed', 'skipped')", name="state"),
        Index("ix_replay_items_queued", "replay_id", "position", postgresql_where=text("state = 'queued'")),
        Index("ix_replay_items_sent", "workflow_id", postgresql_where=text("state = 'sent'")),
    )


class Audit(Table):
    """Who did or saw what. Append-only."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    at: Mapped[NewStamp]
