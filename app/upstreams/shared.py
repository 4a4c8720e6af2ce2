"""What the processes of all hosts share about an upstream, in Redis; never the truth about anything.

Redis may be flushed, slow or gone at any moment: whoever asks gets a RedisError within a fraction of a second and goes
on with what this process knows.
"""

import functools
import time
from collections.abc import Callable
from typing import TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import config, metrics, states

PREFIX = "throughline:"
_SECONDS = 0.2
_REST = 1.0
T = TypeVar("T")


class Shared:
    """A Redis that may be away; without `url` nothing is shared, as if it were away for good.

    After a failure it is left alone for a second, so that calls do not queue up for it.
    """

    def __init__(self, url: str | None, connections: int = 64) -> None:
        self.pool = _pool(url, connections) if url else None
        self._client = redis.Redis(connection_pool=self.pool) if self.pool else None
        self._away_until = 0.0

    def ask(self, command: Callable[[redis.Redis], T]) -> T:
        """What the command answers. Raises RedisError, at once while Redis is known to be away."""
        if self._client is None or time.monotonic() < self._away_until:
            raise redis.ConnectionError("Redis is not there")
        try:
            return command(self._client)
        except (redis.ConnectionError, redis.TimeoutError):
            self._away_until = time.monotonic() + _REST
            metrics.redis_away.inc()
            raise


def _pool(url: str, connections: int) -> redis.ConnectionPool:
    return redis.ConnectionPool.from_url(
        url,
        max_connections=connections,
        socket_timeout=_SECONDS,
        socket_connect_timeout=_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


@functools.cache
def of_process() -> Shared:
    """The shared state of this process's settings."""
    settings = config.settings()
    threads = len(states.MACHINES) * settings.worker_concurrency  # twice as many while the sweep runs work itself
    return Shared(settings.redis_url, 2 * threads + 8)
