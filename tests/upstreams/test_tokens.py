"""The shared token: one mint for a burst of threads and processes, a paired life, and nothing that Redis can break."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
import time_machine

from app import crypto, errors, steps
from app.upstreams import tokens
from app.upstreams.shared import Shared
from local import services

START = 1_772_463_600.0


class Mint:
    """Gives `token-1`, `token-2`, ... and counts. `error` is raised instead; `hold` is waited for, `begun` is set."""

    def __init__(self, life=3600.0, seconds=0.0):
        self.life, self.seconds, self.count = life, seconds, 0
        self.error = None
        self.begun, self.hold = threading.Event(), threading.Event()
        self.hold.set()
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            self.count += 1
            number = self.count
        self.begun.set()
        assert self.hold.wait(60)
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        return f"token-{number}", self.life


pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture(params=["shared", "alone"])
def state(request, shared):
    return shared if request.param == "shared" else Shared(None)


def cache(state, identity="app"):
    return tokens.Cache(identity, "key", state)


def at(seconds):
    return time_machine.travel(START + seconds, tick=False)


def test_a_burst_of_threads_causes_one_mint(state):
    one, mint = cache(state), Mint(seconds=0.2)
    with ThreadPoolExecutor(50) as pool:
        found = set(pool.map(lambda _: one.get(mint).value, range(200)))
    assert (found, mint.count) == ({"token-1"}, 1)


def test_a_burst_over_several_caches_causes_one_mint(shared):
    """As in several processes: nothing but Redis is common to them."""
    mint = Mint(seconds=0.3)
    caches = [cache(Shared(url(shared))) for _ in range(5)]
    with ThreadPoolExecutor(50) as pool:
        found = set(pool.map(lambda number: caches[number % 5].get(mint).value, range(100)))
    assert (found, mint.count) == ({"token-1"}, 1)


PROCESS = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from app.upstreams import shared, tokens

shared._SECONDS = 20  # the machine may be busy
state = shared.Shared(sys.argv[1])
cache = tokens.Cache("processes", "key", state)

def mint():
    count = state.ask(lambda client: client.incr("mints"))
    time.sleep(0.5)
    return f"token-{count}", 3600.0

state.ask(lambda client: client.incr("ready"))
while state.ask(lambda client: client.get("ready")) != b"2":
    time.sleep(0.01)
with ThreadPoolExecutor(50) as pool:
    print(*sorted(set(pool.map(lambda _: cache.get(mint).value, range(50)))))
"""


def test_a_burst_over_processes_causes_one_mint(shared):
    command = [sys.executable, "-c", PROCESS, url(shared)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, text=True) for _ in range(2)]
    assert [process.communicate(timeout=100)[0] for process in running] == ["token-1\n"] * 2
    assert shared.ask(lambda client: client.get("mints")) == b"1"


def test_a_token_is_fresh_until_six_minutes_before_its_end(state):
    one, mint = cache(state), Mint()
    with at(0):
        one.get(mint)
    with at(3239):
        assert (one.get(mint).value, mint.count) == ("token-1", 1)
    with at(3241):
        assert (one.get(mint).value, mint.count) == ("token-2", 2)


def test_while_one_renews_the_others_use_the_old_token(state):
    one, mint = cache(state), Mint()
    with at(0):
        one.get(mint)
    mint.hold.clear()
    with at(3300), ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(lambda: one.get(mint).value) for _ in range(20)]
        try:
            others = [future.result() for future in islice(as_completed(asked, 60), 19)]
        finally:
            mint.hold.set()
        found = sorted(future.result() for future in asked)
    assert (others, found) == (["token-1"] * 19, ["token-1"] * 19 + ["token-2"])
    assert mint.count == 2


def test_while_another_process_renews_the_old_token_is_used(shared):
    first, second, mint = cache(shared), cache(shared), Mint()
    with at(0):
        first.get(mint)
        assert second.get(mint).value == "token-1"
    mint.begun.clear()
    mint.hold.clear()
    with at(3300), ThreadPoolExecutor(2) as pool:
        renewing = pool.submit(first.get, mint)
        try:
            assert mint.begun.wait(60)
            assert second.get(mint).value == "token-1"
        finally:
            mint.hold.set()
        assert renewing.result().value == "token-2"
        assert second.get(mint).value == "token-2"
    assert mint.count == 2


@pytest.mark.parametrize("error", [steps.Ended(steps.Retry(failure=None)), errors.NotSent("breaker")])
def test_a_renewal_that_fails_leaves_the_old_token_in_use_and_is_not_repeated_at_once(state, error):
    one, mint = cache(state), Mint()
    with at(0):
        one.get(mint)
    mint.error = error
    with at(3300):
        assert {one.get(mint).value for _ in range(5)} == {"token-1"}
    assert mint.count == 2


def test_after_the_renewal_time_the_old_token_is_used_by_nobody(state):
    one, mint = cache(state), Mint()
    with at(0):
        one.get(mint)
    mint.seconds = 0.3
    with at(3541), ThreadPoolExecutor(20) as pool:
        found = set(pool.map(lambda _: one.get(mint).value, range(20)))
    assert (found, mint.count) == ({"token-2"}, 2)


def test_life_is_counted_from_before_the_request(state):
    one = cache(state)
    with time_machine.travel(START, tick=False) as clock:

        def slow():
            clock.shift(50)
            return "token", 400.0

        assert one.get(slow).issued == START


def test_a_token_with_less_than_six_minutes_to_live_is_used_but_not_kept(state):
    one, mint = cache(state), Mint(life=359)
    assert [one.get(mint).value for _ in range(3)] == ["token-1", "token-2", "token-3"]


