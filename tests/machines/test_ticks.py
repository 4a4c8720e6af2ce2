"""Calendar jobs over both nights on which London's clocks change: several beats, skewed clocks, unruly messages.

Every entry of the real schedule is tried, by Celery's own reckoning of what is due.
"""

import copy
import importlib
import itertools
import pkgutil
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from celery import Celery, schedules

import tasks
from app import queue
from app.store import ticks
from tasks import ticking

NIGHTS = (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC))  # the clocks change at 1:00 UTC
MOST_TICKS, MOST_HOURS = 24, 6
SKEWS = (-90.0, -31.0, 0.0, 47.0, 90.0)
JUMPS, JUMP_BACK = 2, 60.0  # this beat, at the change, by so many seconds
BESIDES = {"celery", "reconnecting"}  # these are for a worker's process
Ran = list[tuple[str, datetime]]


@dataclass(frozen=True)
class Entry:
    """One line of the schedule, and its job."""

    name: str
    schedule: schedules.schedule
    task: Callable[[], None]

    def clocked(self, clock: Callable[[], datetime]) -> schedules.schedule:
        """The schedule as a beat with this clock reckons it."""
        mine = copy.copy(self.schedule)
        mine.nowfun, mine.app = clock, Celery(set_as_current=False, timezone="UTC")
        return mine

    @property
    def period(self) -> float:
        """Seconds between two due times."""
        moment = NIGHTS[0]
        mine = self.clocked(lambda: moment)
        moment += timedelta(seconds=mine.is_due(moment).next)
        return float(mine.is_due(moment - timedelta(days=1)).next)

    @property
    def span(self) -> float:
        return min(MOST_TICKS * self.period, MOST_HOURS * 3_600)


@pytest.fixture
def entries(database: None) -> list[Entry]:
    """Whatever the real schedule holds now."""
    for module in pkgutil.iter_modules(tasks.__path__):
        if module.name not in BESIDES:
            importlib.import_module(f"tasks.{module.name}")
    known, app = importlib.import_module("tasks.beat").schedule(), queue.celery()
    return [
        Entry(name, schedules.maybe_schedule(one["schedule"]), app.tasks[one["task"]]) for name, one in known.items()
    ]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """The ticks that were claimed. Postgres's own clock shows another day, by which it must forget none."""
    claimed: Ran = []
    claim = ticks.claim

    def note(session: Any, schedule: str, due_at: datetime) -> bool:
        is_first = claim(session, schedule, due_at)
        if is_first:
            claimed.append((schedule, due_at))
        return is_first

    monkeypatch.setattr(ticks, "claim", note)
    monkeypatch.setattr(ticks, "forget", lambda session: 0)
    return claimed


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each job was told to run."""
    told: Counter[str] = Counter()
    is_first = ticking.is_first

    def note(job: str, every: float) -> bool:
        first = is_first(job, every)
        told[job] += first
        return first

    monkeypatch.setattr(ticking, "is_first", note)
    return told


def sent(entry: Entry, begin: datetime, number: int, dice: random.Random) -> Iterator[datetime]:
    """When beat `number` sends the entry's message, by the true clock. They were started one after the other."""
    end, change = begin + timedelta(seconds=entry.span), begin + timedelta(seconds=entry.span / 2)
    now, skew, jumps = begin + timedelta(seconds=entry.period * number / 6), SKEWS[number], number == JUMPS

    def clock() -> datetime:
        back = JUMP_BACK if jumps and now >= change else 0
        return now + timedelta(seconds=skew - back)

    mine, last = entry.clocked(clock), clock()
    while now < end:
        due, wait = mine.is_due(last)
        if due:
            last = clock()
            yield now
        now += timedelta(seconds=max(wait, 0.01) + dice.uniform(0, 0.02))


def unruly(sending: list[datetime], entry: Entry, dice: random.Random) -> list[datetime]:
    """When the messages come: each late, some twice, so that they pass each other."""
    late, again = entry.period / 3, entry.period * 2
    first = [at + timedelta(seconds=dice.uniform(0, min(late, 60))) for at in sending]
    return sorted([*first, *(at + timedelta(seconds=dice.uniform(0, again)) for at in first if dice.random() < 0.3)])


@pytest.mark.parametrize("change", NIGHTS, ids=("spring", "autumn"))
def test_no_tick_of_the_night_is_run_twice_and_none_is_missed(change: datetime, entries: list[Entry], ran: Ran) -> None:
    for entry in entries:
        dice, begin = random.Random(entry.name), change - timedelta(seconds=entry.span / 2)
        beats = [sent(entry, begin, number, dice) for number in range(dice.randint(3, len(SKEWS)))]
        for at in unruly([at for beat in beats for at in beat], entry, dice):
            with time_machine.travel(at, tick=False):
                entry.task()
        dues = sorted(due for schedule, due in ran if schedule == entry.name)
        steps = {(after - before).total_seconds() for before, after in itertools.pairwise(dues)}
        assert steps == {entry.period}, f"{entry.name}: a tick was run twice, or is missing"
        assert len(dues) >= entry.span // entry.period - 1


def test_of_workers_that_get_a_tick_at_the_same_moment_one_runs_it(
    entries: list[Entry], ran: Ran, runs: Counter[str]
) -> None:
    for entry in entries:
        with time_machine.travel(NIGHTS[1], tick=False), ThreadPoolExecutor(6) as pool:
            together = threading.Barrier(6)
            race = [pool.submit(lambda task=entry.task, at=together: (at.wait(60), task())) for _ in range(6)]
            for one in race:
                one.result()
        assert runs[entry.name] == 1


def test_a_beat_whose_clock_is_a_moment_ahead_of_the_workers_misses_no_tick(
    entries: list[Entry], runs: Counter[str]
) -> None:
    """Messages for 0:00, 0:10 and 0:20, the second of which is a tenth of a second quicker than the clocks differ."""
    (erasure,) = (entry for entry in entries if entry.name == "erasure")
    for minutes, seconds in ((0, 0.1), (10, -0.1), (20, 0.1)):
        with time_machine.travel(NIGHTS[0] + timedelta(minutes=minutes, seconds=seconds), tick=False):
            erasure.task()
    assert runs["erasure"] == 3


def test_a_tick_that_was_missed_is_caught_up_once(entries: list[Entry], ran: Ran, runs: Counter[str]) -> None:
    (erasure,) = (entry for entry in entries if entry.name == "erasure")
    for minutes in (0, 20, 10, 20):
        with time_machine.travel(NIGHTS[0] + timedelta(minutes=minutes), tick=False):
            erasure.task()
    assert runs["erasure"] == 2
    assert [due - NIGHTS[0] for _, due in ran] == [timedelta(minutes=minutes) for minutes in (-10, 0, 10, 20)]
