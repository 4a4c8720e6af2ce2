"""Two mends of the libraries, for a worker that outlives its broker. Both are for kombu 5.7 and celery 5.7.

When the connection of a busy worker breaks, kombu restores what was not acknowledged over a channel whose connection is
closed already, and fails on an attribute of None, which ends the worker; told as what it is, it is survived. And the
waits between attempts to connect again grow up to half a minute; a worker should be back within a second or two.
"""

from functools import partial
from typing import Any

import redis
from celery.worker import consumer
from kombu.transport import redis as transport

RETRY_SECONDS = 1
_own_parameters: Any = transport.Channel._connparams  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other place


class Consumer(consumer.Consumer):
    """Celery's consumer, which tries once a second to get its broker back."""

    def ensure_connected(self, conn: Any) -> Any:
        steady = partial(
            conn.ensure_connection, interval_start=RETRY_SECONDS, interval_step=0, interval_max=RETRY_SECONDS
        )
        conn.ensure_connection = steady
        return super().ensure_connected(conn)


def _parameters(self: Any, *args: Any, **more: Any) -> Any:
    if self.connection is None or self.connection.client is None:
        raise redis.ConnectionError("the connection of this channel is closed")
    return _own_parameters(self, *args, **more)


def install() -> None:
    """Mend kombu's Redis channel in this process."""
    transport.Channel._connparams = _parameters  # type: ignore[attr-defined]  # noqa: SLF001 - the same
