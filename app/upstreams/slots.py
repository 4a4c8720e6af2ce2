"""How many calls to an upstream may be on their way at once, all workers together.

A set in Redis holds a lease per call; that of a process that died ends by itself. Without Redis each process keeps to
the number by itself.
"""

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Iterator

import redis

from app import errors, metrics, steps
from app.upstreams.shared import PREFIX, Shared

_SHORT = 2.0
_LOOK_SECONDS = 0.1
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]))
return 1
"""


class Slots:
    """`most` calls at once; 0 sets no limit. `lease`: seconds after which a call is over, whatever became of it."""

    def __init__(self, name: str, most: int, lease: float, shared: Shared) -> None:
        self._name = name
        self._most = most
        self._lease = lease
        self._shared = shared
        self._key = f"{PREFIX}slots:{name}"
        self._lock = threading.Lock()
        self._own: set[str] = set()

    @contextlib.contextmanager
    def taken(self, work: steps.Work) -> Iterator[None]:
        """A slot for the block, waited for up to 2 s. Raises NotSent where none becomes free."""
        if not self._most:
            yield
            return
        ticket = uuid.uuid4().hex
        try:
            self._wait(work, ticket)
            yield
        finally:
            self._free(ticket)

    def _wait(self, work: steps.Work, ticket: str) -> None:
        give_up = time.monotonic() + _SHORT
        while not self._take(ticket):
            if time.monotonic() + _LOOK_SECONDS > give_up:
                metrics.upstream_not_sent.labels(self._name, "limiter").inc()
                raise errors.NotSent("limiter", after=random.uniform(0.5, 1.5))
            work.renew()
            work.pause(_LOOK_SECONDS)

    def _take(self, ticket: str) -> bool:
        room: bool | None = None
        with contextlib.suppress(redis.RedisError):
            room = bool(
                self._shared.ask(lambda client: client.eval(_TAKE, 1, self._key, self._most, self._lease, ticket))
            )
        with self._lock:
            taken = len(self._own) < self._most if room is None else room
            if taken:
                self._own.add(ticket)
        return taken

    def _free(self, ticket: str) -> None:
        with self._lock:
            self._own.discard(ticket)
        with contextlib.suppress(redis.RedisError):
            self._shared.ask(lambda client: client.zrem(self._key, ticket))
