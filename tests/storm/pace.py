"""How far the work is: counted all the time, told now and then; and whether there is room for more of it."""

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import psycopg

# Of a kind: the callers wait while so many are under way. More of them, and starting workers want for a processor (of
# two): what is measured then is how busy the machine is, not how soon a row is taken again.
MOST_OPEN = 20
STUCK_SECONDS = 120.0  # without an end of any workflow
TOLD_SECONDS, _LOOK_SECONDS, _RATE_SECONDS = 15.0, 0.5, 60.0
_COUNT = """
    SELECT kind, count(*), count(finished_at), count(*) FILTER (WHERE state = 'pending-payment')
    FROM workflows GROUP BY kind
"""


class Pace:
    """Counts the rows of `workflows` in a thread of its own.

    `kinds`: the rows by kind. `open`: those somebody has to work at; a declaration not paid for waits for its caller.
    """

    def __init__(self, url: str, *, target: int, say: Callable[[str], None]) -> None:
        """`target`: so many workflows or more will there be in the end."""
        self._url, self._target, self._say = url, target, say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pace", daemon=True)
        self._last_end = self._told = time.monotonic()
        self._past: deque[tuple[float, int]] = deque([(self._last_end, 0)])
        self.kinds: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.finished = 0

    def start(self) -> None:
        self._last_end = self._told = time.monotonic()
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def room(self, kind: str) -> bool:
        """Whether callers may ask for more of it."""
        return self.open[kind] < MOST_OPEN

    @property
    def stuck(self) -> bool:
        """Nothing has come to its end for so long; without an answer of Postgres neither."""
        return time.monotonic() > self._last_end + STUCK_SECONDS

    @property
    def rate(self) -> float:
        """Ends per second, over the last minute."""
        (then, before), (now, finished) = self._past[0], self._past[-1]
        return (finished - before) / (now - then) if now > then else 0.0

    def look(self) -> None:
        """Count now. Raises psycopg.OperationalError while Postgres is away."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            self.noted(connection.execute(_COUNT).fetchall(), time.monotonic())

    def noted(self, counted: list[tuple[str, int, int, int]], now: float) -> None:
        """What was counted at a moment of the monotonic clock: per kind all rows, the finished, the unpaid."""
        finished = sum(row[2] for row in counted)
        if finished != self.finished:
            self._last_end = now
        self.kinds = Counter({row[0]: row[1] for row in counted})
        self.open = Counter({kind: number - ended - unpaid for kind, number, ended, unpaid in counted})
        self.finished = finished
        self._past.append((now, finished))
        while self._past[0][0] < now - _RATE_SECONDS:
            self._past.popleft()

    def line(self) -> str:
        """The progress in a line."""
        under_way = self.open.total()
        left = max(self._target - self.finished, under_way)
        time_left = f"{left / self.rate / 60:.1f} min left" if self.rate else "time left unknown"
        said = f"{self.finished:,} of {max(self._target, self.kinds.total()):,} finished, {under_way:,} under way"
        return f"{said}, {self.rate:.1f}/s, {time_left}"

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            with contextlib.suppress(psycopg.OperationalError):
                self.look()
            if time.monotonic() > self._told + TOLD_SECONDS:
                self._told = time.monotonic()
                self._say(self.line())
