"""Releases of the workers, in the order in which they were first seen. Source: declarations contract 3.5."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models.workflow import Release
from app.store.workflows import NOW, seconds

_LOCK = 7_301_002
_SHARED_SECONDS = 60  # workers without a name that start this close together are one release


def announce(session: Session, name: str) -> str:
    """Make a release known, once. Without a name: that of the workers that have just started, or a new one."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    name = name or _just_started(session) or _start_name(session)
    session.execute(insert(Release).values(name=name).on_conflict_do_nothing())
    return name


def _just_started(session: Session) -> str | None:
    newest = select(Release.name).order_by(Release.seen_at.desc()).limit(1)
    return session.scalar(newest.where(Release.name.like("start-%"), Release.seen_at > NOW - seconds(_SHARED_SECONDS)))


def _start_name(session: Session) -> str:
    return f"start-{session.execute(select(NOW)).scalar_one():%Y%m%dT%H%M%S.%fZ}"


def newest(session: Session) -> str | None:
    """The release first seen last; None before any worker has started."""
    return session.scalar(select(Release.name).order_by(Release.seen_at.desc(), Release.name).limit(1))
