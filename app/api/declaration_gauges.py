"""The gauges of passenger declarations. Source: declarations contract, section 7."""

from datetime import timedelta

from app import clock, config, metrics, states
from app.db import Session
from app.store import declaration_jobs
from app.store.declaration_jobs import Standing


def read(session: Session) -> Standing:
    """How the declarations stand now."""
    late = timedelta(seconds=config.settings().declarations.submission_overdue_after)
    return declaration_jobs.standing(session, overdue_before=clock.now() - late)


def show(standing: Standing) -> None:
    """Set the gauges; every state is shown, also where there is none."""
    for state in states.Declaration:
        metrics.declarations_state.labels(state).set(standing.states.get(state, 0))
    metrics.declarations_oldest_unsent_seconds.set(standing.oldest_unsent)
    metrics.declarations_oldest_failed_seconds.set(standing.oldest_failed)
    metrics.declarations_overdue.set(standing.overdue)
