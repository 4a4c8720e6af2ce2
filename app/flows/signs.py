"""What a worker process shows of its work beside its heartbeat, which goes on while every other thread hangs.

Nothing here waits or queries: threads leave marks, the heartbeat carries them to Postgres.
"""

import threading
import time
from collections.abc import Callable, Iterable

from app import states
from app.store.workers import Signs

QUIET_SECONDS = 10.0


class Marks:
    """When the sweep last ended a round; and of each kind of workflow, whose threads hang apart from all others, when a
    step was last under way, or nothing was there to take.

    What happens while no heartbeat gets through (Postgres away, the process stopped) is no sign of anything: the marks
    begin anew with the first heartbeat after it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = self._clock()
        self._swept: float | None = None  # until `begin`
        self._well = dict.fromkeys(states.MACHINES, self._told)
        self._busy: dict[int, tuple[str, float]] = {}  # by thread: of which kind, until when its call may take
        self._failing: set[str] = set()

    def begin(self) -> None:
        """All is well as of now."""
        self._swept = self._told = self._clock()
        self.spared(states.MACHINES)

    def swept(self) -> None:
        """The sweep ended a round, or a part that may take long, whether or not this process is the one that sweeps."""
        if self._swept is not None:
            self._swept = self._clock()

    def spared(self, kinds: Iterable[str]) -> None:
        """Of these kinds there was nothing that this process could have taken."""
        self._well.update(dict.fromkeys(kinds, self._clock()))

    def works(self, kind: str, seconds: float) -> None:
        """This thread begins what may take so many seconds; a thread that is stuck is at work no longer than that."""
        self._busy[threading.get_ident()] = kind, self._clock() + seconds

    def rests(self) -> None:
        """This thread has ended what it was at."""
        kind, _ = self._busy.pop(threading.get_ident(), (None, None))
        if kind:
            self._well[kind] = self._clock()

    def ended(self, kind: str) -> None:
        """A task of this kind ended without an error, whether or not there was anything to take."""
        self._failing.discard(kind)

    def failed(self, kind: str) -> None:
        """A task of this kind failed by an error of our own: its message is gone, and that is no sign of work."""
        self._failing.add(kind)

    def failing(self) -> set[str]:
        """The kinds whose last task failed."""
        return set(self._failing)

    def told(self) -> None:
        """A heartbeat got through."""
        self._told = self._clock()

    def read(self, *, silent: float) -> Signs | None:
        """The marks as ages, for a heartbeat; anew when the last one is longer ago than `silent` seconds."""
        if self._swept is None:
            return None
        if self._clock() - self._told > silent:
            self.begin()
        idle = self._idle()
        idlest = max(idle, key=lambda kind: idle[kind])
        return Signs(swept=self._clock() - self._swept, idle=idle[idlest], kind=idlest)

    def quiet(self) -> set[str]:
        """The kinds without a sign for so long that it is worth asking whether there is something to take."""
        return {kind for kind, seconds in self._idle().items() if seconds > QUIET_SECONDS}

    def _idle(self) -> dict[str, float]:
        """By kind, for how many seconds there has been no sign."""
        now, well = self._clock(), dict(self._well)
        for kind, until in list(self._busy.values()):
            well[kind] = max(well[kind], min(until, now))
        return {kind: max(now - last, 0.0) for kind, last in well.items()}
