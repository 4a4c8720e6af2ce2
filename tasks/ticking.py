"""A job's ticks: two beats never run one twice, a missed one is caught up once."""

from datetime import UTC, datetime

from app import clock, db
from app.store import ticks


def is_first(job: str, every: float) -> bool:
    """True for one message per tick; ticks are `every` seconds apart, counted from 1970.

    A message counts for the tick that is nearest, since the clocks of beats and workers differ, and for the one before,
    if that was missed.
    """
    nearest = round(clock.now().timestamp() / every)
    with db.transaction() as session:
        before, now = (datetime.fromtimestamp(tick * every, UTC) for tick in (nearest - 1, nearest))
        missed = ticks.claim(session, job, before)
        return ticks.claim(session, job, now) or missed
