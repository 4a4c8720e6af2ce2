"""The rate limit of an upstream, and how long it asked to be left alone.

Shared by all workers through Redis; without Redis each process keeps to the limit by itself. A fifth of the limit is
kept for calls somebody waits for: other calls stay within the rest.
"""

import contextlib
import math
import random
import threading
import time

import limits
import redis
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter

from app import errors, metrics, steps
from app.upstreams.shared import PREFIX, Shared

_SHORT = 2.0
_SPREAD_SECONDS = 0.5  # among those who wait: let through all at once, waves of them would run into one another
_LOOK_SECONDS = 0.2


class Limiter:
    """`pass_through` before a call; `close` when the upstream says to wait.

    The limit of our own is so many calls per second, or else per minute; 0 sets none.
    """

    def __init__(self, name: str, per_minute: int, shared: Shared, *, per_second: int = 0) -> None:
        self._name = name
        self._shared = shared
        item = limits.RateLimitItemPerSecond if per_second else limits.RateLimitItemPerMinute
        most = per_second or per_minute
        self._all = item(most) if most else None
        self._rest = item(most - most // 5) if most else None
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._common = MovingWindowRateLimiter(_storage(shared))
        self._closed_key = f"{PREFIX}closed:{name}"
        self._closed_until = 0.0
        self._look_again = 0.0
        self._lock = threading.Lock()

    def pass_through(self, work: steps.Work) -> None:
        """Take one call from the limit, waiting up to 2 s for it. Raises NotSent where the wait would be longer."""
        give_up = time.monotonic() + _SHORT
        while (wait := self._wait(work.urgent)) > 0:
            if time.monotonic() + wait > give_up:
                reason = "rate-limited" if self._closed_until > time.time() else "limiter"
                metrics.upstream_not_sent.labels(self._name, reason).inc()
                raise errors.NotSent(reason, after=wait + random.uniform(0, 0.5))
            work.renew()
            work.pause(wait if work.urgent else wait + random.uniform(0, _SPREAD_SECONDS))

    def calls(self) -> float:
        """How many calls that nobody waits for could pass within the next 2 s."""
        if self._closed() > 0:
            return 0
        if self._rest is None:
            return math.inf
        try:
            return self._shared.ask(lambda _: self._passable(self._common))
        except redis.RedisError:
            return self._passable(self._own)

    def _passable(self, window: MovingWindowRateLimiter) -> float:
        if self._rest is None:
            return math.inf
        reset, remaining = window.get_window_stats(self._rest, self._name, "rest")
        if (expiry := self._rest.get_expiry()) <= _SHORT:
            return remaining + _SHORT * self._rest.amount / expiry
        return remaining or int(reset - time.time() <= _SHORT)

    def close(self, seconds: float) -> None:
        """Let no call through for so long; other processes notice within 0.2 s."""
        with self._lock:
            until = self._closed_until = max(self._closed_until, time.time() + seconds)
        left = max(1, int((until - time.time()) * 1000))
        with contextlib.suppress(redis.RedisError):
            self._shared.ask(lambda client: client.set(self._closed_key, until, px=left))

    def _wait(self, urgent: bool) -> float:
        """Seconds to wait; 0 when one call was taken."""
        closed = self._closed()
        if closed > 0 or self._all is None:
            return max(closed, 0.0)
        try:
            return self._shared.ask(lambda _: self._take(self._common, urgent))
        except redis.RedisError:
            return self._take(self._own, urgent)

    def _closed(self) -> float:
        """Seconds for which the upstream asked to be left alone, as last heard."""
        if time.monotonic() >= self._look_again:
            with contextlib.suppress(redis.RedisError):
                self._closed_until = self._shared.ask(lambda client: float(client.get(self._closed_key) or 0))
            self._look_again = time.monotonic() + _LOOK_SECONDS
        return self._closed_until - time.time()

    def _take(self, window: MovingWindowRateLimiter, urgent: bool) -> float:
        """As `_wait`, of this window. A call that is not urgent takes from the rest and from all."""
        if self._all is None or self._rest is None:
            return 0.0
        if not urgent:
            if not window.test(self._all, self._name):
                return _until_free(window, self._all, self._name)
            if not window.hit(self._rest, self._name, "rest"):
                return _until_free(window, self._rest, self._name, "rest")
        return 0.0 if window.hit(self._all, self._name) else _until_free(window, self._all, self._name)


def _until_free(window: MovingWindowRateLimiter, item: limits.RateLimitItem, *names: str) -> float:
    return max(window.get_window_stats(item, *names).reset_time - time.time(), 0.05)


def _storage(shared: Shared) -> MemoryStorage | RedisStorage:
    if shared.pool is None:
        return MemoryStorage()
    return RedisStorage("redis://", connection_pool=shared.pool, key_prefix=f"{PREFIX}limit")
