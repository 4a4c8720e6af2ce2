"""What kombu's Redis channel does with its client, mended and closed. Against a real Redis."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection
from kombu.transport.redis import Channel

from app import broker
from local import services
from tasks import reconnecting


@pytest.fixture
def channel(redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A channel as a worker has it."""
    redis_server.start()
    for name in ("_create_client", "_connparams"):
        monkeypatch.setattr(Channel, name, getattr(Channel, name))
    broker.install()
    reconnecting.install()
    with Connection(redis_server.url) as connection:
        yield connection.channel()


def test_a_channel_makes_one_client_for_all_its_commands(channel: Any) -> None:
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
        assert first.ping()


def test_the_client_that_reads_is_not_the_one_that_sends(channel: Any) -> None:
    with channel.conn_or_acquire() as sends:
        assert channel.client is not sends
        assert channel.client.connection_pool is not sends.connection_pool


def test_a_channel_with_a_new_pool_has_a_new_client(channel: Any) -> None:
    with channel.conn_or_acquire() as before:
        channel._disconnect_pools()
    with channel.conn_or_acquire() as after:
        assert after is not before
        assert after.connection_pool is channel.pool


def test_a_closed_channel_does_not_come_back_with_the_client_that_it_had(channel: Any) -> None:
    with channel.conn_or_acquire():
        channel._disconnect_pools()
    channel.connection.client = None
    with pytest.raises(redis.ConnectionError), channel.conn_or_acquire():
        pytest.fail("it has no connection")
