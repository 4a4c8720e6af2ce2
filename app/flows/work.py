"""A step's line to the engine while it runs: intent, lease, call log."""

import time

from app import db, errors, steps
from app.store import workflows
from app.store.workflows import Seen

SEND_WITHIN_SECONDS = 2.0  # a call not sent this soon after its intent was begun is not sent (the model: two_seconds)
_RENEW_EVERY_SECONDS = 1.0


class LeasedWork:
    """`steps.Work` over a lease in Postgres. Lives for one verb of one step.

    `intended` is True once a call with effects has been let through.
    """

    def __init__(self, seen: Seen, step: str, verb: str, *, lease: float, undoing: bool, last_try: bool) -> None:
        self.correlation_id = seen.correlation_id
        self.urgent = seen.priority == 0
        self.last_try = last_try
        self.verb = verb
        self.intended = False
        self.calls: list[steps.Call] = []
        self._seen, self._step, self._lease, self._undoing = seen, step, lease, undoing
        self._renewed = _boottime()

    def intend(self, index: int = 0) -> None:
        begun = _boottime()
        intent = {"step": self._step, "index": index, "verb": "do"}
        with db.statements() as session:
            stored = workflows.intend(session, self._seen, intent, lease=self._lease, undoing=self._undoing)
            if not stored:
                self._refused(workflows.read(session, self._seen.id))
        self._renewed = begun
        if _boottime() - begun > SEND_WITHIN_SECONDS:
            raise errors.NotSent("too late to send")
        self.intended = True

    def _refused(self, now: Seen | None) -> None:
        if now and now.fence == self._seen.fence and now.asked:
            raise errors.StopAsked(now.asked)
        raise errors.LeaseLost(str(self._seen.id))

    def renew(self) -> None:
        if _boottime() - self._renewed < _RENEW_EVERY_SECONDS:
            return
        with db.statements() as session:
            if not workflows.renew(session, self._seen, lease=self._lease):
                raise errors.LeaseLost(str(self._seen.id))
        self._renewed = _boottime()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        self.renew()

    def note(self, call: steps.Call) -> None:
        self.calls.append(call)


def _boottime() -> float:
    """Seconds that go on counting while the machine is suspended and the process is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
