"""The engine's tables: workflows (narrow and hot), their history (moves), their upstream calls, and the workers."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app import states
from app.models.orm import NewStamp, Stamp, Table, new_id


def _legal_states() -> str:
    """SQL: per kind, the states that exist."""
    return " OR ".join(
        f"kind = '{kind}' AND state IN ({', '.join(repr(str(state)) for state in machine.states)})"
        for kind, machine in states.MACHINES.items()
    )


def finished_sql() -> str:
    """SQL: true exactly in the finished states of each kind."""
    return " OR ".join(
        f"kind = '{kind}' AND state IN ({', '.join(sorted(repr(str(state)) for state in machine.finished))})"
        for kind, machine in states.MACHINES.items()
    )


_ERASABLE = "kind = 'claim' AND finished_at IS NOT NULL AND erased_at IS NULL"  # what follows from it goes along


class Workflow(Table):
    """One piece of work on its way.

    `due_at`: not to run before this; `wake_at`: when the sweep looks next; both null exactly in finished states, and
    infinite where somebody else moves next. `worker` holds it, `fence` counts how often the right to write changed
    hands. `intent` is the call about to be sent, `in_doubt`: its outcome is not known. `release` made it fail;
    `for_release` alone may take it for a while after a replay.
    """

    __tablename__ = "workflows"
    __mapper_args__ = {"polymorphic_on": "kind"}

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    state: Mapped[str]
    due_at: Mapped[Stamp | None] = mapped_column(server_default=text("clock_timestamp()"))
    wake_at: Mapped[Stamp | None] = mapped_column(server_default=text("clock_timestamp()"))
    deadline_at: Mapped[Stamp | None]
    worker: Mapped[UUID | None]
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    intent: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    in_doubt: Mapped[bool] = mapped_column(default=False)
    asked: Mapped[str | None]
    priority: Mapped[int] = mapped_column(default=1)
    slot: Mapped[str | None] = mapped_column(unique=True)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    client_id: Mapped[UUID] = mapped_column(ForeignKey("clients.id"))
    correlation_id: Mapped[str]
    release: Mapped[str] = mapped_column(default="")
    for_release: Mapped[str | None]
    created_at: Mapped[NewStamp]
    updated_at: Mapped[NewStamp]
    finished_at: Mapped[Stamp | None]
    erased_at: Mapped[Stamp | None]

    __table_args__: Any = (
        CheckConstraint(_legal_states(), name="legal_state"),
        CheckConstraint(
            f"(due_at IS NULL) = ({finished_sql()}) AND (wake_at IS NULL) = ({finished_sql()})",
            name="time_to_look_again",
        ),
        CheckConstraint("asked IN ('cancel', 'withdraw')", name="asked"),
        Index("ix_workflows_wake", "priority", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
        Index("ix_workflows_held", "worker", postgresql_where=text("worker IS NOT NULL")),
        Index("ix_workflows_kind_state", "kind", "state", postgresql_where=text("wake_at IS NOT NULL")),
        Index("ix_workflows_listing", "client_id", "kind", "created_at", "id"),
        CheckConstraint(
            "kind <> 'voucher-operation' OR state NOT IN ('running', 'calling', 'checking') OR slot IS NOT NULL",
            name="one_operation_at_a_time",
        ),
        Index(
            "ix_workflows_unpaid",
            "updated_at",
            postgresql_where=text(
                "kind = 'declaration' AND state IN ('pending-payment', 'payment-failed', 'payment-cancelled')"
            ),
        ),
        Index("ix_workflows_failed", "finished_at", postgresql_where=text("kind = 'declaration' AND state = 'failed'")),
        Index("ix_workflows_erasable", "finished_at", postgresql_where=text(_ERASABLE)),
        Index("ix_workflows_declarations", "state", postgresql_where=text("kind = 'declaration'")),
        Index(
            "ix_workflows_declarations_erasable",
            "finished_at",
            postgresql_where=text("kind = 'declaration' AND state IN ('submitted', 'expired') AND erased_at IS NULL"),
        ),
    )


class Move(Table):
    """History, append-only. Rows without `of` and `to` are events."""

    __tablename__ = "moves"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), index=True)
    of: Mapped[str | None]
    to: Mapped[str | None]
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    at: Mapped[NewStamp]


class Call(Table):
    """One row per upstream call; together with moves the timeline."""

    __tablename__ = "calls"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(ForeignKey("workflows.id"), index=True)
    step: Mapped[str]
    attempt: Mapped[int]
    verb: Mapped[str]
    upstream: Mapped[str]
    name: Mapped[str]
    method: Mapped[str]
    path: Mapped[str]
    status: Mapped[int | None]
    outcome: Mapped[str]
    milliseconds: Mapped[int]
    message: Mapped[str] = mapped_column(default="")
    code: Mapped[str] = mapped_column(default="", server_default="")
    at: Mapped[NewStamp]


class Worker(Table):
    """An incarnation of a worker process; `beat_at` is its heartbeat, `backend` the pid of the Postgres process that
    serves the heartbeat's connection.

    It carries along when the sweep thread last ended a round, and since when nothing was taken of the kind neglected
    longest (`idle_kind`) though there was something to take; null where a release does not say.
    """

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    release: Mapped[str]
    started_at: Mapped[NewStamp]
    beat_at: Mapped[NewStamp]
    backend: Mapped[int | None]
    swept_at: Mapped[Stamp | None]
    idle_at: Mapped[Stamp | None]
    idle_kind: Mapped[str | None]


class Release(Table):
    """A release of the workers, and when it was first seen."""

    __tablename__ = "releases"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[NewStamp]


class Tick(Table):
    """A calendar job's due time that somebody has claimed."""

    __tablename__ = "ticks"

    schedule: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[Stamp] = mapped_column(primary_key=True)
