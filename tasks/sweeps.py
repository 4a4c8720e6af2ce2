"""Calendar jobs. Each claims its tick first, so that two beats never run one twice."""

import structlog

from app import clock, db, queue
from app.flows import erasure as erasing
from app.store import idempotency, ticks, workers

SILENT_WORKERS_SECONDS = 3_600
ERASURE_MINUTES, ERASURE_BATCHES = 10, 500

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


@queue.celery().task(name="sweeps.erasure")
def erasure() -> None:
    """Every ten minutes: overwrite the personal data of claims that have been final for long enough, in batches."""
    now = clock.now()
    due = now.replace(minute=now.minute - now.minute % ERASURE_MINUTES, second=0, microsecond=0)
    with db.transaction() as session:
        if not ticks.claim(session, "erasure", due):
            return
    erased = 0
    for _ in range(ERASURE_BATCHES):
        count, more = erasing.erase_some()
        erased += count
        if not more:
            break
    log.info("sweeps.erasure", claims=erased)
