"""Enqueue what remains of a workflow: starting, retrying and resuming are the same thing."""

from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app import db, errors, metrics, queue
from app.db import Session
from app.flows import lines
from app.store import workflows

log = structlog.get_logger("dispatch")


def enqueue(workflow_id: UUID) -> None:
    """Send the chain of the workflow's remaining steps. Best effort, never raises BrokerAway: the sweep delivers."""
    with db.statements() as session:
        seen = workflows.read(session, workflow_id)
    if seen:
        try:
            send(seen.kind, seen.state, workflow_id, priority=seen.priority)
        except errors.BrokerAway as away:
            metrics.engine_dispatch_failures.inc()
            log.warning("dispatch.broker-away", reason=str(away))


def send(kind: str, state: str, workflow_id: UUID, *, priority: int) -> None:
    """As `enqueue`, for who has just read the row. Raises BrokerAway."""
    if names := lines.FLOWS[kind].remaining(state):
        queue.send(names, workflow_id, priority=priority)
        metrics.engine_dispatched.labels(kind).inc()


def follow_up(session: Session, kind: str, record: Any, state: str) -> None:
    """What follows from a move, in its transaction: the line's follow-up workflows, enqueued after the commit."""
    for started in lines.FLOWS[kind].entered(session, record, state):
        db.after_commit(session, partial(enqueue, started))
