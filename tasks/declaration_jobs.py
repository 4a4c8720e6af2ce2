"""Calendar jobs of passenger declarations. Each claims its tick first, so that two beats never run one twice."""

from uuid import UUID

import structlog

from app import config, queue
from app.flows import declaration_jobs
from app.flows import replays as replaying
from tasks import ticking

log = structlog.get_logger("sweeps")


@queue.celery().task(name="sweeps.declaration_payments")
def payments() -> None:
    """Every PAYMENT_TIMEOUT_SWEEP: what was not paid in time, and what was paid and is still not sent."""
    if ticking.is_first("declaration-payments", config.settings().declarations.payment_timeout_sweep):
        timed_out = declaration_jobs.time_out_payments()
        log.info("sweeps.declaration-payments", timed_out=timed_out, overdue=declaration_jobs.tell_overdue())


@queue.celery().task(name=replaying.TASK)
def replays(replay_id: str | None = None) -> None:
    """Move a replay that was just asked for; without its id, every REPLAY_SWEEP: what a newer release is to send again,
    and what is left of the replays that were asked for.
    """
    if replay_id:
        replaying.carry(UUID(replay_id))
    elif ticking.is_first("declaration-replays", config.settings().declarations.replay_sweep):
        replaying.carry_all()
        log.info("sweeps.declaration-replays", replayed=replaying.by_release())


@queue.celery().task(name="sweeps.declaration_erasure")
def erasure() -> None:
    """Every DECLARATIONS_RETENTION_SWEEP: overwrite the personal data of what has been finished for long enough."""
    if ticking.is_first("declaration-erasure", config.settings().declarations.declarations_retention_sweep):
        log.info("sweeps.declaration-erasure", erased=declaration_jobs.erase())
