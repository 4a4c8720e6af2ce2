"""The one place that says what a lost connection, a status or an odd answer means (contract 5.1).

After a call with effects whose answer was lost or not understood the outcome is `Unknown`, after a safe one `Retry`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app import steps
from app.upstreams import wire
from app.upstreams.answers import SHOWN_LENGTH, Answer, asked_wait, minute_used_up, said

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

    @property
    def reason(self) -> str:
        """The code of what went wrong, in our words."""
        what: steps.Failure | None = getattr(self.outcome, "failure", None)
        return what.code if what else ""

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
    return unless(safe, what)


def _own_status(answer: Answer) -> int:
    return answer.status


def pause(answer: Answer) -> float:
    """Seconds for which an answer asks that no call be made: a 429, or a success that was the last of its minute."""
    used_up = 200 <= answer.status < 300 and minute_used_up(answer.headers)
    return asked_wait(answer.headers) if answer.status == 429 or used_up else 0.0


def lost(flight: wire.Flight, safe: bool) -> Failed:
    """A call without an answer. What was never sent can simply be repeated."""
    if flight.sent and flight.late:
        what = failure("upstream-timeout", 504, "No answer in time.")
    else:
        message = "The connection broke before an answer came." if flight.sent else "No connection."
        what = failure("upstream-unavailable", 502, message)
    return Failed(unless(safe or not flight.sent, what), message=what.message)


def in_trouble(failed: Failed) -> bool:
    """Whether a failure speaks for an upstream in trouble: no answer, a late one, or 5xx."""
    return failed.status is None or failed.status >= 500 or failed.status == 408


@dataclass(frozen=True)
class Reading:
    """How an upstream's answers are read, where it differs: what a status means, and where an answer really stands.

    `said` are its own words about an error, scrubbed; `logged`: they may stand in log records. `lost`: what the lack
    of an answer means. `pause`: the seconds an answer closes the limiter for. `in_trouble`: which failures the breaker
    counts (a 429 never). `most` and `part`: as in `wire.Flight`.
    """

    of_status: Callable[[Answer, str, bool], steps.Outcome] = of_status
    status: Callable[[Answer], int] = _own_status
    said: Callable[[Answer], tuple[str, str]] = said
    logged: bool = False
    lost: Callable[[wire.Flight, bool], Failed] = lost
    pause: Callable[[Answer], float] = pause
    in_trouble: Callable[[Failed], bool] = in_trouble
    most: int = wire.MAX_BODY
    part: bool = False


def refused(answer: Answer, reading: Reading, safe: bool) -> Failed:
    """An answer that is no success."""
    message, code = reading.said(answer)
    return Failed(reading.of_status(answer, message, safe), status=answer.status, message=message, code=code)


def malformed(status: int | None, message: str, safe: bool) -> Failed:
    """A success that lacks what a success must have."""
    what = failure("malformed-answer", 502, message or _NOT_UNDERSTOOD)
    return Failed(unless(safe, what), status=status, message=what.message)


def unless(harmless: bool, what: steps.Failure) -> steps.Retry | steps.Unknown:
    """`Retry` where it did no harm, else `Unknown`."""
    return steps.Retry(failure=what) if harmless else steps.Unknown(failure=what)
