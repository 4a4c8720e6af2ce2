"""The only code that enqueues: the Celery app object, and how a workflow's remaining steps are sent.

A message holds an id, never data; losing, doubling or forging one is harmless. Sending gives up after 0.2 s when the
broker is away (in a worker after 2 s, 10 s if it hangs): the sweep delivers. `tasks.celery` adds the worker's settings
and the task modules to the same object.
"""

import functools
import time
from collections.abc import Sequence
from uuid import UUID

import redis
from celery import Celery, chain, signature
from kombu import Queue
from kombu.exceptions import OperationalError

from app import config, errors

WAITING, WORK = "waiting", "work"  # somebody waits for the first; both are read, the first one first
QUEUES = {0: WAITING, 1: WORK}
MOST_WAITING = 200  # messages per queue: what waits there longer than REDISPATCH_SECONDS would be sent again
GIVE_UP_SECONDS = 0.2
_AWAY_SECONDS = 1.0  # after a failure, do not try again for so long: a caller must not wait 0.2 s each time

_away = {"until": 0.0}  # by the monotonic clock


@functools.cache
def celery() -> Celery:
    """The Celery app of this process, set up for sending. Connects to nothing yet."""
    broker = config.settings().broker
    app = Celery("throughline", broker=broker, set_as_current=True)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_send_sent_event=True,
        task_default_queue=WORK,
        # A routing key each: with the default one, every message would go to both queues.
        task_queues=[Queue(name, routing_key=name) for name in QUEUES.values()],
        task_create_missing_queues=False,
        task_publish_retry=False,
        broker_connection_timeout=GIVE_UP_SECONDS,
        broker_pool_limit=32,
        broker_transport_options={
            "socket_connect_timeout": GIVE_UP_SECONDS,
            "socket_timeout": GIVE_UP_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_connections": 256,
            "retry_on_timeout": False,
            "max_retries": 0,
        },
    )
    return app


def send(tasks: Sequence[str], workflow_id: UUID, *, priority: int) -> None:
    """Enqueue the chain of these tasks, by name, for one workflow. Raises BrokerAway, at once while it is known."""
    if time.monotonic() < _away["until"]:
        raise errors.BrokerAway("the broker was away a moment ago")
    links = [
        signature(name, args=(str(workflow_id),), immutable=True, queue=QUEUES[priority], app=celery())
        for name in tasks
    ]
    try:
        chain(*links, app=celery()).apply_async(retry=False)
    except (OperationalError, redis.RedisError, OSError) as error:
        _away["until"] = time.monotonic() + _AWAY_SECONDS
        raise errors.BrokerAway(type(error).__name__) from error


@functools.cache
def _counter() -> redis.Redis:
    return redis.Redis.from_url(
        config.settings().broker, socket_timeout=GIVE_UP_SECONDS, socket_connect_timeout=GIVE_UP_SECONDS
    )


def room() -> dict[int, int]:
    """How many more messages each queue may take, by priority. Raises BrokerAway."""
    try:
        return {priority: MOST_WAITING - int(_counter().llen(name)) for priority, name in QUEUES.items()}
    except redis.RedisError as error:
        raise errors.BrokerAway(type(error).__name__) from error
