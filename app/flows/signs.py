"""What a worker process shows of its work beside its heartbeat, which goes on while every other thread hangs.

Nothing here waits or queries: threads leave marks, the heartbeat carries them to Postgres.
"""

import threading
import time
from collections.abc import Callable

from app.store.workers import Signs


class Marks:
    """When the sweep last ended a round, when a step was last under way, when there was last nothing to take.

    What happens while no heartbeat gets through (Postgres away, the process stopped) is no sign of anything: the marks
    begin anew with the first heartbeat after it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._swept: float | None = None  # none of these: until `begin`
        self._spare = 0.0
        self._worked: float | None = None
        self._told = self._clock()
        self._busy: dict[int, float] = {}  # by thread: how long its call may take

    def begin(self) -> None:
        """All is well as of now."""
        self._swept = self._spare = self._told = self._clock()

    def swept(self) -> None:
        """The sweep ended a round, whether or not this process was the one that swept, and however it ended."""
        self._swept = self._clock()

    def spared(self) -> None:
        """There was nothing that this process could have taken."""
        self._spare = self._clock()

    def works(self, seconds: float) -> None:
        """This thread begins what may take so many seconds; a thread that is stuck is at work no longer than that."""
        self._busy[threading.get_ident()] = self._clock() + seconds

    def rests(self) -> None:
        """This thread has ended what it was at."""
        if self._busy.pop(threading.get_ident(), None):
            self._worked = self._clock()

    def told(self) -> None:
        """A heartbeat got through."""
        self._told = self._clock()

    def read(self, *, silent: float) -> Signs | None:
        """The marks as ages, for a heartbeat; anew when the last one is longer ago than `silent` seconds."""
        if self._swept is None:
            return None
        if self._clock() - self._told > silent:
            self.begin()
        now = self._clock()
        at_work = [min(until, now) for until in list(self._busy.values())]
        last = max([*at_work, *([] if self._worked is None else [self._worked])], default=None)
        return Signs(
            swept=now - self._swept, spare=now - self._spare, worked=None if last is None else max(now - last, 0.0)
        )
