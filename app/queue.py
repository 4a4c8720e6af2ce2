"""The only code that enqueues: the Celery app object, and how a workflow's remaining steps are sent.

A message holds an id, never data; losing, doubling or forging one is harmless. Sending gives up after 0.2 s when the
broker is away (in a worker after 2 s, 10 s if it hangs): the sweep delivers. `tasks.celery` adds the worker's settings
and the task modules to the same object.

Each kind of workflow has a queue of its own, so that a backlog of one delays no other. Within it comes first what
somebody waits for, then what is begun, then the next one of each client, then what is new: a backlog waits as rows, not
as half-done work, and nobody's first waits behind another's many.
"""

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from uuid import UUID

import redis
from celery import Celery, chain, signature
from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel

from app import broker, config, errors, states


class Rank(IntEnum):
    """A message's place in its queue, as the broker's priority: the lowest number is read first."""

    WAITED_FOR = 0
    BEGUN = 3
    NEXT = 5
    NEW = 6


JOBS = "jobs"  # the calendar's
QUEUES = (*states.MACHINES, JOBS)
MOST_WAITING = 32  # messages per queue that are begun or new, and as many that are waited for; the rest waits as rows
GIVE_UP_SECONDS = 0.2
_AWAY_SECONDS = 1.0  # after a failure, do not try again for so long: a caller must not wait 0.2 s each time
_COUNT_AGAIN_SECONDS = 0.2
_BACKLOG = "throughline:backlog:"
UPSTREAM, FULL = "upstream", "full"  # why more waits as rows: its upstream takes no more now, or its queue is full

_away = {"until": 0.0}  # by the monotonic clock
Room = dict[tuple[str, int], int]


@functools.cache
def celery() -> Celery:
    """The Celery app of this process, set up for sending. Connects to nothing yet."""
    broker.install()
    app = Celery("throughline", broker=config.settings().broker, set_as_current=True)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_send_sent_event=True,
        task_default_queue=JOBS,
        # A routing key each: with the default one, every message would go to all queues.
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
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
            "priority_steps": list(Rank),
        },
    )
    return app


def send(to: str, tasks: Sequence[str], workflow_id: UUID, rank: Rank) -> None:
    """Enqueue the chain of these tasks, by name, for one workflow. Raises BrokerAway, at once while it is known.

    `to` is the queue; `rank` the first message's: those that follow it are begun.
    """
    _fail_if_known_away()
    links = [
        signature(
            name, args=(str(workflow_id),), immutable=True, queue=to,
            priority=min(rank, Rank.BEGUN) if number else rank, app=celery(),
        )
        for number, name in enumerate(tasks)
    ]  # fmt: skip
    try:
        chain(*links, app=celery()).apply_async(retry=False)
    except (OperationalError, redis.RedisError, OSError) as error:
        raise _away_now(error) from error


def _fail_if_known_away() -> None:
    if time.monotonic() < _away["until"]:
        raise errors.BrokerAway("the broker was away a moment ago")


def _away_now(error: Exception) -> errors.BrokerAway:
    _away["until"] = time.monotonic() + _AWAY_SECONDS
    return errors.BrokerAway(type(error).__name__)


@functools.cache
def _counter() -> redis.Redis:
    return redis.Redis.from_url(
        config.settings().broker, socket_timeout=GIVE_UP_SECONDS, socket_connect_timeout=GIVE_UP_SECONDS
    )


def key(queue: str, rank: Rank) -> str:
    """The broker's list of these messages."""
    return f"{queue}{Channel.sep}{rank.value}" if rank else queue


# Every list of the broker that messages may wait in, in the order in which a worker reads them.
KEYS = tuple(key(queue, rank) for rank in Rank for queue in QUEUES)


def waiting() -> dict[str, int]:
    """How many messages wait in each of KEYS. Raises BrokerAway."""
    try:
        with _counter().pipeline(transaction=False) as pipe:
            for name in KEYS:
                pipe.llen(name)
            return dict(zip(KEYS, pipe.execute(), strict=True))
    except redis.RedisError as error:
        raise errors.BrokerAway(type(error).__name__) from error


def unread() -> set[str]:
    """The kinds of which messages wait. Raises BrokerAway."""
    there = waiting()
    return {kind for kind in states.MACHINES if any(there[key(kind, rank)] for rank in Rank)}


def room() -> Room:
    """How many more messages each queue may take, by kind and the workflow's priority. Raises BrokerAway."""
    there = waiting()
    return {
        place: MOST_WAITING - sum(there[key(kind, rank)] for rank in ranks)
        for kind in states.MACHINES
        for place, ranks in (((kind, 0), (Rank.WAITED_FOR,)), ((kind, 1), (Rank.BEGUN, Rank.NEXT, Rank.NEW)))
    }


def tell_backlog(kinds: Mapping[str, str], *, seconds: float) -> None:
    """Let everybody know for so long that more of these kinds waits as rows, and why (UPSTREAM, FULL). Best effort."""
    with contextlib.suppress(redis.RedisError), _counter().pipeline(transaction=False) as pipe:
        for kind, why in kinds.items():
            pipe.set(_BACKLOG + kind, why, px=int(seconds * 1000))
        pipe.execute()


def backlogs() -> dict[str, str]:
    """The kinds of which more waits as rows than the sweep lets go, each with the reason. Raises BrokerAway."""
    try:
        told = _counter().mget([_BACKLOG + kind for kind in states.MACHINES])
    except redis.RedisError as error:
        raise errors.BrokerAway(type(error).__name__) from error
    whys = zip(states.MACHINES, told, strict=True)
    return {kind: UPSTREAM if why == UPSTREAM.encode() else FULL for kind, why in whys if why}


class _Counted:
    """Room and backlogs as this process knows them."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._until = 0.0

    def has_room(self, kind: str) -> bool:
        """Whether a new message may go at once, as counted at most 0.2 s ago. Raises BrokerAway, as `send` does.

        Where rows wait for their turn already, a new one is left to wait with them.
        """
        if time.monotonic() >= self._until:
            _fail_if_known_away()
            try:
                self._open = {kind for (kind, priority), free in room().items() if priority and free > 0}
                self._open -= backlogs().keys()
            except errors.BrokerAway as away:
                raise _away_now(away) from away
            self._until = time.monotonic() + _COUNT_AGAIN_SECONDS
        return kind in self._open


has_room = _Counted().has_room
