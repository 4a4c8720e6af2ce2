"""The sweep against a real Postgres and a real broker: nothing unfinished is forgotten, nothing is done twice."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
import redis
from sqlalchemy import null, select

from app import config, db, metrics, queue
from app.flows import dispatch, engine, sweep, worker
from app.flows.flow import Ending
from app.models.client import Client
from app.models.orm import new_id
from app.models.workflow import Move, Worker
from app.steps import Ok
from app.store import due, workflows
from app.store.workflows import NOW, seconds
from app.upstreams.http import Pace
from local import services
from tests.flows.conftest import S, Script, make, moves, perform, row, shift, take, write

SECONDS = 60.0
Change = Callable[..., None]


@pytest.fixture(autouse=True)
def broker(redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The broker with nothing in it, and nobody who thinks that it is away."""
    redis_server.start()
    monkeypatch.setitem(queue._away, "until", 0.0)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def no_broker(broker: redis.Redis, redis_server: services.Redis) -> Iterator[None]:
    redis_server.kill()
    yield
    redis_server.start()


@pytest.fixture
def soon_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the queues is a fresh one."""
    monkeypatch.setattr(queue, "_COUNT_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(queue, "has_room", queue._Counted().has_room)


def sent(broker: redis.Redis) -> list[UUID]:
    """The workflows that messages wait for, in the order in which a worker reads them: urgent ones first."""
    messages = [json.loads(raw) for name in queue.KEYS for raw in reversed(broker.lrange(name, 0, -1))]
    return [UUID(json.loads(message["headers"]["argsrepr"].replace("'", '"').strip("(,)"))) for message in messages]


def hold(claim: UUID, *, silent: float | None) -> UUID:
    """Another worker holds it; its last heartbeat is so many seconds old (None: it never had one)."""
    holder = new_id()
    if silent is not None:
        with db.transaction() as session:
            session.add(Worker(id=holder, host="elsewhere", pid=1, release="test"))
            session.flush()
            statement = Worker.__table__.update().where(Worker.id == holder)
            session.execute(statement.values(beat_at=NOW - seconds(silent)))
    assert take(claim, by=holder)
    return holder


def poll(reached: Callable[[], Any]) -> None:
    """Wait until it is so; fail when it is not soon."""
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        threading.Event().wait(0.02)


def events(claim: UUID) -> list[str]:
    with db.transaction() as session:
        return list(session.scalars(select(Move.reason).where(Move.workflow_id == claim, Move.to.is_(None))))


# Taking away


@pytest.mark.parametrize("silent", [None, 60], ids=["no heartbeat", "stale heartbeat"])
def test_what_a_dead_worker_held_is_taken_away_and_dispatched_at_once(
    script: Script, broker: redis.Redis, silent: float | None
) -> None:
    claim = make()
    hold(claim, silent=silent)
    before = row(claim)
    sweep.sweep()
    after = row(claim)
    assert (after.worker, after.crashes, after.fence) == (None, 1, before.fence + 1)
    assert events(claim) == ["holder died"]
    assert sent(broker) == [claim]
    assert perform(claim) is True


def test_what_a_living_worker_holds_too_long_is_taken_away_without_counting_a_death(script: Script) -> None:
    claim = make()
    hold(claim, silent=0)
    write(claim, wake_at=row(claim).created_at - timedelta(seconds=1))
    sweep.sweep()
    after = row(claim)
    assert (after.worker, after.crashes, after.fence) == (None, 0, 2)
    assert events(claim) == ["lease ran out"]


def test_what_a_living_worker_holds_in_time_stays_with_it(script: Script, broker: redis.Redis) -> None:
    claim = make()
    holder = hold(claim, silent=0)
    sweep.sweep()
    assert (row(claim).worker, events(claim), sent(broker)) == (holder, [], [])


def test_a_call_that_was_under_way_is_looked_for_before_it_is_repeated(script: Script) -> None:
    script.answers["create.find"] = [Ok()]
    claim = make()
    mine = take(claim, by=new_id())
    assert mine
    with db.transaction() as session:
        assert workflows.intend(session, mine, {"step": "create", "index": 0}, lease=65, anyway=False)
    sweep.sweep()
    perform(claim)
    assert script.done == ["create.find"]


# The third death


def die_for_the_third_time(claim: UUID) -> None:
    hold(claim, silent=60)
    write(claim, crashes=2)


def test_the_third_death_fails_the_row_and_keeps_its_doubt(script: Script, broker: redis.Redis) -> None:
    claim = make(in_doubt=True, intent={"step": "create", "index": 0, "at": "2026-03-02T10:00:00+00:00"})
    die_for_the_third_time(claim)
    counted = metrics.engine_poisoned.labels("claim")._value.get()
    sweep.sweep()
    after = row(claim)
    assert (after.state, after.in_doubt, after.intent["step"]) == (S.FAILED, True, "create")
    assert (after.wake_at, after.slot, after.release) == (None, None, "test")
    assert {name: after.error[name] for name in ("code", "step", "httpStatus", "retryable")} == {
        "code": "crashed", "step": "create", "httpStatus": 502, "retryable": True,
    }  # fmt: skip
    assert "not known whether" in after.error["message"]
    assert moves(claim)[-1] == (S.APPOINTMENT_FOUND, S.FAILED)
    assert metrics.engine_poisoned.labels("claim")._value.get() == counted + 1
    assert sent(broker) == []


def test_a_row_that_was_not_in_doubt_says_nothing_of_one(script: Script) -> None:
    claim = make()
    die_for_the_third_time(claim)
    sweep.sweep()
    assert row(claim).error["message"] == "The worker died three times running in this step."
    assert row(claim).in_doubt is False


def test_the_second_death_only_has_it_run_again(script: Script, broker: redis.Redis) -> None:
    claim = make()
    hold(claim, silent=60)
    write(claim, crashes=1)
    sweep.sweep()
    assert (row(claim).state, row(claim).crashes, sent(broker)) == (S.APPOINTMENT_FOUND, 2, [claim])


def test_a_lease_that_ran_out_never_poisons_a_row(script: Script) -> None:
    claim = make()
    hold(claim, silent=0)
    write(claim, crashes=3, wake_at=row(claim).created_at - timedelta(seconds=1))
    sweep.sweep()
    assert row(claim).state == S.APPOINTMENT_FOUND


def test_deaths_are_counted_anew_once_a_poisoned_row_is_being_undone(script: Script) -> None:
    claim = make(rollback=True)
    die_for_the_third_time(claim)
    sweep.sweep()
    after = row(claim)
    assert (after.state, after.crashes) == (S.ROLLING_BACK, 0)


def test_a_row_that_cannot_even_be_failed_does_not_stop_the_sweep(
    script: Script, flow_of: Change, broker: redis.Redis
) -> None:
    stuck, other, due = make(), make(), make()
    for claim in (stuck, other):
        die_for_the_third_time(claim)

    def failed(record: Any, failure: Any) -> Ending:
        if record.id == stuck:
            raise ZeroDivisionError
        return Ending(state=S.FAILED)

    flow_of(failed=failed)
    sweep.sweep()
    assert row(other).state == S.FAILED
    assert (row(stuck).state, row(stuck).worker) == (S.APPOINTMENT_FOUND, None)
    assert set(sent(broker)) == {stuck, due}


# Dispatching what is due


def test_what_is_due_is_sent_and_looked_at_again_after_the_redispatch_time(
    script: Script, broker: redis.Redis, set_settings: Change
) -> None:
    set_settings(REDISPATCH_SECONDS=7)
    claim, later, finished = make(), make(), make(state=S.SUBMITTED, due_at=null(), wake_at=null())
    shift(later, -60)
    sweep.sweep()
    sweep.sweep()
    assert sent(broker) == [claim]
    assert row(finished).wake_at is None
    with db.transaction() as session:
        assert 1 < (row(claim).wake_at - workflows.now(session)).total_seconds() <= 7
    shift(claim, 7)
    sweep.sweep()
    assert sent(broker) == [claim, claim]


def test_due_rows_go_out_urgent_first_then_by_turns_of_the_clients_oldest_first(
    script: Script, broker: redis.Redis
) -> None:
    flood = [make() for _ in range(4)]
    small, urgent = make(), make(priority=0)
    with db.transaction() as session:
        other = Client(name="small", scopes=["claims"], product="pci")
        session.add(other)
        session.flush()
        other_id = other.id
    write(small, client_id=other_id)
    for age, claim in ((40, flood[2]), (30, flood[0]), (20, flood[3]), (10, flood[1]), (5, small), (1, urgent)):
        shift(claim, age)
    sweep.sweep()
    first, *next_ones = sent(broker)
    assert first == urgent
    assert set(next_ones[:2]) == {flood[2], small}
    assert next_ones[2:] == [flood[0], flood[3], flood[1]]


def test_no_more_is_sent_than_the_queue_has_room_for(
    script: Script, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST_WAITING", 3)
    broker.rpush(queue.key("claim", queue.Rank.NEW), json.dumps({"headers": {"argsrepr": f"('{new_id()}',)"}}))
    claims = [make() for _ in range(4)]
    for age, claim in zip((40, 30, 20, 10), claims, strict=True):
        shift(claim, age)
    sweep.sweep()
    assert set(sent(broker)) > set(claims[:2])
    sweep.sweep()
    assert len(sent(broker)) == 3


# No more than the upstream takes


def test_what_the_upstream_does_not_take_now_waits_as_rows_the_new_ones_too(
    script: Script, broker: redis.Redis, flow_of: Change, soon_counted: None
) -> None:
    flow_of(pace=lambda: Pace(0))
    waiting = make()
    sweep.sweep()
    new = make()
    dispatch.enqueue(new)
    assert sent(broker) == []
    flow_of(pace=Pace)
    shift(waiting, 1)
    sweep.sweep()
    assert sent(broker) == [waiting, new]


def test_no_more_are_under_way_than_the_upstream_takes(script: Script, broker: redis.Redis, flow_of: Change) -> None:
    flow_of(pace=lambda: Pace(3))
    hold(make(), silent=0)
    claims = [make() for _ in range(4)]
    for age, claim in zip((40, 30, 20, 10), claims, strict=True):
        shift(claim, age)
    assert sweep.sweep()
    assert sent(broker) == claims[:2]
    assert sweep.sweep()  # one is held, two are queued
    assert sent(broker) == claims[:2]


@pytest.mark.parametrize(("takes", "why"), [(2, queue.UPSTREAM), (9, queue.FULL)])
def test_everybody_is_told_why_more_waits(
    script: Script, flow_of: Change, monkeypatch: pytest.MonkeyPatch, takes: int, why: str
) -> None:
    flow_of(pace=lambda: Pace(takes))
    monkeypatch.setattr(queue, "MOST_WAITING", 3)
    for _ in range(4):
        make()
    sweep.sweep()
    assert queue.backlogs() == {"claim": why}


def test_where_the_queue_is_full_that_is_the_reason_whatever_the_upstream_takes(
    script: Script, broker: redis.Redis, flow_of: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST_WAITING", 3)
    for _ in range(4):
        make()
    sweep.sweep()
    flow_of(pace=lambda: Pace(1))
    sweep.sweep()
    assert queue.backlogs() == {"claim": queue.FULL}


def test_calls_on_their_way_have_passed_the_limit_and_count_only_as_being_under_way(
    script: Script, broker: redis.Redis, flow_of: Change
) -> None:
    calling = make(in_doubt=True, intent={"step": "create", "index": 0, "verb": "do"})
    hold(calling, silent=0)
    flow_of(pace=lambda: Pace(calls=1))
    first, second = make(), make()
    shift(first, 10)
    sweep.sweep()
    assert sent(broker) == [first]
    flow_of(pace=lambda: Pace(calls=9, at_once=3))
    shift(second, 5)
    sweep.sweep()
    assert sent(broker) == [first, second]
    shift(make(), 5)
    sweep.sweep()  # one calls, two are queued
    assert sent(broker) == [first, second]


def test_while_a_breaker_is_open_one_probes(script: Script, broker: redis.Redis, flow_of: Change) -> None:
    flow_of(pace=lambda: Pace(1, probing=True))
    hold(make(), silent=0)
    tried, fresh, urgent = make(attempt=2), make(attempt=1), make(priority=0)
    shift(tried, 60)
    assert not sweep.sweep()
    assert sent(broker) == [urgent, fresh]


def test_what_finds_its_queue_full_waits_for_the_sweep_and_not_for_a_message(
    script: Script, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, soon_counted: None
) -> None:
    monkeypatch.setattr(queue, "MOST_WAITING", 1)
    first, second, begun, urgent = make(), make(), make(state=S.CREATED), make(priority=0)
    for claim in (first, second, begun, urgent):
        write(claim, wake_at=NOW + seconds(5))
        dispatch.enqueue(claim)
    assert sent(broker) == [urgent, begun, first]
    broker.flushall()
    sweep.sweep()
    assert sent(broker) == [second]


def test_what_could_not_be_sent_is_found_by_the_next_sweep(script: Script, no_broker: None) -> None:
    claim = make()
    write(claim, wake_at=NOW + seconds(5))
    dispatch.enqueue(claim)
    sweep.sweep()
    poll(lambda: row(claim).state == S.EXPENSED)
    poll(lambda: not any(sweep._running.values()))


# One at a time


def test_a_sweep_does_nothing_while_another_one_is_under_way(script: Script, broker: redis.Redis) -> None:
    claim = make()
    locked, may_end = threading.Event(), threading.Event()

    def another() -> None:
        with db.transaction() as session:
            assert due.only_one_sweeps(session)
            locked.set()
            may_end.wait(SECONDS)

    thread = threading.Thread(target=another)
    thread.start()
    try:
        assert locked.wait(SECONDS)
        sweep.sweep()
        assert sent(broker) == []
    finally:
        may_end.set()
        thread.join()
    sweep.sweep()
    assert sent(broker) == [claim]


# Without a broker


def test_without_a_broker_the_sweep_carries_rows_to_their_end_itself(script: Script, no_broker: None) -> None:
    claims = [make(), make(priority=0)]
    sweep.sweep()
    poll(lambda: {row(claim).state for claim in claims} == {S.EXPENSED})
    assert sorted(script.done) == ["add.do", "add.do", "create.do", "create.do"]
    poll(lambda: not any(sweep._running.values()))


def test_a_broker_that_goes_away_in_mid_delivery_leaves_the_rest_to_the_sweep(
    script: Script, monkeypatch: pytest.MonkeyPatch, broker: redis.Redis, redis_server: services.Redis
) -> None:
    urgent, other = make(priority=0), make()
    send = dispatch.send

    def goes_away(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        redis_server.kill()

    monkeypatch.setattr(dispatch, "send", goes_away)
    sweep.sweep()
    poll(lambda: row(other).state == S.EXPENSED)
    assert row(urgent).state == S.APPOINTMENT_FOUND  # its message was lost with the broker: found when it is due again


def test_no_more_rows_are_run_here_than_there_are_threads(
    script: Script, no_broker: None, set_settings: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[due.Due] = []
    monkeypatch.setattr(sweep, "_run_here", handed.extend)
    set_settings(WORKER_CONCURRENCY=2)
    claims = [make() for _ in range(4)]
    sweep.sweep()
    assert len(handed) == 2
    assert {one.id for one in handed} < set(claims)


def test_an_error_in_a_row_that_is_run_here_is_noted_and_hurts_nobody(
    script: Script, no_broker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make(), make()
    run = engine.run

    def sometimes(claim: UUID) -> None:
        if claim == bad:
            raise ZeroDivisionError
        run(claim)

    monkeypatch.setattr(engine, "run", sometimes)
    sweep.sweep()
    poll(lambda: row(good).state == S.EXPENSED)
    poll(lambda: not any(sweep._running.values()))
    assert row(bad).state == S.APPOINTMENT_FOUND


# Races


def test_of_twenty_simultaneous_takers_one_wins(script: Script) -> None:
    claim, together = make(), threading.Barrier(20)

    def taker() -> bool:
        together.wait(SECONDS)
        return take(claim, by=new_id()) is not None

    with ThreadPoolExecutor(20) as pool:
        won = [future.result() for future in [pool.submit(taker) for _ in range(20)]]
    assert sum(won) == 1
    assert row(claim).fence == 1


def test_of_rows_whose_holders_died_twice_one_runs_at_a_time_and_nobody_else_waits(script: Script) -> None:
    inside, may_end = threading.Event(), threading.Event()

    def hangs(record: Any, work: Any) -> Ok:
        inside.set()
        assert may_end.wait(SECONDS)
        return Ok()

    suspect, another, other = make(crashes=2), make(crashes=2), make()
    script.answers["create.do"] = [hangs]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(perform, suspect)
        try:
            assert inside.wait(SECONDS)
            assert not perform(another)
            assert not perform(another)
            left = row(another)
            assert perform(other)
        finally:
            may_end.set()
        running.result(SECONDS)
    assert (left.state, left.worker, left.fence, left.crashes) == (S.APPOINTMENT_FOUND, None, 0, 2)
    assert [(row(one).state, row(one).fence) for one in (suspect, another)] == [(S.CREATED, 1)] * 2


def test_an_error_in_one_suspect_leaves_the_turn_to_the_next(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make(crashes=2), make(crashes=2)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_run", Mock(side_effect=OSError("away")))
        with pytest.raises(OSError, match="away"):
            perform(first)
    perform(second)
    assert row(second).state == S.CREATED


def test_what_waits_for_its_turn_is_not_blamed_for_a_death(script: Script) -> None:
    culprit, another = make(crashes=2), make(crashes=2)
    inside, may_end = threading.Event(), threading.Event()

    def hangs(record: Any, work: Any) -> Ok:
        inside.set()
        may_end.wait(SECONDS)
        return Ok()

    script.answers["create.do"] = [hangs]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(perform, culprit)
        try:
            assert inside.wait(SECONDS)
            perform(another)
            with db.transaction() as session:
                session.execute(Worker.__table__.update().values(beat_at=NOW - seconds(60)))
            sweep.sweep()
            assert row(culprit).state == S.FAILED
            assert (row(another).state, row(another).crashes) == (S.APPOINTMENT_FOUND, 2)
        finally:
            may_end.set()


def test_after_a_gap_of_its_own_heartbeat_the_sweep_takes_nobody_for_dead(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = make()
    hold(claim, silent=60)
    monkeypatch.setattr(worker.pulse, "seconds", lambda: config.settings().lease_dead_seconds - 0.1)
    sweep.sweep()
    assert row(claim).worker
    monkeypatch.setattr(worker.pulse, "seconds", lambda: config.settings().lease_dead_seconds)
    sweep.sweep()
    assert (row(claim).worker, row(claim).crashes) == (None, 1)
