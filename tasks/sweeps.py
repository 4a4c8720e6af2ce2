"""Calendar jobs. Each claims its tick first, so that two beats never run one twice."""

import structlog

from app import db, queue
from app.flows import erasure as erasing
from app.store import idempotency, ticks, workers
from tasks import ticking

SILENT_WORKERS_SECONDS = 3_600
RETENTION_SECONDS, ERASURE_SECONDS = 3_600, 600
ERASURE_BATCHES = 500

log = structlog.get_logger("sweeps")


@queue.celery().task(name="sweeps.retention")
def retention() -> None:
    """Hourly: forget idempotency keys after 24 h, workers long silent, and old ticks."""
    if not ticking.is_first("retention", RETENTION_SECONDS):
        return
    with db.transaction() as session:
        keys = idempotency.forget(session)
        silent = workers.forget_silent(session, after=SILENT_WORKERS_SECONDS)
        old = ticks.forget(session)
    log.info("sweeps.retention", idempotency_keys=keys, workers=silent, ticks=old)


@queue.celery().task(name="sweeps.erasure")
def erasure() -> None:
    """Every ten minutes: overwrite the personal data of claims that have been final for long enough, in batches."""
    if not ticking.is_first("erasure", ERASURE_SECONDS):
        return
    erased = 0
    for _ in range(ERASURE_BATCHES):
        count, more = erasing.erase_some()
        erased += count
        if not more:
            break
    log.info("sweeps.erasure", claims=erased)
