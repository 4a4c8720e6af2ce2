"""What the engine needs to know of a line of business, as data."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app import states
from app.db import Session
from app.models.workflow import Workflow
from app.steps import Call, Failure, Outcome, Step
from app.upstreams.http import Pace

_MOST_GROWTH = 60  # tries without limit: beyond this the power leaves the numbers, and every cap is long reached


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Retry as data. Times in seconds; `attempts` None: until the deadline.

    The back-off has 20 % jitter either way; with `least` a wait is uniformly random between that and the back-off.
    """

    attempts: int | None
    backoff: float
    factor: float
    backoff_max: float
    find_after: float
    settle: float
    lease: float
    least: float | None = None

    def wait(self, tries: int) -> float:
        """Capped exponential back-off after so many tries, with its jitter."""
        growth = min(max(tries - 1, 0), _MOST_GROWTH)
        base = min(self.backoff * self.factor**growth, self.backoff_max)
        return base * random.uniform(0.8, 1.2) if self.least is None else random.uniform(self.least, base)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Where a workflow goes that cannot go on. `deadline`: a new one for what follows, in seconds."""

    state: str
    values: Mapping[str, Any] = field(default_factory=dict)
    deadline: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How one verb of one step ended, for whoever counts. `settled`: a find that saw nothing, and that counts."""

    step: str
    verb: str
    outcome: Outcome
    seconds: float
    calls: Sequence[Call]
    settled: bool = False


def _no_lock(session: Session, record: Any) -> None:
    """The workflow's own row is all that a holder writes."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A line's step table and its answers to the engine's questions.

    `load` reads the line's row with all that its verbs need. `held` says why accepted work must wait (line off), or
    None. `failed` and `asked` say where a failing or stopped workflow goes. `entered` runs in the transaction of each
    move and returns the workflows that it started. `observed` is told how each verb ended (metrics). `lock` is taken
    first in every transaction of a holder that writes. `clear`, where the line has a rule of its own for sending, runs
    in the transaction of each intent: it returns columns to store with it, or raises Ended, and then nothing is sent.
    `pace` says what its upstream takes now: the sweep leaves the rest as rows.
    """

    machine: states.Machine
    line: str
    table: type[Workflow]
    steps: Sequence[Step[Any]]
    undo_state: str | None = None
    policy: Callable[[], Policy]
    load: Callable[[Session, UUID], Any]
    held: Callable[[Session, Any], str | None]
    failed: Callable[[Any, Failure], Ending]
    asked: Callable[[Any], Ending]
    entered: Callable[[Session, Any, str], Sequence[UUID]]
    observed: Callable[[Any, Verdict], None]
    lock: Callable[[Session, Any], None] = _no_lock
    clear: Callable[[Session, Any], Mapping[str, Any]] | None = None
    pace: Callable[[], Pace] = Pace

    def step_in(self, state: str) -> Step[Any] | None:
        """The step that runs in this state; None in finished states and where somebody else moves next."""
        of = self.machine.rest(state, in_doubt=False)
        return next((step for step in self.steps if step.of == of), None)

    def taken_in(self, step: Step[Any]) -> frozenset[str]:
        """The states in which a free workflow may be taken for this step."""
        return frozenset(self.machine.rest(step.of, in_doubt=doubt) for doubt in (False, True))

    def step_named(self, name: str) -> Step[Any]:
        return next(step for step in self.steps if step.name == name)

    def remaining(self, state: str) -> list[str]:
        """The task names of all steps from this state on, in order, when everything goes well."""
        names, step = [], self.step_in(state)
        while step:
            names.append(f"{self.line}.{step.name}")
            step = self.step_in(step.to)
        return names

    def is_undoing(self, state: str) -> bool:
        return state == self.undo_state
