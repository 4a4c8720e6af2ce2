"""What time does to a declaration: payments that never came, submissions that are late, data to erase.

Source: declarations contract, 3.2, 3.3 and 3.6. Business time. Each job goes page by page, each page in a transaction
of its own, and a row that cannot be treated is logged and left: the others go on.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from app import clock, config, db, logs, metrics, states
from app.db import Session
from app.flows.declarations import fields
from app.store import declaration_jobs, workflows
from app.store.declaration_jobs import Found, Page, Place

BATCH = 100  # of at most 500: a payment notice waits for its row's lock for half a second only
ERASE_BATCH = 1000
S = states.Declaration
log = logs.get("declarations")


def time_out_payments() -> int:
    """Mark or expire what was not paid in time, as PAYMENT_TIMEOUT_ACTION says now. Returns how many."""
    settings = config.settings().declarations
    expire = settings.payment_timeout_action == "expire"
    before = _ago(settings.payment_timeout)
    return in_pages(
        lambda session, after: declaration_jobs.unpaid(session, before=before, marked=expire, limit=BATCH, after=after),
        _expire if expire else _mark_unpaid,
    )


def _mark_unpaid(session: Session, found: Found) -> bool:
    declaration_jobs.mark(session, found, payment_timed_out=True)
    workflows.add_event(session, found.id, "payment-timed-out", actor="timer")
    db.after_commit(session, partial(_timed_out, "log", "payment-timed-out", found))
    return True


def _expire(session: Session, found: Found) -> bool:
    if not workflows.move(session, found.seen, S.EXPIRED, actor="timer", reason="expired", holder=False):
        return False
    declaration_jobs.mark(session, found, payment_timed_out=True)
    told = {"from": found.seen.state, "to": str(S.EXPIRED)}
    db.after_commit(session, partial(_timed_out, "expire", "expired", found, **told))
    return True


def _timed_out(action: str, event: str, found: Found, **told: str) -> None:
    metrics.declarations_payment_timeouts.labels(action).inc()
    log.info(event, **fields(found), **told)


def tell_overdue() -> int:
    """Raise the alarm, once, for what has been paid for too long and is not sent. Returns how many."""
    before = _ago(config.settings().declarations.submission_overdue_after)
    return in_pages(
        lambda session, after: declaration_jobs.unsent(session, before=before, limit=BATCH, after=after), _mark_overdue
    )


def _mark_overdue(session: Session, found: Found) -> bool:
    declaration_jobs.mark(session, found, overdue=True)
    workflows.add_event(session, found.id, "overdue", actor="timer")
    db.after_commit(session, partial(log.error, "overdue", **fields(found), alarm="overdue"))
    return True


def erase() -> int:
    """Overwrite the personal data of declarations that have been finished for long enough. Returns how many."""
    before = _ago(config.settings().declarations.declarations_retention)
    erased, after, more = 0, None, True
    while more:
        with db.transaction() as session:
            page = declaration_jobs.erasable(session, before=before, limit=ERASE_BATCH, after=after)
            if page.rows:
                declaration_jobs.erase(session, [found.id for found in page.rows])
                db.after_commit(session, partial(_erased, page.rows))
        erased, after, more = erased + len(page.rows), page.next, page.next is not None
    return erased


def _erased(rows: Sequence[Found]) -> None:
    metrics.declarations_erased.inc(len(rows))
    for found in rows:
        log.info("erased", **fields(found))


def _ago(seconds: float) -> datetime:
    return clock.now() - timedelta(seconds=seconds)


def in_pages(find: Callable[[Session, Place | None], Page], treat: Callable[[Session, Found], bool]) -> int:
    """Treat every row that is found, oldest first. Returns how many were."""
    treated, after, more = 0, None, True
    while more:
        with db.transaction() as session:
            page = find(session, after)
            treated += len(each(session, page.rows, treat))
        after, more = page.next, page.next is not None
    return treated


def each(session: Session, rows: Sequence[Found], treat: Callable[[Session, Found], bool]) -> list[Found]:
    """Treat these rows, each by itself: one that cannot be treated stays as it was. Returns those that were."""
    done = []
    for found in rows:
        try:
            with session.begin_nested():
                if treat(session, found):
                    done.append(found)
        except Exception as error:
            if db.unreachable(error):
                raise
            log.exception("declarations.row-broken", **fields(found))
    return done
