"""Waiting for an outcome without holding a database connection, and for how many requests of a process there is room.

Who waits holds a thread of the process, and with too many of them nobody else would be answered.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app import config

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.05, 0.25, 1.3


class _Places:
    """Counts who waits in this process: at most three quarters of its threads, so that some are always free, and of one
    line at most half of them (vouchers: VOUCHER_MAX_WAITING), so that no line takes the places of all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, line: str) -> Iterator[bool]:
        """Whether there is a place for one more of this line, who leaves it at the end."""
        with self._lock:
            free = self._taken[line] < _most_of(line) and self._taken.total() < _most()
            self._taken[line] += free
        try:
            yield free
        finally:
            with self._lock:
                self._taken[line] -= free


def _most() -> int:
    return config.settings().web_threads * 3 // 4


def _most_of(line: str) -> int:
    settings = config.settings()
    return settings.vouchers.max_waiting if line == "vouchers" else settings.web_threads // 2


places = _Places()


def at_a_place(line: str, reached: Callable[[], bool], *, seconds: float) -> None:
    """As `until`, where there is a place for one more of this line; else the wait is over at once."""
    with places.one(line) as free:
        if free:
            until(reached, seconds=seconds)


def until(reached: Callable[[], bool], *, seconds: float) -> None:
    """Look until it is `reached`, or until so many seconds have passed. Each look is one short transaction."""
    give_up, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not reached():
        left = give_up - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
