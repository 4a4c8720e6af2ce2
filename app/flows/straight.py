"""A travel claim's steps straight through in memory: no queue, no database, within a time budget.

For callers inside a Python process (`app.travel_pay`). The verbs are the very same; what the engine keeps in Postgres
lives here for the time of one call. Source: travel-claims contract 2.10.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app import errors, states
from app.flows import claims
from app.flows.holding import error_object
from app.models.claim import Claim
from app.steps import Call, Ended, Failure, Nothing, Ok, Outcome, Rejected, Retry, Step, Unknown

S = states.Claim
REPEAT_AFTER = (1.0, 3.0)  # a `retry` is repeated twice
_SILENCE = Failure(code="upstream-timeout", http_status=504, message="No answer was received.")
_TOO_LATE = Failure(
    code="deadline-exceeded", http_status=504, message="The deadline passed while waiting for the upstream."
)
_RATE_LIMITED = Failure(code="rate-limited", http_status=429, message="The upstream allows no more calls.")


class _Stopped(Exception):
    """The claim goes no further; it holds what went wrong."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


@dataclass
class Straight:
    """One claim on its way. `ends` by the monotonic clock; `wait` sleeps (tests replace it)."""

    claim: Claim
    ends: float
    find_after: float
    settle: float
    correlation_id: str
    wait: Callable[[float], None] = time.sleep
    urgent: bool = True
    last_try: bool = False
    settled: bool = False
    intended: tuple[int, float] | None = None
    calls: list[Call] = field(default_factory=list)

    # What a verb may ask (steps.Work)

    def intend(self, index: int = 0) -> None:
        if time.monotonic() > self.ends:
            raise errors.NotSent("time budget")
        self.intended = (index, time.monotonic())

    def renew(self) -> None:
        """Nobody else could take this claim."""

    def pause(self, seconds: float) -> None:
        self.wait(seconds)

    def note(self, call: Call) -> None:
        self.calls.append(call)

    # The way through

    def carry(self) -> None:
        """Run the steps. Afterwards the claim is `submitted`, `duplicate`, `failed` or what a rollback made of it."""
        for step in claims.STEPS:
            try:
                outcome = self._run(step)
            except _Stopped as stopped:
                self.claim.error = error_object(step.name, stopped.failure, attempt=0)
                self._stop()
                return
            if outcome.failure:
                self.claim.error = error_object(step.name, outcome.failure, attempt=0)
            self.claim.state = outcome.state or step.to
            if states.CLAIM.is_finished(self.claim.state):
                return

    def _run(self, step: Step[Any]) -> Ok:
        """The step until it is complete. Raises _Stopped."""
        tries = 0
        while True:
            outcome = self._call(step.do)
            if isinstance(outcome, Unknown):
                outcome = self._find(step, outcome.failure)
            if isinstance(outcome, Ok):
                if outcome.state or step.complete(self.claim):
                    return outcome
                tries = 0
                continue
            tries += not (isinstance(outcome, Retry) and outcome.free)
            self._again(outcome, tries)

    def _again(self, outcome: Outcome, tries: int) -> None:
        """Wait for another try. Raises _Stopped where there is none."""
        failure = getattr(outcome, "failure", _SILENCE)
        if not isinstance(outcome, Retry | Nothing) or tries > len(REPEAT_AFTER):
            raise _Stopped(failure)
        told = outcome.after if isinstance(outcome, Retry) else 0.0
        self._sleep(REPEAT_AFTER[max(tries, 1) - 1] if told is None else told, failure)

    def _find(self, step: Step[Any], lost: Failure) -> Outcome:
        """Learn whether the lost call took effect: Ok, or (settled) that it did not, as a Retry at once."""
        index, sent = self.intended or (0, time.monotonic())
        self.claim.in_doubt, self.claim.intent = True, {"step": step.name, "index": index}
        tries, pause, told = 0, self.find_after, lost
        while True:
            self._sleep(pause, _undecided(told))
            settled = time.monotonic() >= sent + self.settle
            outcome = self._call(step.find or step.do)
            if isinstance(outcome, Ok):
                self._settled()
                return outcome
            if isinstance(outcome, Nothing) and settled:
                self._settled()
                return Retry(failure=lost, after=0.0)
            if isinstance(outcome, Rejected):
                raise _Stopped(outcome.failure)
            tries, told = tries + 1, getattr(outcome, "failure", lost)
            left = max(sent + self.settle - time.monotonic(), 0.1)
            pause = left if isinstance(outcome, Nothing) else REPEAT_AFTER[min(tries, len(REPEAT_AFTER)) - 1]

    def _settled(self) -> None:
        self.claim.in_doubt, self.claim.intent = False, None

    def _call(self, verb: Callable[[Any, Any], Outcome]) -> Outcome:
        self.intended = self.intended if self.claim.in_doubt else None
        try:
            outcome = verb(self.claim, self)
        except Ended as ended:
            outcome = ended.outcome
        except errors.NotSent as held_back:
            late = _RATE_LIMITED if held_back.reason == "rate-limited" else _TOO_LATE
            if self.intended and not self.claim.in_doubt:
                outcome = Unknown(failure=_SILENCE)
            else:
                outcome = Retry(failure=late, after=held_back.after, free=True)
        for name, value in outcome.values.items():
            setattr(self.claim, name, value)
        return outcome

    def _sleep(self, seconds: float, failure: Failure) -> None:
        if time.monotonic() + seconds > self.ends:
            raise _Stopped(failure)
        self.wait(seconds)

    # What follows a failure

    def _stop(self) -> None:
        """Undo where it was asked for and something was made. Its own trouble never hides the first error."""
        if not claims.may_undo(self.claim):
            self.claim.state = S.FAILED
            return
        self.claim.state = S.ROLLING_BACK
        self.ends = max(self.ends, time.monotonic() + sum(REPEAT_AFTER) + self.settle)
        try:
            if self.claim.in_doubt:
                step = claims.FLOW.step_named(str((self.claim.intent or {})["step"]))
                self._find(step, _SILENCE)
            outcome = self._undo()
        except _Stopped as stopped:
            ending = claims.failed(self.claim, stopped.failure)
            outcome = Ok(state=ending.state, values=ending.values)
            for name, value in ending.values.items():
                setattr(self.claim, name, value)
        self.claim.state = outcome.state or S.ROLLED_BACK

    def _undo(self) -> Ok:
        for pause in (*REPEAT_AFTER, 0.0):
            self.last_try = pause == 0.0
            outcome = self._call(claims.ROLLBACK.do)
            if isinstance(outcome, Ok):
                return outcome
            self.wait(pause)
        raise _Stopped(_SILENCE)


def _undecided(lost: Failure) -> Failure:
    message = f"It could not be learned whether the call took effect. {lost.message}"[:200]
    return Failure(code="outcome-unknown", http_status=504, message=message)
