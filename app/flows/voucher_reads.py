"""Reads at i-Movo in the process that answers the request: they have no side effects. Source: vouchers contract, 2.5.

Up to three tries within the time that the caller has; while the breaker is open, none.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from app import config, errors, steps, vouchers
from app.steps import Rejected
from app.upstreams import imovo
from app.upstreams.imovo import Imovo
from app.upstreams.imovo_answers import Pair, Redemption

T = TypeVar("T")
_PAUSES = (0.5, 1.0)
_SHORTEST = 0.2  # seconds: with less left a try could only fail
AGAIN = 5


class NotLive(Exception):
    """i-Movo has no live voucher for the subscription."""


class NotShown(Exception):
    """i-Movo answered, but not with what was asked for. `texts`: what it said, or `vouchers.FAULTY`."""

    def __init__(self, texts: str) -> None:
        super().__init__("not shown")
        self.texts = texts


class Unreachable(Exception):
    """No answer. `again`: whole seconds until it is worth another try."""

    def __init__(self, again: int) -> None:
        super().__init__("unreachable")
        self.again = again


class _Again(Exception):
    """A failure that another try may change."""

    def __init__(self, failure: NotShown | Unreachable) -> None:
        super().__init__("again")
        self.failure = failure


@dataclass
class _Reading:
    """`steps.Work` in memory: nobody holds a lease, and nothing that has effects is called."""

    correlation_id: str
    ends: float
    urgent: bool = True
    last_try: bool = False
    settled: bool = False

    def intend(self, index: int = 0) -> None:
        raise AssertionError(f"a read has no effects (piece {index})")

    def renew(self) -> None:
        if time.monotonic() >= self.ends:
            raise errors.NotSent("too late to send")

    def pause(self, seconds: float) -> None:
        time.sleep(max(min(seconds, self.ends - time.monotonic()), 0))

    def note(self, call: steps.Call) -> None:
        """There is no timeline of reads."""


def voucher(subscription_id: str, *, correlation_id: str, ends: float) -> Pair:
    """The live voucher. `ends`: by the monotonic clock. Raises NotLive, NotShown or Unreachable."""
    return _tried(lambda upstream: upstream.get(subscription_id), _Reading(correlation_id, ends))


def history(subscription_id: str, limit: int, *, correlation_id: str, ends: float) -> list[Redemption]:
    """The latest redemptions, at most `limit`, in the order received. Raises as `voucher`."""
    lines = _tried(lambda upstream: upstream.history(subscription_id, limit), _Reading(correlation_id, ends))
    latest = sorted(range(len(lines)), key=lambda at: lines[at].date, reverse=True)[:limit]
    return [lines[at] for at in sorted(latest)]


def _tried(call: Callable[[Imovo], T], work: _Reading) -> T:
    pauses = iter(_PAUSES)
    while True:
        try:
            return _once(call, work)
        except _Again as again:
            pause = next(pauses, math.inf)
            if work.ends - time.monotonic() < pause + _SHORTEST:
                raise again.failure from again
        work.pause(pause)


def _once(call: Callable[[Imovo], T], work: _Reading) -> T:
    """One try, cut off when the time is over."""
    own = config.settings().imovo
    if own is None:
        raise Unreachable(AGAIN)
    left = max(work.ends - time.monotonic(), _SHORTEST)
    by = imovo.upstream(own)
    upstream = Imovo(own, work=work, by=by, most=left)
    try:
        return call(upstream)
    except errors.NotSent:
        raise Unreachable(math.ceil(by.open_for()) or AGAIN) from None
    except steps.Ended as ended:
        if isinstance(ended.outcome, Rejected):
            raise _refused(ended.outcome) from None
        silent = ended.status in {None, 429}
        raise _Again(Unreachable(AGAIN) if silent else NotShown(vouchers.FAULTY)) from ended


def _refused(outcome: Rejected) -> NotLive | NotShown:
    return NotLive() if outcome.failure.code == "not-live" else NotShown(outcome.failure.message)
