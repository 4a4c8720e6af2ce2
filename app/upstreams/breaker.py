"""The breaker of an upstream: after ten failed calls in a row, one probe a second until one succeeds.

The count is shared by all workers through Redis; without Redis each process counts for itself. Two keys per upstream:
the failures in a row, and the present second's probe.
"""

import contextlib
import random
import threading
import time

import redis

from app import errors, metrics
from app.upstreams.shared import PREFIX, Shared

_FAILURES = 10
_PROBE_SECONDS = 1.0
_FORGET_SECONDS = 600
_LOOK_SECONDS = 0.2


class Breaker:
    """`check` before a call, then `failed` or `succeeded`. A refusal (4xx) is a success here: somebody answered."""

    def __init__(self, name: str, shared: Shared) -> None:
        self._name = name
        self._shared = shared
        self._count, self._probe = f"{PREFIX}breaker:{name}:failures", f"{PREFIX}breaker:{name}:probe"
        self._lock = threading.Lock()
        self._failures = 0
        self._next_probe = 0.0
        self._look_again = 0.0
        self._open = metrics.upstream_breaker_open.labels(name)

    def check(self) -> None:
        """Pass if a call may be made. Raises NotSent while open, but for one probe a second.

        What other processes counted is noticed within 0.2 s.
        """
        if self._failures < _FAILURES and time.monotonic() < self._look_again:
            return
        try:
            wait = self._shared.ask(self._shared_wait)
        except redis.RedisError:
            wait = self._own_wait()
        if wait > 0:
            metrics.upstream_not_sent.labels(self._name, "breaker").inc()
            raise errors.NotSent("breaker", after=wait + random.uniform(0, 0.5))

    def failed(self) -> None:
        """Count a failed call: 5xx, no answer in time, no connection or a broken one."""
        with self._lock:
            self._failures += 1
        with contextlib.suppress(redis.RedisError):
            self._failures = self._shared.ask(self._count_up)
        self._open.set(self._failures >= _FAILURES)

    def succeeded(self) -> None:
        """Close it. Costs nothing while there was no failure."""
        if not self._failures:
            return
        self._failures = 0
        self._open.set(0)
        with contextlib.suppress(redis.RedisError):
            self._shared.ask(lambda client: client.delete(self._count, self._probe))

    def _shared_wait(self, client: redis.Redis) -> float:
        self._failures = int(client.get(self._count) or 0)
        self._open.set(self._failures >= _FAILURES)
        self._look_again = time.monotonic() + _LOOK_SECONDS
        if self._failures < _FAILURES or client.set(self._probe, 1, nx=True, px=int(_PROBE_SECONDS * 1000)):
            return 0.0
        return max(client.pttl(self._probe), 1) / 1000

    def _own_wait(self) -> float:
        with self._lock:
            now = time.monotonic()
            if self._failures < _FAILURES:
                return 0.0
            if now < self._next_probe:
                return self._next_probe - now
            self._next_probe = now + _PROBE_SECONDS
            return 0.0

    def _count_up(self, client: redis.Redis) -> int:
        with client.pipeline(transaction=True) as pipe:
            pipe.incr(self._count)
            pipe.expire(self._count, _FORGET_SECONDS)
            return int(pipe.execute()[0])
