"""Calendar jobs. Each claims its tick first, so that two beats never run one twice."""

import structlog

from app import clock, db, queue
from app.store import idempotency, ticks, workers

SILENT_WORKERS_SECONDS = 3_600

log = structlog.get_logger("sweeps")


@queue.celery().task(name="sweeps.retention")
def retention() -> None:
    """Hourly: forget idempotency keys after 24 h, workers long silent, and old ticks."""
    due = clock.now().replace(minute=0, second=0, microsecond=0)
    with db.transaction() as session:
        if not ticks.claim(session, "retention", due):
            return
        keys = idempotency.forget(session)
        silent = workers.forget_silent(session, after=SILENT_WORKERS_SECONDS)
        old = ticks.forget(session)
    log.info("sweeps.retention", idempotency_keys=keys, workers=silent, ticks=old)
