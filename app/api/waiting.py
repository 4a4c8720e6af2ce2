"""Waiting for an outcome without holding a database connection."""

import time
from collections.abc import Callable

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.05, 0.25, 1.3


def until(reached: Callable[[], bool], *, seconds: float) -> None:
    """Look until it is `reached`, or until so many seconds have passed. Each look is one short transaction."""
    give_up, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not reached():
        left = give_up - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
