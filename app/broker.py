"""A mend of kombu 5.7, for every process that sends or reads messages: a Redis channel keeps its client.

kombu makes a client anew for each command, and making one costs more than the command. A client holds no connection: it
takes one from the channel's pool for each command, and may be shared by threads.
"""

from typing import Any

from kombu.transport import redis as transport

_own_client: Any = transport.Channel._create_client  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other place


def _kept_client(self: Any, asynchronous: bool = False) -> Any:
    if asynchronous:  # made once by kombu itself, with a pool of its own
        return _own_client(self, asynchronous=True)
    pool, kept = self.pool, vars(self).get("kept_client")  # a channel that was closed has another pool, or none
    if kept is None or kept.connection_pool is not pool:
        kept = self.kept_client = _own_client(self)
    return kept


def install() -> None:
    """Mend kombu's Redis channel in this process."""
    transport.Channel._create_client = _kept_client  # type: ignore[attr-defined]  # noqa: SLF001 - the same
