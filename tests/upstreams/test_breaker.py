"""The breaker: ten failures in a row open it for all workers, then one probe a second, and a success closes it."""

import time

import pytest

from app import errors
from app.upstreams import breaker
from app.upstreams.breaker import Breaker
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


def test_while_open_there_is_one_probe_a_second(state, monkeypatch):
    monkeypatch.setattr(breaker, "_PROBE_SECONDS", 0.3)
    one = Breaker("tested", state)
    fail(one, 10)
    assert [is_open(one) for _ in range(5)] == [False, True, True, True, True]
    time.sleep(0.35)
    assert [is_open(one) for _ in range(3)] == [False, True, True]


def test_a_success_closes_it_for_everybody(shared):
    first, second = Breaker("tested", shared), Breaker("tested", shared)
    fail(first, 5)
    fail(second, 5)
    assert [is_open(one) for one in (first, second, first)] == [False, True, True]
    second.succeeded()
    assert not is_open(second)
    assert not is_open(first)


def test_failures_of_others_are_noticed_soon(shared):
    first, second = Breaker("tested", shared), Breaker("tested", shared)
    assert not is_open(second)
    fail(first, 10)
    first.check()  # takes the probe
    time.sleep(0.25)
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
