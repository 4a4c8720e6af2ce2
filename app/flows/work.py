"""A step's line to the engine while it runs: intent, lease, call log."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from app import boundaries, db, errors, steps
from app.config import SEND_WITHIN_SECONDS
from app.flows import worker
from app.store import workflows
from app.store.workflows import Seen

_RENEW_EVERY_SECONDS = 1.0
Clearance = Callable[[Seen, Mapping[str, Any]], Seen | None]  # stores the intent; None: the row is not ours to send for


class LeasedWork:
    """`steps.Work` over a lease in Postgres. Lives for one verb of one step.

    `seen` is the row as of the last intent; `intended` is True once a call with effects has been let through.
    """

    def __init__(
        self, seen: Seen, step: str, verb: str, *, clearance: Clearance, lease: float, last_try: bool, settled: bool
    ) -> None:
        self.correlation_id = seen.correlation_id
        self.urgent = seen.priority == 0
        self.last_try = last_try
        self.settled = settled
        self.verb = verb
        self.intended = False
        self.calls: list[steps.Call] = []
        self.seen = seen
        self._step, self._lease, self._clearance = step, lease, clearance
        self._renewed = _boottime()

    def intend(self, index: int = 0) -> None:
        begun = _boottime()
        stored = self._clearance(self.seen, {"step": self._step, "index": index, "verb": "do"})
        if stored is None:
            self._refused()
        else:
            self.seen = stored
        boundaries.reach(self._step, boundaries.INTENDED)
        self._keeps(begun)
        if _boottime() - begun > SEND_WITHIN_SECONDS:
            raise errors.NotSent("too late to send")
        self.intended = True

    def _refused(self) -> None:
        with db.statements() as session:
            now = workflows.read(session, self.seen.id)
        if now and now.fence == self.seen.fence and now.asked:
            raise errors.StopAsked(now.asked)
        raise errors.LeaseLost(str(self.seen.id))

    def renew(self) -> None:
        if _boottime() - self._renewed < _RENEW_EVERY_SECONDS:
            return
        with db.statements() as session:
            if not workflows.renew(session, self.seen, lease=self._lease):
                raise errors.LeaseLost(str(self.seen.id))
        self._keeps(_boottime())

    def _keeps(self, since: float) -> None:
        self._renewed = since
        worker.marks.works(self.seen.kind, self._lease)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        self.renew()

    def note(self, call: steps.Call) -> None:
        self.calls.append(call)


def _boottime() -> float:
    """Seconds that go on counting while the machine is suspended and the process is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
