"""The life of a worker process: its incarnation, heartbeat, sweep thread, signs of work, and how it stops.

`start()`, `stop_taking()` and `let_go()` are called by the Celery worker's signals; nothing runs in other processes.
"""

import functools
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog

from app import config, db, errors, queue, states
from app.flows.signs import Marks
from app.models.orm import new_id
from app.store import releases, workers

AGAIN_SECONDS = 0.25  # after a sweep that left something for want of room
SUSPECT_AFTER_CRASHES = 2  # a row whose holders died so often: the next death may be its doing

log = structlog.get_logger("worker")
_stopping = threading.Event()
marks = Marks()


class _Alone:
    """Runs what it is given one at a time, and nobody waits: who comes while one runs leaves his to that runner."""

    def __init__(self) -> None:
        self._runs = threading.Lock()
        self._waiting: dict[UUID, Callable[[], object]] = {}

    def run(self, workflow_id: UUID, action: Callable[[], object]) -> None:
        """Run it now, or have it run after those that came before; once, however often it is given meanwhile."""
        self._waiting[workflow_id] = action
        while self._waiting and self._runs.acquire(blocking=False):
            try:
                for one in list(self._waiting):
                    self._waiting.pop(one)()
            finally:
                self._runs.release()


suspects = _Alone()  # so that a death is the doing of the one that ran


class _Pulse:
    """Since when this process's heartbeats have got through without a gap."""

    def __init__(self) -> None:
        self._since = self._last = -math.inf

    def heard(self) -> None:
        if self._silent() > self._gap():
            self._since = time.monotonic()
        self._last = time.monotonic()

    def seconds(self) -> float:
        """For so long whoever was silent was silent by itself: Postgres could be reached. 0 during a gap."""
        return time.monotonic() - self._since if self._silent() <= self._gap() else 0.0

    def _silent(self) -> float:
        return time.monotonic() - self._last

    @staticmethod
    def _gap() -> float:
        """Half of what others may be silent for, so that nobody is dead before a gap that all had shows here."""
        return config.settings().lease_dead_seconds / 2


pulse = _Pulse()


@functools.cache
def incarnation() -> UUID:
    """The identity of this process as a holder of leases."""
    return new_id()


def stopping() -> bool:
    """True once nothing new may be taken."""
    return _stopping.is_set()


@functools.cache
def release() -> str:
    """The release of this worker, made known once: RELEASE, or the start that it shares with those started with it."""
    with db.transaction() as session:
        return releases.announce(session, config.settings().release)


def beat() -> None:
    """One heartbeat, with this process's signs of work. A worker that stops takes nothing, and that is well.

    It waits for no connection, and its own closes when the process is killed.
    """
    signs = marks.read(silent=0 if stopping() else config.settings().lease_dead_seconds)
    with db.kept() as session:
        workers.beat(session, incarnation(), host=socket.gethostname(), pid=os.getpid(), release=release(), signs=signs)
    marks.told()
    pulse.heard()


def beat_if_possible() -> None:
    """The first heartbeat; a database that is down at start only delays it."""
    try:
        beat()
    except Exception as error:
        if not db.unreachable(error):
            raise
        log.warning("worker.heartbeat-failed", reason="Postgres cannot be reached")


def start(sweep: Callable[[], bool]) -> None:
    """Beat and sweep in threads of their own; the sweep ends with `stop_taking`, the heartbeat with the process.

    A sweep that left something for want of room comes again soon.
    """
    settings = config.settings()
    marks.begin()
    _every(settings.lease_heartbeat_seconds, beat, "heartbeat", until=threading.Event())
    _every(settings.sweep_seconds, functools.partial(_round, sweep), "sweep", until=_stopping)


def _round(sweep: Callable[[], bool]) -> bool:
    """One round, and its sign. A round that failed leaves none, but for a Postgres that is away."""
    try:
        more = sweep()
        marks.swept()
        return more
    except Exception as error:
        if db.unreachable(error):
            marks.swept()
        raise
    finally:
        _look()


def gets_on() -> None:
    """The sign of a sweep in mid-round, after what may have taken seconds."""
    marks.swept()
    _look()


def _look() -> None:
    """Note of which kinds this process has nothing to take: no message waits to be read, or the broker is out of reach,
    or no row is long due. Rows alone are no sign, for the sweep leaves as rows what an upstream would not take now,
    unless the last task failed: it has read its message and left the row. Rows are asked for only where a kind has been
    quiet: behind another kind's backlog they are far to seek."""
    try:
        unread = queue.unread()
    except errors.BrokerAway:
        unread = set()
    waits = unread | marks.failing()
    marks.spared(states.MACHINES.keys() - waits)
    if suspected := waits & marks.quiet():
        with db.statements() as session:
            due = workers.long_due(session, suspected, again=config.settings().redispatch_seconds)
        marks.spared(suspected - due)


def _every(seconds: float, action: Callable[[], object], name: str, *, until: threading.Event) -> None:
    def loop() -> None:
        while not until.is_set():
            begun, pause = time.monotonic(), seconds
            try:
                if action():
                    pause = min(AGAIN_SECONDS, seconds)
            except Exception as error:
                if db.unreachable(error):
                    log.warning("worker.postgres-away", thread=name)
                else:
                    log.exception("worker.thread-failed", thread=name)
            until.wait(max(pause - (time.monotonic() - begun), 0.05))

    threading.Thread(target=loop, name=name, daemon=True).start()


def stop_taking() -> None:
    """From now on nothing new is taken here; what runs may finish."""
    _stopping.set()


def let_go() -> None:
    """Free what is still held, in doubt where it is: another worker goes on at once."""
    with db.transaction() as session:
        freed = workers.let_go(session, incarnation())
    if freed:
        log.warning("worker.let-go", workflows=freed)