def test_those_who_waited_for_a_short_token_share_it(state, until):
    one, mint, waiting = cache(state), Mint(life=300, seconds=0.3), []
    mint.hold.clear()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(lambda: one.get(mint, waiting=lambda: waiting.append(1)).value) for _ in range(20)]
        try:
            until(lambda: len(waiting) == 20)
        finally:
            mint.hold.set()
        assert {future.result() for future in asked} == {"token-1"}


def test_a_refused_token_is_minted_anew_once_for_all(shared):
    first, second, mint = cache(shared), cache(shared), Mint()
    refused, same = first.get(mint), second.get(mint)
    first.evict(refused)
    assert first.get(mint).value == "token-2"
    second.evict(same)
    assert second.get(mint).value == "token-2"
    assert mint.count == 2


def test_what_is_refused_does_not_come_back_through_who_was_reading_it(shared, monkeypatch):
    one, mint = cache(shared), Mint()
    refused, opened = one.get(mint), tokens._open

    def read_while_it_is_refused(sealed):
        monkeypatch.setattr(tokens, "_open", opened)
        one.evict(refused)
        return opened(sealed)

    monkeypatch.setattr(tokens, "_open", read_while_it_is_refused)
    one.get(mint, seen="another")
    assert one.get(mint).value == "token-2"


def test_a_token_that_was_not_refused_stays(state):
    one, mint = cache(state), Mint()
    old = one.get(mint)
    one.evict(old)
    new = one.get(mint)
    one.evict(old)
    assert one.get(mint) == new
    assert mint.count == 2


def test_whoever_knows_another_token_makes_the_cache_look(shared):
    """A claim that was last served elsewhere, under a newer token, is not thrown back to the older one."""
    first, second, mint = cache(shared), cache(shared), Mint()
    old = first.get(mint)
    second.get(mint)
    second.evict(old)
    new = second.get(mint)
    assert first.get(mint).value == old.value
    assert first.get(mint, seen=new.fingerprint).value == new.value


def test_fingerprints_tell_tokens_apart_in_every_process_and_do_not_show_them(shared):
    mint = Mint()
    first, second = cache(shared).get(mint), cache(shared).get(mint)
    other = cache(Shared(None), "other").get(Mint(life=4000))
    assert first.fingerprint == second.fingerprint == other.fingerprint
    assert first.fingerprint != tokens.Cache("app", "another key", Shared(None)).get(Mint()).fingerprint
    assert len(first.fingerprint) == 16
    assert "token-1" not in repr(first)


def test_redis_holds_it_sealed(shared):
    cache(shared).get(lambda: ("a-very-visible-token", 3600.0))
    (key,) = shared.ask(lambda client: client.keys("*"))
    assert b"visible" not in shared.ask(lambda client: client.get(key))
    assert 3000 < shared.ask(lambda client: client.ttl(key)) <= 3600


def test_another_key_ring_or_nonsense_in_redis_means_a_mint(shared, monkeypatch):
    mint = Mint()
    cache(shared).get(mint)
    (key,) = shared.ask(lambda client: client.keys("*"))
    monkeypatch.setattr(crypto, "ring", lambda: crypto.KeyRing((b"x" * 32,)))
    assert cache(shared).get(mint).value == "token-2"
    shared.ask(lambda client: client.set(key, crypto.ring().seal(json.dumps({"a": 1}).encode())))
    assert cache(shared).get(mint).value == "token-3"
    shared.ask(lambda client: client.set(key, b"short"))
    assert cache(shared).get(mint).value == "token-4"


def test_without_redis_each_process_keeps_its_own(tmp_path):
    with services.Redis(tmp_path) as server:
        one, mint = cache(Shared(server.url)), Mint()
        server.stop()
        assert [one.get(mint).value for _ in range(3)] == ["token-1"] * 3
        assert cache(Shared(server.url)).get(mint).value == "token-2"


def test_a_holder_that_died_is_waited_for_ten_seconds_at_most(shared, monkeypatch):
    monkeypatch.setattr(tokens, "_WAIT_SECONDS", 0.5)
    one, mint, waits = cache(shared), Mint(), []
    shared.ask(lambda client: client.set(one._lock, "somebody"))
    started = time.monotonic()
    assert one.get(mint, waiting=lambda: waits.append(1)).value == "token-1"
    assert 0.4 < time.monotonic() - started < 20
    assert waits == [1]
    assert shared.ask(lambda client: client.get(one._lock)) == b"somebody"


def test_a_failed_mint_is_passed_on_and_the_next_caller_tries(state):
    one, mint = cache(state), Mint()
    mint.error = steps.Ended(steps.Retry(failure=None))
    with pytest.raises(steps.Ended):
        one.get(mint)
    mint.error = None
    assert one.get(mint).value == "token-2"


@pytest.mark.parametrize("seconds", [0, 3300, 3541])
def test_a_token_that_came_while_the_lock_was_taken_is_used(shared, monkeypatch, seconds):
    """Another process finished between our look and our lock: no second mint."""
    first, second, mint = cache(shared), cache(shared), Mint()
    if seconds:
        with at(0):
            first.get(mint)
    before, take = mint.count, first._take
    with at(seconds):
        monkeypatch.setattr(first, "_take", lambda: (second.get(mint), take())[1])
        assert first.get(mint).value == second.get(mint).value == f"token-{before + 1}"
    assert mint.count == before + 1


def test_an_older_token_in_redis_does_not_replace_a_newer_one(shared):
    one, mint = cache(shared), Mint()
    old = one.get(mint)
    newer = tokens.Token("newer", "f", old.issued + 5, old.life)
    one._kept = newer
    assert one.get(mint, seen="another") == newer


def url(shared):
    known = shared.pool.connection_kwargs
    return f"redis://{known['host']}:{known['port']}/{known.get('db', 0)}"
