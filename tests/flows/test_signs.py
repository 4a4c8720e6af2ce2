"""A worker that does nothing is told from one that has nothing to do, by what its heartbeat carries along."""

import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from app import db, diagnosis, errors, queue
from app.diagnosis import Finding
from app.flows import engine, sweep, work, worker
from app.flows.signs import Marks
from app.models.orm import new_id
from app.models.workflow import Worker
from app.steps import Ok
from app.store import workers
from app.store.workflows import NOW, seconds
from tests.flows.conftest import Script, make, perform
from tests.store.conftest import workflow

WELL = "takes what is due"
LONG_DUE = {"due_at": NOW - seconds(60), "wake_at": NOW - seconds(60)}
pytestmark = pytest.mark.usefixtures("database")


class Life:
    """The worker that this process is, second by second, by a clock of its own."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waiting = {"claim": 1}
        self.sweep: Callable[[], bool] | None = lambda: False

    def goes_on(self, seconds: int, each: Callable[[], Any] = lambda: None) -> None:
        for _ in range(seconds):
            self.seconds += 1
            each()
            if self.sweep:
                worker._round(self.sweep)
            worker.beat()


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    lived = Life()
    monkeypatch.setattr(queue, "waiting", lambda: {**dict.fromkeys(queue.KEYS, 0), **lived.waiting})
    monkeypatch.setattr(worker, "marks", Marks(lambda: lived.seconds))
    worker.marks.begin()
    worker.beat()
    return lived


@pytest.fixture
def hang() -> Iterator[Callable[..., Any]]:
    """Whoever calls it hangs until the test is over."""
    over = threading.Event()
    yield lambda *_: over.wait(100) and Ok()
    over.set()


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def as_of_the_last_beat(ask: Callable[[], list[Finding]]) -> list[Finding]:
    """What is found as if the last heartbeat were now: how long this machine takes to ask does not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "NOW", select(func.max(Worker.beat_at)).scalar_subquery())
        return ask()


def told() -> tuple[bool, str]:
    """What `throughline alive` says of this process."""
    (found,) = as_of_the_last_beat(diagnosis.workers_here)
    assert found.what == f"worker {os.getpid()}"
    return found.ok, found.detail


def test_a_worker_without_work_has_nothing_to_do_for_however_long(life: Life) -> None:
    life.goes_on(100)
    assert told() == (True, WELL)


def test_a_worker_whose_sweep_hangs_is_named_while_its_heart_beats(
    life: Life, aside: ThreadPoolExecutor, hang: Callable[..., Any]
) -> None:
    aside.submit(worker._round, hang)
    life.sweep = None
    life.goes_on(29)
    assert told() == (True, WELL)
    life.goes_on(2)
    assert told() == (False, "its sweep has not ended a round for 31 s")


def rounds_that_raise(error: Exception) -> Callable[[], None]:
    def failing() -> bool:
        raise error

    def each() -> None:
        with pytest.raises(type(error)):
            worker._round(failing)

    return each


def test_a_sweep_that_fails_every_time_is_named(life: Life) -> None:
    life.sweep = None
    life.goes_on(31, rounds_that_raise(ZeroDivisionError()))
    assert told() == (False, "its sweep has not ended a round for 31 s")


def test_a_sweep_that_cannot_reach_postgres_is_no_fault_of_the_worker(life: Life) -> None:
    life.sweep = None
    life.goes_on(40, rounds_that_raise(OperationalError("", {}, Exception())))
    assert told() == (True, WELL)


