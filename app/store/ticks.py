"""Ticks of calendar jobs: whoever inserts the row runs the job."""

from datetime import datetime

from sqlalchemy import Float, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models.workflow import Tick, Worker
from app.store.workflows import NOW, seconds

_KEEP_SECONDS = 7 * 86_400


def claim(session: Session, schedule: str, due_at: datetime) -> bool:
    """True for exactly one caller per schedule and due time."""
    row = insert(Tick).values(schedule=schedule, due_at=due_at).on_conflict_do_nothing()
    return session.scalar(row.returning(Tick.schedule)) is not None


def silence(session: Session, *, dead: float) -> float:
    """For how many seconds no job has begun though a worker lived; 0 while all have been silent for `dead` seconds."""
    alive = select(func.min(Worker.started_at)).where(Worker.beat_at >= NOW - seconds(dead)).scalar_subquery()
    newest = select(func.max(Tick.due_at)).scalar_subquery()
    since = func.greatest(func.coalesce(alive, NOW), newest)
    age = session.execute(select(func.extract("epoch", NOW - since).cast(Float))).scalar_one()
    return max(float(age), 0.0)


def forget(session: Session) -> int:
    """Drop ticks older than a week. Returns how many."""
    old = delete(Tick).where(Tick.due_at < NOW - seconds(_KEEP_SECONDS))
    return session.execute(old).rowcount  # type: ignore[attr-defined,no-any-return]
