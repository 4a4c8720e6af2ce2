"""The limit is shared by all workers, keeps a fifth for the urgent, and fails open."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import errors
from app.upstreams.limits import Limiter
from app.upstreams.shared import Shared
from local import services
from tests.upstreams.conftest import IN_TIME


def passed(limiter, work, tries=200):
    """How many calls go through at once."""
    for count in range(tries):
        try:
            limiter.pass_through(work)
        except errors.NotSent as stop:
            return count if stop.reason == "limiter" and 0 < stop.after <= 62 else -1
    return tries


@pytest.fixture(params=["shared", "alone"])
def state(request, shared):
    return shared if request.param == "shared" else Shared(None)


def test_others_stay_within_four_fifths_and_the_urgent_have_the_rest(state, work):
    limiter = Limiter("limited", 60, state)
    assert passed(limiter, work) == 48
    work.urgent = True
    assert passed(limiter, work) == 12


def test_the_urgent_may_have_it_all_and_leave_nothing(state, work):
    limiter = Limiter("limited", 60, state)
    work.urgent = True
    assert passed(limiter, work) == 60
    work.urgent = False
    assert passed(limiter, work) == 0


def test_it_tells_how_many_calls_could_pass_soon(state, work):
    limiter = Limiter("limited", 60, state)
    assert limiter.calls() == 48
    limiter.pass_through(work)
    assert limiter.calls() == 47
    passed(limiter, work)
    assert limiter.calls() == 0  # the next one could pass in a minute
    assert Limiter("unlimited", 0, state).calls() == math.inf
    per_second = Limiter("quick", 0, state, per_second=10)
    passed(per_second, work, tries=8)
    assert 16 <= per_second.calls() <= 24
    per_second.close(5)
    assert per_second.calls() == 0


def test_calls_refused_for_want_of_the_whole_use_up_nothing_of_the_rest(work):
    limiter = Limiter("limited", 60, Shared(None))
    work.urgent = True
    passed(limiter, work)
    work.urgent = False
    passed(limiter, work)
    assert limiter._own.get_window_stats(limiter._rest, "limited", "rest").remaining == 48


def test_all_workers_share_one_limit(shared, work):
    first, second = Limiter("limited", 60, shared), Limiter("limited", 60, Shared(shared_url(shared)))
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda one: passed(one, work), [first, second] * 4))
    assert sum(counts) == 48
    assert passed(Limiter("another", 60, shared), work) == 48


def test_a_limit_per_second_keeps_a_fifth_too_and_is_free_again_after_one(state, work):
    limiter = Limiter("quick", 0, state, per_second=10)
    started = time.monotonic()
    for _ in range(8):
        limiter.pass_through(work)
    assert "pause" not in work.asked
    limiter.pass_through(work)
    assert 0.8 < time.monotonic() - started < IN_TIME
    pauses = work.asked.count("pause")
    work.urgent = True
    for _ in range(2):
        limiter.pass_through(work)
    assert work.asked.count("pause") == pauses


def test_those_who_wait_do_not_come_in_waves(shared, work):
    """Eight at once and eight at once a second later could arrive within a second."""
    limiter = Limiter("limited", 0, shared, per_second=10)
    limits = [Limiter("limited", 0, Shared(shared_url(shared)), per_second=10) for _ in range(8)]
    assert passed(limiter, work, tries=8) == 8

    def waited(one):
        one.pass_through(work)
        return time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        moments = sorted(pool.map(waited, limits))
    assert moments[-1] - moments[0] > 0.1


def test_without_a_limit_everything_passes(state, work):
    assert passed(Limiter("free", 0, state), work, tries=500) == 500


def test_a_closed_limiter_lets_nobody_through_in_any_process(shared, work):
    work.urgent = True
    first, second = Limiter("closed", 0, shared), Limiter("closed", 0, shared)
    first.close(50)
    for limiter in (first, second):
        with pytest.raises(errors.NotSent) as stop:
            limiter.pass_through(work)
        assert 20 < stop.value.after < 51


def test_a_short_wait_is_waited_for_and_the_lease_is_renewed(state, work):
    limiter = Limiter("short", 0, state)
    limiter.close(1.5)
    started = time.monotonic()
    limiter.pass_through(work)
    assert time.monotonic() - started < IN_TIME
    assert work.asked[:2] == ["renew", "pause"]


def test_redis_away_slow_or_flushed_costs_little_and_stops_nobody(work, tmp_path):
    with services.Redis(tmp_path) as server:
        limiter = Limiter("limited", 60, Shared(server.url))
        assert passed(limiter, work) == 48
        flushed = Shared(server.url)
        flushed.ask(lambda client: client.flushall())
        assert passed(limiter, work) == 48
        flushed.pool.disconnect()
        server.stop()
        started = time.monotonic()
        assert passed(limiter, work) == 48
        assert time.monotonic() - started < IN_TIME


def test_a_redis_that_hangs_is_given_a_fifth_of_a_second(work, tmp_path, server):
    del tmp_path
    server.wrap = lambda conn: (server.over.wait(100), conn)[1]
    limiter = Limiter("limited", 60, Shared(f"redis://127.0.0.1:{server.port}/0"))
    started = time.monotonic()
    assert passed(limiter, work) == 48
    assert time.monotonic() - started < IN_TIME
    assert server.connections < IN_TIME  # it is left alone for a second each time


def shared_url(shared):
    known = shared.pool.connection_kwargs
    return f"redis://{known['host']}:{known['port']}/{known.get('db', 0)}"
