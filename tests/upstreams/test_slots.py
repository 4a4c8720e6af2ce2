"""So many calls at once over all workers; a holder that died is forgotten, and Redis away stops nobody."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from app import errors
from app.upstreams import slots
from app.upstreams.shared import Shared
from app.upstreams.slots import Slots
from local import services


@pytest.fixture(params=["shared", "alone"])
def state(request, shared):
    return shared if request.param == "shared" else Shared(None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(slots, "_SHORT", 0.05)
    monkeypatch.setattr(slots, "_LOOK_SECONDS", 0.02)


def is_full(one, work):
    try:
        with one.taken(work):
            return False
    except errors.NotSent as stop:
        return stop.reason == "limiter" and 0 < stop.after < 2


def test_a_slot_is_held_for_the_block_and_free_after_it_whatever_happens(state, work):
    one = Slots("slotted", 2, 30, state)
    with ExitStack() as held:
        held.enter_context(one.taken(work))
        with pytest.raises(ZeroDivisionError), one.taken(work):
            1 / (not is_full(one, work))  # full, so this divides by zero
        assert not is_full(one, work)
    assert "renew" in work.asked


def test_a_call_that_got_no_slot_frees_none(state, work):
    one = Slots("slotted", 1, 30, state)
    with one.taken(work):
        assert is_full(one, work)
        assert is_full(one, work)


def test_all_workers_share_the_slots_of_an_upstream(shared, new_work, monkeypatch):
    workers = [Slots("slotted", 3, 30, shared) for _ in range(2)]
    inside, most, lock = [], [], threading.Lock()

    def call(one):
        with one.taken(new_work()):
            with lock:
                inside.append(one)
                most.append(len(inside))
            time.sleep(0.01)
            with lock:
                inside.pop()

    monkeypatch.setattr(slots, "_SHORT", 60)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(call, workers * 12))
    assert (max(most), len(most)) == (3, 24)
    with workers[0].taken(new_work()):
        assert not is_full(Slots("another", 1, 30, shared), new_work())


def test_the_slot_of_a_process_that_died_is_free_after_the_longest_call(shared, work, until):
    dead = Slots("slotted", 1, 2, shared)
    dead._take("never freed")
    other = Slots("slotted", 1, 30, shared)
    assert is_full(other, work)
    until(lambda: not is_full(other, work))


def test_redis_away_leaves_each_process_its_own_number(work, tmp_path):
    with services.Redis(tmp_path) as server:
        one = Slots("slotted", 2, 30, Shared(server.url))
        with one.taken(work):
            server.stop()
            with one.taken(work):
                assert is_full(one, work)
            assert not is_full(one, work)


def test_no_number_sets_no_limit(state, work):
    one = Slots("free", 0, 0, state)
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(one.taken(work))
