"""Ticks: of any number of beats one runs a job."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app import db
from app.models.workflow import Tick
from app.store import ticks
from app.store.workflows import NOW, seconds

pytestmark = pytest.mark.usefixtures("database")

DUE = datetime(2026, 3, 2, 10, tzinfo=UTC)
BEATS = 10


def claim(schedule: str = "retention", due_at: datetime = DUE) -> bool:
    with db.transaction() as session:
        return ticks.claim(session, schedule, due_at)


def test_of_ten_simultaneous_beats_one_claims_a_tick() -> None:
    together = threading.Barrier(BEATS)

    def beat() -> bool:
        with db.transaction() as session:
            together.wait(60)
            return ticks.claim(session, "retention", DUE)

    with ThreadPoolExecutor(BEATS) as pool:
        claimed = [future.result() for future in [pool.submit(beat) for _ in range(BEATS)]]
    assert sorted(claimed) == [False] * (BEATS - 1) + [True]


def test_each_schedule_and_each_due_time_is_a_tick_of_its_own() -> None:
    assert claim()
    assert claim("replay")
    assert claim(due_at=DUE + timedelta(hours=1))
    assert not claim()


def test_a_tick_whose_job_failed_may_be_claimed_again() -> None:
    with contextlib.suppress(ZeroDivisionError), db.transaction() as session:
        assert ticks.claim(session, "retention", DUE)
        raise ZeroDivisionError
    assert claim()


def test_ticks_are_forgotten_after_a_week() -> None:
    with db.transaction() as session:
        old, young = (session.scalar(select(NOW - seconds(days * 86_400))) for days in (8, 6))
        session.add_all([Tick(schedule="retention", due_at=due) for due in (old, young)])
    with db.transaction() as session:
        assert ticks.forget(session) == 1
        assert session.scalars(select(Tick.due_at)).all() == [young]
