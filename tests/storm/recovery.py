"""How long what a killed worker held lies still: from the kill until somebody has it again, or it is final."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg

MEDIAN_SECONDS, WORST_SECONDS = 5.0, 10.0  # README's promise
_POLL_SECONDS = 0.05
_PATIENCE = 60.0
_HELD = "SELECT w.id, w.fence FROM workflows w JOIN workers k ON k.id = w.worker WHERE k.pid = %s"
# Taken away is one change of the right to write, taken again the next.
_BACK = "SELECT w.id FROM workflows w JOIN unnest(%s::uuid[], %s::bigint[]) AS held(id, fence) USING (id) "
_BACK += "WHERE w.fence >= held.fence + 2 OR w.finished_at IS NOT NULL"


@dataclass(frozen=True)
class Spell:
    """One row's wait. `disturbed`: meanwhile something else went wrong that may have met this very row: Postgres or
    Redis away, messages lost, another worker killed or stopped that may have had its message."""

    workflow: UUID
    seconds: float
    disturbed: bool


class Recovery:
    """Watches what killed workers held."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._watching: list[threading.Thread] = []
        self._outages: list[tuple[float, float]] = []
        self._waited: list[tuple[UUID, float, float]] = []

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

    def end(self) -> None:
        self._over.set()
        for thread in self._watching:
            thread.join()

    @property
    def spells(self) -> list[Spell]:
        return [
            Spell(workflow, back - killed, any(begun < back and killed < ended for begun, ended in self._outages))
            for workflow, killed, back in self._waited
        ]

    @property
    def too_slow(self) -> list[Spell]:
        """Those, judged, that waited longer than the worst allowed; all of them where their median is too long."""
        judged = [one for one in self.spells if not one.disturbed]
        if judged and statistics.median(one.seconds for one in judged) > MEDIAN_SECONDS:
            return judged
        return [one for one in judged if one.seconds > WORST_SECONDS]

    def _watch(self, pid: int, killed: float) -> None:
        held: dict[UUID, int] | None = None
        while not self._over.is_set() and held != {} and time.monotonic() < killed + _PATIENCE:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._url, autocommit=True) as on:
                held = dict(on.execute(_HELD, (pid,)).fetchall()) if held is None else held
                self._follow(on, held, killed)
        self._waited += [(one, killed, killed + _PATIENCE) for one in held or ()]

    def _follow(self, on: psycopg.Connection[tuple[UUID]], held: dict[UUID, int], killed: float) -> None:
        while held and not self._over.is_set() and time.monotonic() < killed + _PATIENCE:
            for (one,) in on.execute(_BACK, (list(held), list(held.values()))).fetchall():
                self._waited.append((one, killed, time.monotonic()))
                del held[one]
            time.sleep(_POLL_SECONDS)
