"""Calendar jobs of the vouchers. Each claims its tick first, so that two beats never run one twice."""

from functools import partial

import structlog

from app import db, queue
from app.flows import dispatch, voucher_endings
from app.store import voucher_queue, vouchers
from tasks import ticking

CATCH_UP_SECONDS, STATES_SECONDS = 15, 900

log = structlog.get_logger("sweeps")


@queue.celery().task(name="sweeps.voucher_operations")
def voucher_operations() -> None:
    """Every 15 s: give up what waits behind others and whose time is up, and start operations that wait behind none,
    because whatever ended the one before did not."""
    if not ticking.is_first("voucher-operations", CATCH_UP_SECONDS):
        return
    _give_up_what_waits()
    with db.transaction() as session:
        blocked = voucher_queue.blocked(session)
    released = 0
    for subscription_id in blocked:
        with db.transaction() as session:
            vouchers.lock(session, subscription_id)
            for operation_id in voucher_queue.release_next(session, subscription_id):
                db.after_commit(session, partial(dispatch.enqueue, operation_id))
                released += 1
    if released:
        log.warning("sweeps.voucher_operations", released=released)


def _give_up_what_waits() -> None:
    with db.transaction() as session:
        voucher_queue.wait_along(session, by=CATCH_UP_SECONDS)
        overdue = voucher_queue.overdue(session)
    for subscription_id, operation_id in overdue:
        with db.transaction() as session:
            vouchers.lock(session, subscription_id)
            voucher_endings.give_up(session, operation_id)
    if overdue:
        log.warning("sweeps.voucher_operations", overdue=len(overdue))


@queue.celery().task(name="sweeps.voucher_states")
def voucher_states() -> None:
    """Every 15 minutes: store the states that follow from the date, in batches."""
    if not ticking.is_first("voucher-states", STATES_SECONDS):
        return
    stored = 0
    while count := _store_some_states():
        stored += count
    log.info("sweeps.voucher_states", stored=stored)


def _store_some_states() -> int:
    with db.transaction() as session:
        return vouchers.store_states(session)
