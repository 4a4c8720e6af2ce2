"""The contract between the engine and the lines of business.

A line describes its work as `Step`s with three verbs. `do` makes the call, `find` learns whether an earlier call whose
answer was lost took effect and adopts it, `undo` compensates. Each returns an `Outcome`. Nothing here knows of leases,
retries or messages; nothing in the engine knows of claims.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What went wrong, in the words of the line's contract. `message` is scrubbed and safe to show."""

    code: str
    http_status: int
    message: str
    retryable: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a verb ended. `values` are columns of the line's own row, stored whatever the ending is."""

    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ok(Outcome):
    """Done (or, from find: it had been done). `state` overrides the step's own next state, `failure` explains it."""

    state: str | None = None
    failure: Failure | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Nothing(Outcome):
    """Only from find: the upstream shows no trace of the lost call (yet: the engine waits for the settle time).

    `at_once`: even a late effect would do no harm to a repeat, so that it waits for its back-off alone.
    """

    at_once: bool = False


@dataclass(frozen=True, kw_only=True)
class Rejected(Outcome):
    """A definite no; never repeated as it is."""

    failure: Failure


@dataclass(frozen=True, kw_only=True)
class Retry(Outcome):
    """Definitely without effect, may pass later. `after`: seconds, as the upstream told; else back-off.

    `free` uses no attempt. `limit` and `after` override the flow's policy for this kind of answer.
    """

    failure: Failure
    after: float | None = None
    free: bool = False
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Unknown(Outcome):
    """Sent, answer lost or not understood: `find` runs before `do` may run again."""

    failure: Failure


class Ended(Exception):
    """Ends a verb with this outcome from wherever it is. `message`, `status`: what the upstream answered, if it did."""

    def __init__(self, outcome: Outcome, *, status: int | None = None, message: str = "", code: str = "") -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Call:
    """One upstream call as the timeline shows it. `path` is the template, never an address with data in it."""

    upstream: str
    name: str
    method: str
    path: str
    status: int | None
    outcome: str
    milliseconds: int
    message: str = ""
    code: str = ""


class Work(Protocol):
    """What a verb and the upstream clients may ask of whoever runs them.

    The engine implements it over Postgres; a caller without a database implements it in memory.
    """

    correlation_id: str
    urgent: bool  # somebody waits for this: the reserved share of a rate limit is open to it
    last_try: bool  # attempts or time are used up after this one
    settled: bool  # in find: what was lost has had its time; seeing nothing of it now counts

    def intend(self, index: int = 0) -> None:
        """Record that a call with effects follows at once, and pass only if it may be sent right now.

        Called by the upstream client directly before each send of a call with effects (also a repeated one).
        `index` tells the pieces of one step apart (the expense). Raises `Interrupted`: the call must not be sent.
        """

    def renew(self) -> None:
        """Keep the lease while safe calls are made or a limiter is waited for. Raises `LeaseLost`."""

    def pause(self, seconds: float) -> None:
        """Wait a moment between two safe calls, keeping the lease. Raises `LeaseLost`."""

    def note(self, call: Call) -> None:
        """Keep one upstream call for the timeline."""


Verb = Callable[[R, Work], Outcome]


def _complete(_record: Any) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Step(Generic[R]):
    """One step of a workflow: runs in state `of`, leads to state `to`.

    `find` is None where repeating `do` does no harm: what is done twice has no effect, or the upstream recognises the
    repeat. Then a lost call is repeated, and stays in doubt until an answer settles it. `complete` says, after
    an `Ok`, whether the step is through; until then the engine runs `do` again in the same state (one expense a time).
    """

    name: str
    of: str
    to: str
    do: Verb[R]
    find: Verb[R] | None = None
    undo: Verb[R] | None = None
    complete: Callable[[R], bool] = _complete
