"""How a step becomes a Celery task: take, run, and let the chain go on only if the step moved the workflow."""

from typing import Any
from uuid import UUID

import structlog

from app import db, queue
from app.flows import engine, worker

log = structlog.get_logger("tasks")


def step(kind: str, name: str) -> Any:
    """Register the task `name` (`line.step`): it runs that step of workflows of `kind`. Its only argument is the id.

    Safe to run twice, late, or never. On anything but success the chain ends here and the row carries its own future.
    """

    @queue.celery().task(name=name, bind=True)
    def task(self: Any, workflow_id: str) -> None:
        goes_on = False
        try:
            goes_on = engine.perform(kind, name.partition(".")[2], UUID(workflow_id))
            worker.marks.ended(kind)
        except Exception as error:
            if not db.unreachable(error):
                worker.marks.failed(kind)
                raise
            log.warning("tasks.postgres-away", task=name)
        finally:
            if not goes_on:
                self.request.chain = None

    return task
