"""Bulkheads: each queue has threads of its own in a worker process, WORKER_CONCURRENCY at most.

A line whose upstream hangs, or that waits for its rate limit, fills its own threads and nobody else's. While they are
all busy its queue is not read here, so that its messages stay for other workers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool  # type: ignore[attr-defined]
from kombu.utils.scheduling import round_robin_cycle

from app import config, queue

LOOK_AGAIN_SECONDS = 0.1  # how soon a queue is read again after one of its threads is free


class Bulkhead:
    """The threads of one queue."""

    def __init__(self, name: str) -> None:
        self._most = config.settings().worker_concurrency
        self._running: set[Future[Any]] = set()
        self.threads = ThreadPoolExecutor(self._most, thread_name_prefix=name)

    @property
    def has_room(self) -> bool:
        return len(self._running) < self._most

    def run(self, *call: Any) -> "Future[Any]":
        future = self.threads.submit(*call)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future


of = functools.cache(Bulkhead)


class Pool(TaskPool):
    """Celery's pool of threads, with a bulkhead for each queue."""

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> ApplyResult:
        _task, _id, request, *_rest = args or ()
        key = request["delivery_info"]["routing_key"]  # the queue's name, unless somebody forged the message
        head = of(key if key in queue.QUEUES else queue.JOBS)
        return ApplyResult(head.run(apply_target, target, args, kwargs, callback, accept_callback))

    def on_stop(self) -> None:
        for name in queue.QUEUES:
            of(name).threads.shutdown(cancel_futures=True)
        super().on_stop()


class OpenQueues(round_robin_cycle):  # type: ignore[type-arg]
    """The queues that the consumer reads now, in turn: those with a thread free."""

    def consume(self, n: int) -> list[str]:  # type: ignore[override]
        return [name for name in super().consume(n) if name not in queue.QUEUES or of(name).has_room]