def test_a_sweep_that_waits_for_many_locks_one_after_the_other_has_not_hung(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def waits(*_: Any) -> None:
        for _second in range(5):
            life.seconds += 1
            worker.beat()
        seen.append(told()[0])
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(sweep, "_poisoned", waits)
    for _ in range(8):
        make(worker=new_id(), crashes=sweep.POISONED_AFTER_CRASHES - 1)
    sweep._take_away()
    assert seen == [True] * 8


def test_a_worker_that_takes_nothing_is_named_when_work_has_waited_all_the_time(life: Life) -> None:
    make(**LONG_DUE)
    life.goes_on(29)
    assert told()[0]
    life.goes_on(2)
    assert told() == (False, "has taken no claim for 31 s, though one is due")


def test_work_of_one_kind_hides_nobody_who_takes_none_of_another(life: Life, script: Script) -> None:
    workflow(kind="notification", **LONG_DUE)
    life.waiting = {queue.key("notification", queue.Rank.NEW): 32}
    life.goes_on(29, lambda: perform(make()))
    assert told()[0]
    life.goes_on(2, lambda: perform(make()))
    assert told() == (False, "has taken no notification for 31 s, though one is due")


def test_what_waits_of_one_kind_is_not_held_against_those_whose_messages_are_read(life: Life, script: Script) -> None:
    workflow(kind="notification", **LONG_DUE)
    make(**LONG_DUE)
    life.goes_on(40, lambda: perform(make()))
    assert told() == (True, WELL)


def test_no_row_is_looked_for_of_a_kind_that_was_at_work_lately(
    life: Life, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    monkeypatch.setattr(workers, "long_due", lambda _, kinds, again: asked.append(kinds) or set())
    life.goes_on(20, lambda: perform(make()))
    assert asked == []
    life.goes_on(11)
    assert asked == [{"claim"}]


@pytest.fixture
def task(environment: dict[str, str]) -> Callable[[], Any]:
    """A message is read, and its task runs."""
    create = importlib.import_module("tasks.claims").create_claim
    return lambda: create(str(new_id()))


@pytest.fixture
def failing_task(task: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fails(*_: Any) -> bool:
        raise ZeroDivisionError

    def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "perform", fails)
            with pytest.raises(ZeroDivisionError):
                task()

    return run


def test_a_worker_that_reads_every_message_and_fails_is_named(
    life: Life, task: Callable[[], Any], failing_task: Callable[[], None]
) -> None:
    make(**LONG_DUE)
    life.waiting = {}
    life.goes_on(31, failing_task)
    assert told() == (False, "has taken no claim for 31 s, though one is due")
    task()
    life.goes_on(1)
    assert told() == (True, WELL)


def test_a_task_that_failed_is_held_against_nobody_once_nothing_is_due(
    life: Life, failing_task: Callable[[], None]
) -> None:
    life.waiting = {}
    life.goes_on(40, failing_task)
    assert told() == (True, WELL)


def test_a_worker_whose_threads_are_stuck_is_at_work_for_as_long_as_its_lease_lasts(
    life: Life, script: Script, aside: ThreadPoolExecutor, hang: Callable[..., Any]
) -> None:
    begun = threading.Event()
    script.answers["create.do"] = [lambda *_: begun.set() or hang()]
    aside.submit(perform, make())
    assert begun.wait(100)
    make(**LONG_DUE)
    life.goes_on(65 + 29)
    assert told()[0]
    life.goes_on(2)
    assert told() == (False, "has taken no claim for 31 s, though one is due")


def test_a_verb_of_many_calls_is_at_work_as_long_as_it_renews_its_lease(
    life: Life, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(_: Any, leased: work.LeasedWork) -> Ok:
        life.goes_on(100, leased.renew)
        assert told() == (True, WELL)
        return Ok()

    monkeypatch.setattr(work, "_RENEW_EVERY_SECONDS", 0)
    script.answers["create.do"] = [calls]
    make(**LONG_DUE)
    assert perform(make())


def test_a_worker_that_is_held_to_a_rate_limit_is_not_named(life: Life, script: Script) -> None:
    def limited(*_: Any) -> None:
        raise errors.NotSent("limiter", after=20)

    def each() -> None:
        if life.seconds % 25 == 0:
            script.answers["create.do"] = [limited]
            perform(make())

    make(**LONG_DUE)
    life.goes_on(100, each)
    assert told() == (True, WELL)


@pytest.mark.parametrize(
    "put_off",
    [
        {"due_at": NOW + seconds(20), "wake_at": NOW + seconds(20)},
        {"due_at": NOW - seconds(60), "wake_at": NOW + seconds(3), "worker": new_id()},
        {**LONG_DUE, "for_release": "another"},
        {"due_at": NOW, "wake_at": NOW},
    ],
    ids=["put off", "held by another", "kept for a release", "only just due"],
)
def test_what_is_not_to_be_taken_now_keeps_nobody_from_having_nothing_to_do(
    life: Life, put_off: dict[str, Any]
) -> None:
    make(**put_off)
    life.goes_on(40)
    assert told() == (True, WELL)


def test_what_the_sweep_leaves_as_rows_for_an_upstreams_sake_is_held_against_nobody(life: Life) -> None:
    make(**LONG_DUE)
    life.waiting = {}
    life.goes_on(40)
    assert told() == (True, WELL)


def test_without_redis_who_does_not_sweep_has_nothing_to_do(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise errors.BrokerAway("not reachable")

    make(**LONG_DUE)
    monkeypatch.setattr(queue, "waiting", away)
    life.goes_on(40)
    assert told() == (True, WELL)


def test_what_was_not_done_while_stopped_or_without_postgres_is_no_sign(life: Life) -> None:
    make(**LONG_DUE)
    life.goes_on(20)
    life.seconds += 300
    worker.beat()
    assert told()[0]
    life.goes_on(31)
    assert not told()[0]


def test_a_worker_that_ends_may_take_nothing(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    make(**LONG_DUE)
    monkeypatch.setattr(worker, "stopping", lambda: True)
    life.sweep = None
    life.goes_on(40)
    assert told()[0]


def test_the_doctor_names_who_does_nothing_on_any_host(life: Life) -> None:
    make(**LONG_DUE)
    life.goes_on(31)
    found = {one.what: one for one in as_of_the_last_beat(diagnosis.run)}["workers"]
    wrong = f"process {os.getpid()} on {socket.gethostname()}: has taken no claim for 31 s, though one is due"
    assert (found.ok, found.detail) == (False, f"1 alive; {wrong}")
    assert "restart it" in found.remedy


# What is known of the processes of this host


def here(**columns: Any) -> None:
    values = {"id": new_id(), "host": socket.gethostname(), "pid": os.getpid(), "release": "test", **columns}
    with db.transaction() as session:
        session.execute(Worker.__table__.insert().values(**values))


def only(**columns: Any) -> list[Finding]:
    with db.transaction() as session:
        session.query(Worker).delete()
    here(**columns)
    return diagnosis.workers_here()


def test_a_worker_of_a_release_that_shows_no_signs_is_judged_by_its_heartbeat() -> None:
    (found,) = only()
    assert (found.ok, found.detail) == (True, "beats")


def test_silence_counts_for_as_long_as_postgres_has_been_up() -> None:
    only(beat_at=NOW - seconds(1e6))
    with db.transaction() as session:
        (pulse,) = workers.pulses(session)
    assert pulse.silent < 1e5


def test_a_process_that_is_silent_is_named() -> None:
    pulse = workers.Pulse(host="here", pid=1, silent=31, signs=None)
    assert "no heartbeat for 31 s" in diagnosis.trouble(pulse)


def test_of_several_that_had_the_pid_the_last_one_counts() -> None:
    only(started_at=NOW - seconds(100), swept_at=NOW - seconds(90), idle_at=NOW - seconds(90))
    here(swept_at=NOW, idle_at=NOW)
    assert told() == (True, WELL)


@pytest.mark.parametrize("columns", [{"pid": 2**22 + 1}, {"host": "elsewhere"}], ids=["ended", "of another host"])
def test_where_no_worker_runs_that_is_said(columns: dict[str, Any]) -> None:
    (found,) = only(**columns)
    assert (found.ok, found.remedy) == (False, "start one")


def test_a_heartbeat_that_was_interrupted_begins_anew(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    pulse = worker._Pulse()
    assert pulse.seconds() == 0
    for _ in range(6):
        now[0] += 1
        pulse.heard()
    assert pulse.seconds() == 5
    now[0] += 4.5
    assert pulse.seconds() == 0
    pulse.heard()
    now[0] += 2
    assert pulse.seconds() == 2


def test_the_heartbeat_keeps_a_connection_of_its_own_and_takes_a_new_one_when_it_is_closed() -> None:
    def backend() -> int:
        worker.beat()
        with db.transaction() as session:
            return session.execute(select(Worker.backend).where(Worker.id == worker.incarnation())).scalar_one() or 0

    first = backend()
    with db.transaction() as session:
        assert backend() == first != session.execute(select(func.pg_backend_pid())).scalar_one()
        session.execute(select(func.pg_terminate_backend(first, 1_000)))
    assert backend() != first
