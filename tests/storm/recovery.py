"""How long what a killed worker held lies still: from the kill until somebody has it again, or it is final."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from app.flows.worker import SUSPECT_AFTER_CRASHES

MEDIAN_SECONDS, WORST_SECONDS = 5.0, 10.0  # README's promise
_POLL_SECONDS = 0.05
_PATIENCE = 60.0
_LAST_WORDS = 0.3  # Postgres may yet carry out what a process sent before it was killed
_HELD = "SELECT w.id, w.fence, w.kind FROM workflows w JOIN workers k ON k.id = w.worker WHERE k.pid = %s"
# Taken away is one change of the right to write, taken again the next.
_NOW = "SELECT id, fence, finished_at IS NOT NULL, crashes FROM workflows WHERE id = ANY(%s)"
_FREED, _TAKEN = 1, 2


@dataclass
class _Held:
    """A row as its worker left it; when it was freed, and whether it was a suspect then."""

    id: UUID
    fence: int
    kind: str
    freed: float = 0.0
    suspect: bool = False


@dataclass(frozen=True)
class Spell:
    """One row's wait. `disturbed`: meanwhile something else went wrong that may have met this very row: Postgres or
    Redis away, messages lost, another worker killed or stopped that may have had its message. `freed`: until it was
    taken away from the dead, of `seconds` until somebody took it. `suspect`: it was its holder's second death or
    later, so that it waited its turn, too: of such rows one runs at a time in a worker."""

    workflow: UUID
    kind: str
    freed: float
    seconds: float
    disturbed: bool
    suspect: bool


class Recovery:
    """Watches what killed workers held."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._watching: list[threading.Thread] = []
        self._outages: list[tuple[float, float]] = []
        self._waited: list[tuple[_Held, float, float]] = []
        self.stalled = self.taken_from_stalled = 0

    def watch(self, pid: int, killed: float) -> None:
        """Follow what this process held until somebody has it again."""
        self._outages.append((killed, killed))  # meets what was killed before
        thread = threading.Thread(target=self._watch, args=(pid, killed), daemon=True)
        self._watching.append(thread)
        thread.start()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """What recovers while this lasts is told, but not judged."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._outages.append((begun, time.monotonic()))

    @contextlib.contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """While this lasts, this process is stopped: what it held is counted apart, and what was taken from it."""
        with self.outage(), psycopg.connect(self._url, autocommit=True) as on:
            held = {row[0]: row[1] for row in on.execute(_HELD, (pid,)).fetchall()}
            yield
            now = on.execute(_NOW, (list(held),)).fetchall()
        self.stalled += len(held)
        self.taken_from_stalled += sum(fence > held[one] for one, fence, *_ in now)

    def end(self) -> None:
        self._over.set()
        for thread in self._watching:
            thread.join()

    @property
    def spells(self) -> list[Spell]:
        return [
            Spell(
                one.id, one.kind, (one.freed or back) - killed, back - killed,
                any(begun < back and killed < ended for begun, ended in self._outages), one.suspect,
            )
            for one, killed, back in self._waited
        ]  # fmt: skip

    @property
    def judged(self) -> list[Spell]:
        """Those that waited for nothing but to be found and taken."""
        return [one for one in self.spells if not (one.disturbed or one.suspect)]

    @property
    def too_slow(self) -> list[Spell]:
        """Those, judged, that waited longer than the worst allowed; all of them where their median is too long."""
        judged = self.judged
        if judged and statistics.median(one.seconds for one in judged) > MEDIAN_SECONDS:
            return judged
        return [one for one in judged if one.seconds > WORST_SECONDS]

    def _watch(self, pid: int, killed: float) -> None:
        held: dict[UUID, _Held] | None = None
        time.sleep(_LAST_WORDS)
        while not self._over.is_set() and held != {} and time.monotonic() < killed + _PATIENCE:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._url, autocommit=True) as on:
                if held is None:
                    held = {row[0]: _Held(*row) for row in on.execute(_HELD, (pid,)).fetchall()}
                self._follow(on, held, killed)
        self._waited += [(one, killed, killed + _PATIENCE) for one in (held or {}).values()]

    def _follow(self, on: psycopg.Connection[Any], held: dict[UUID, _Held], killed: float) -> None:
        while held and not self._over.is_set() and time.monotonic() < killed + _PATIENCE:
            rows, now = on.execute(_NOW, (list(held),)).fetchall(), time.monotonic()
            for one, fence, is_final, crashes in rows:
                if fence >= held[one].fence + _FREED and not held[one].freed:
                    held[one].freed, held[one].suspect = now, crashes >= SUSPECT_AFTER_CRASHES
                if fence >= held[one].fence + _TAKEN or is_final:
                    self._waited.append((held.pop(one), killed, now))
            time.sleep(_POLL_SECONDS)
