"""The one place that says what a lost connection, a status or an odd answer means (contract 5.1).

After a call with effects whose answer was lost or not understood the outcome is `Unknown`, after a safe one `Retry`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app import steps
from app.upstreams import wire
from app.upstreams.answers import SHOWN_LENGTH, Answer, asked_wait, said

_KEPT = frozenset({400, 403, 404, 409, 422})
_NOT_UNDERSTOOD = "The answer could not be understood."


class NotUnderstood(Exception):
    """Raised by the reader of an answer that should be a success but lacks what is needed."""


class Failed(steps.Ended):
    """A call that did not succeed."""

    @property
    def word(self) -> str:
        """The outcome as the timeline and the metrics call it."""
        return type(self.outcome).__name__.lower()

    def instead(self, outcome: steps.Outcome, *, status: int | None) -> "Failed":
        """The same failure with another outcome and status."""
        return Failed(outcome, status=status, message=self.message, code=self.code)


def failure(code: str, http_status: int, message: str, *, retryable: bool = True) -> steps.Failure:
    return steps.Failure(code=code, http_status=http_status, message=message[:SHOWN_LENGTH], retryable=retryable)


def of_status(answer: Answer, message: str, safe: bool) -> steps.Outcome:
    """What a status other than 2xx means."""
    status = answer.status
    if status == 429:
        return steps.Retry(failure=failure("rate-limited", 429, message), free=True, after=asked_wait(answer.headers))
    if 400 <= status < 500 and status != 408:
        shown = status if status in _KEPT else 502
        return steps.Rejected(failure=failure("rejected", shown, message, retryable=False))
    silent = status in (408, 504)
    what = failure("upstream-timeout", 504, message) if silent else failure("upstream-unavailable", 502, message)
    return _unless(safe, what)


def _own_status(answer: Answer) -> int:
    return answer.status


@dataclass(frozen=True)
class Reading:
    """How an upstream's answers are read, where it differs: what a status means, and where an answer really stands.

    `said` are its own words about an error, scrubbed; `logged`: they may stand in log records.
    """

    of_status: Callable[[Answer, str, bool], steps.Outcome] = of_status
    status: Callable[[Answer], int] = _own_status
    said: Callable[[Answer], tuple[str, str]] = said
    logged: bool = False


def lost(flight: wire.Flight, safe: bool) -> Failed:
    """A call without an answer. What was never sent can simply be repeated."""
    if flight.sent and flight.late:
        what = failure("upstream-timeout", 504, "No answer in time.")
    else:
        message = "The connection broke before an answer came." if flight.sent else "No connection."
        what = failure("upstream-unavailable", 502, message)
    return Failed(_unless(safe or not flight.sent, what), message=what.message)


def refused(answer: Answer, reading: Reading, safe: bool) -> Failed:
    """An answer that is no success."""
    message, code = reading.said(answer)
    return Failed(reading.of_status(answer, message, safe), status=answer.status, message=message, code=code)


def malformed(status: int | None, message: str, safe: bool) -> Failed:
    """A success that lacks what a success must have."""
    what = failure("malformed-answer", 502, message or _NOT_UNDERSTOOD)
    return Failed(_unless(safe, what), status=status, message=what.message)


def _unless(harmless: bool, what: steps.Failure) -> steps.Outcome:
    return steps.Retry(failure=what) if harmless else steps.Unknown(failure=what)
