"""Enqueue what remains of a workflow: starting, retrying and resuming are the same thing."""

from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app import boundaries, db, errors, metrics, queue
from app.db import Session
from app.flows import lines
from app.queue import Rank
from app.store import workflows
from app.store.workflows import Seen

log = structlog.get_logger("dispatch")


def enqueue(workflow_id: UUID) -> None:
    """Send the chain of the workflow's remaining steps. Best effort, never raises BrokerAway: the sweep delivers.

    So it does where the queue is full: what is new waits as a row, for its client's turn.
    """
    boundaries.reach("enqueue", boundaries.COMMITTED)
    with db.statements() as session:
        seen = workflows.read(session, workflow_id)
    if not seen:
        return
    rank = Rank.WAITED_FOR if seen.priority == 0 else Rank.NEW if _is_new(seen) else Rank.BEGUN
    try:
        if rank is not Rank.NEW or queue.has_room(seen.kind):
            send(seen.kind, seen.state, workflow_id, rank)
            return
    except errors.BrokerAway as away:
        metrics.engine_dispatch_failures.inc()
        log.warning("dispatch.broker-away", reason=str(away))
    with db.statements() as session:
        workflows.wake(session, seen)


def send(kind: str, state: str, workflow_id: UUID, rank: Rank) -> None:
    """As `enqueue`, for who has just read the row, full or not. Raises BrokerAway."""
    if names := lines.FLOWS[kind].remaining(state):
        queue.send(kind, names, workflow_id, rank)
        metrics.engine_dispatched.labels(kind).inc()


def _is_new(seen: Seen) -> bool:
    """Nothing of it was tried yet (the sweep tells by the same: `due.pick_due`)."""
    untried = not (seen.attempt or seen.crashes or seen.in_doubt)
    return untried and lines.FLOWS[seen.kind].step_in(seen.state) is lines.FLOWS[seen.kind].steps[0]


def follow_up(session: Session, kind: str, record: Any, state: str) -> None:
    """What follows from a move, in its transaction: the line's follow-up workflows, enqueued after the commit."""
    for started in lines.FLOWS[kind].entered(session, record, state):
        db.after_commit(session, partial(enqueue, started))
