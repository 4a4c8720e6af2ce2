"""What all upstreams share: one lock for every effect, the ledger, the settings, and sleep that a reset cuts short."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.calls import Calls
from sandbox.credentials import Credentials
from sandbox.ledger import Ledger
from sandbox.settings import Settings, changed

SCHEDULER_THREADS = 8
log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The sandbox was reset or stopped while a call was under way; the call must end without (further) effect."""


class Epoch:
    """The time between two resets. Calls belong to the one they began in."""

    def __init__(self) -> None:
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def end(self) -> None:
        self._over.set()

    def rest(self, seconds: float) -> None:
        """Sleeps. Raises Interrupted as soon as the epoch is over."""
        if self._over.wait(max(0.0, seconds)):
            raise Interrupted


class Scheduler:
    """Runs jobs at their time on a few threads. A job that waits or fails holds up no other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stopped = False

    def start(self) -> None:
        for number in range(SCHEDULER_THREADS):
            threading.Thread(target=self._work, name=f"later-{number}", daemon=True).start()

    def later(self, seconds: float, job: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._jobs, (time.monotonic() + seconds, next(self._order), job))
            self._changed.notify()

    def clear(self) -> None:
        with self._changed:
            self._jobs.clear()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._jobs.clear()
            self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                if self._jobs and (left := self._jobs[0][0] - time.monotonic()) <= 0:
                    return heapq.heappop(self._jobs)[2]
                self._changed.wait(left if self._jobs else None)
        return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Interrupted:
                continue
            except Exception:
                log.exception("sandbox.job-failed")


class World:
    """The shared state. Whoever changes an upstream's state holds `lock`, never while sleeping or doing I/O."""

    def __init__(self, *, credentials: Credentials, settings: Settings) -> None:
        self.credentials = credentials
        self.settings = settings
        self.lock = threading.RLock()
        self.ledger = Ledger()
        self.calls = Calls()
        self.epoch = Epoch()
        self.scheduler = Scheduler()
        self._first_settings = settings

    def change(self, changes: Mapping[str, Any]) -> Settings:
        """Applies settings. Raises ValueError saying what is allowed."""
        with self.lock:
            self.settings = changed(self.settings, changes)
            return self.settings

    def reset(self) -> None:
        """Back to the start: nothing recorded, first settings; calls under way end without effect, late ones never."""
        self.epoch.end()
        self.epoch = Epoch()
        self.scheduler.clear()
        self.ledger.clear()
        self.calls.clear()
        self.settings = self._first_settings
