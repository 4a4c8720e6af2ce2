"""The breaker: failures in a row open it for all workers, then one probe at a time goes, and a success closes it."""

import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from app import errors
from app.upstreams import breaker
from app.upstreams.breaker import Breaker, Rule
from app.upstreams.shared import Shared
from local import services


def is_open(one):
    """Whether a call is refused; takes the probe if there is one."""
    try:
        one.check()
    except errors.NotSent as stop:
        return stop.reason == "breaker" and 0 < stop.after <= 1.5
    return False


@pytest.fixture(params=["shared", "alone"])
def state(request, shared):
    return shared if request.param == "shared" else Shared(None)


def fail(one, times):
    for _ in range(times):
        one.failed()


def test_nine_failures_do_not_open_it_and_a_success_forgets_them(state):
    one = Breaker("tested", state)
    fail(one, 9)
    assert not is_open(one)
    one.succeeded()
    fail(one, 9)
    assert not is_open(one)
    assert not is_open(one)


def test_while_open_there_is_one_probe_a_second(state, at):
    one = Breaker("tested", state, Rule(probe=0.3))
    fail(one, 10)
    assert [is_open(one) for _ in range(5)] == [False, True, True, True, True]
    at(0.35)
    assert [is_open(one) for _ in range(3)] == [False, True, True]


def test_a_success_closes_it_for_everybody(shared):
    first, second = Breaker("tested", shared), Breaker("tested", shared)
    fail(first, 5)
    fail(second, 5)
    assert [is_open(one) for one in (first, second, first)] == [False, True, True]
    second.succeeded()
    assert not is_open(second)
    assert not is_open(first)


def test_failures_of_others_are_noticed_soon(shared, at):
    first, second = Breaker("tested", shared), Breaker("tested", shared)
    assert not is_open(second)
    fail(first, 10)
    first.check()  # takes the probe
    at(0.25)
    assert is_open(second)


def test_upstreams_do_not_share_a_breaker(shared):
    one, other = Breaker("one", shared), Breaker("other", shared)
    fail(one, 30)
    is_open(one)
    assert is_open(one)
    assert not any(is_open(other) for _ in range(3))


def test_redis_away_leaves_each_process_its_own(tmp_path):
    with services.Redis(tmp_path) as server:
        one = Breaker("tested", Shared(server.url))
        fail(one, 4)
        server.stop()
        fail(one, 6)
        assert [is_open(one) for _ in range(3)] == [False, True, True]


def test_a_flushed_redis_closes_it(shared):
    one = Breaker("tested", shared)
    fail(one, 10)
    shared.ask(lambda client: client.flushall())
    assert not any(is_open(one) for _ in range(3))


def test_the_gauge_shows_it(state):
    one = Breaker("gauged", state)
    value = breaker.metrics.upstream_breaker_open.labels("gauged")._value
    fail(one, 10)
    assert value.get() == 1
    one.succeeded()
    assert value.get() == 0


# With rules of their own.

RULE = Rule(failures=3, waits=(30.0, 60.0, 100.0), probe=35.0, spread=0.0)


@pytest.fixture(autouse=True)
def at(monkeypatch):
    """A clock of ours, that stands still: `at(seconds)` goes on by so much."""
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(breaker, "time", SimpleNamespace(time=lambda: now.time, monotonic=lambda: now.time))

    def go_on(seconds):
        now.time += seconds

    return go_on


def held_back(one):
    """The seconds a call is held back for."""
    with pytest.raises(errors.NotSent) as stop:
        one.check()
    assert stop.value.reason == "breaker"
    return stop.value.after


def test_it_stays_open_for_its_time_and_after_each_failed_probe_longer_up_to_the_longest(state, at):
    one = Breaker("ruled", state, RULE)
    fail(one, 3)
    for wait in (30, 60, 100, 100):
        assert held_back(one) == pytest.approx(wait)
        at(wait - 1)
        assert held_back(one) == pytest.approx(1)
        at(1)
        one.failed(one.check())
    at(100)
    one.check()
    one.succeeded()
    fail(one, 3)
    assert held_back(one) == pytest.approx(30)


def test_nobody_else_probes_while_a_probe_is_on_its_way(state, at):
    one, other = Breaker("ruled", state, RULE), Breaker("ruled", state, RULE)
    fail(one, 3)
    at(30)
    ticket = one.check()
    assert ticket
    for each in (one, other) if state.pool else (one,):
        assert 0 < held_back(each) <= 5
    at(34)
    assert held_back(one) == pytest.approx(1)
    at(1)
    later = one.check()
    assert later not in ("", ticket)


def test_a_probe_that_came_to_nothing_is_let_go_for_the_next_one(state, at):
    one = Breaker("ruled", state, RULE)
    fail(one, 3)
    at(30)
    one.let_go(one.check())
    assert one.check()
    held_back(one)
    one.let_go("")
    one.let_go("of another probe")
    held_back(one)


def test_failures_of_calls_sent_before_the_opening_prolong_nothing(state, at):
    one = Breaker("ruled", state, RULE)
    fail(one, 3)
    at(20)
    fail(one, 5)
    one.failed("of an earlier probe")
    assert held_back(one) == pytest.approx(10)


def test_open_for_tells_how_long_without_taking_the_probe(state, at):
    one = Breaker("ruled", state, RULE)
    assert one.open_for() == 0
    fail(one, 3)
    assert one.open_for() == pytest.approx(30)
    at(30)
    assert one.open_for() == one.open_for() == 0
    one.check()
    assert 0 < one.open_for() <= 5
    one.succeeded()
    assert one.open_for() == 0


def test_it_tells_how_many_calls_it_would_let_through(state, at):
    one = Breaker("ruled", state, RULE)
    assert one.calls() == math.inf
    fail(one, 3)
    assert one.calls() == 0
    at(30)
    assert one.calls() == one.calls() == 1
    one.check()
    assert one.calls() == 0
    one.succeeded()
    assert one.calls() == math.inf


def test_a_clock_that_was_set_back_does_not_keep_it_open(state, at):
    one = Breaker("ruled", state, RULE)
    fail(one, 3)
    at(-3600)
    assert one.check()


def test_opening_and_closing_are_logged_once_and_told(*, state, at, caplog):
    caplog.set_level("INFO")
    told = []
    one = Breaker("ruled", state, RULE, told.append)
    fail(one, 5)
    at(30)
    one.check()
    one.succeeded()
    records = [(record.levelname, record.msg["event"]) for record in caplog.records]
    assert records == [("WARNING", "upstream.breaker_opened"), ("INFO", "upstream.breaker_closed")]
    assert list(dict.fromkeys(told)) == [0, 2, 1]
    assert told[-1] == 0


@pytest.mark.parametrize(("first", "waits"), [(30, (30, 60, 120, 240, 300)), (300, (300,)), (400, (400,))])
def test_waits_double_up_to_the_longest(first, waits):
    assert breaker.doubling(first, 300) == waits


def test_many_threads_make_one_probe_and_one_opening(shared, at, caplog):
    caplog.set_level("INFO")
    one = Breaker("ruled", shared, RULE)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: one.failed(), range(8)))
        at(30)
        probes = list(pool.map(lambda _: not is_refused(one), range(16)))
    assert (probes.count(True), len(caplog.records)) == (1, 1)


def is_refused(one):
    try:
        one.check()
    except errors.NotSent:
        return True
    return False
