"""The engine: take a workflow, run one step of it, conclude.

It knows nothing of any line. Every call to an upstream ends as one of the outcomes of `app.steps`; after `Unknown`, or
after a worker died in mid-step, `find` runs before `do` may run again. The protocol is checked exhaustively by the
model in `tests/model`: change it there first.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app import boundaries, db, errors, metrics, steps
from app.flows import lines, worker
from app.flows.flow import Ending, Flow, Verdict
from app.flows.holding import Holding, error_object
from app.flows.work import LeasedWork
from app.steps import Failure, Nothing, Ok, Outcome, Rejected, Retry, Step, Unknown
from app.store import workflows
from app.store.workflows import Seen

log = structlog.get_logger("engine")
_BUG = Failure(code="internal-error", http_status=502, message="An error of our own; it is logged.")
_SILENCE = Failure(code="upstream-timeout", http_status=504, message="No answer was received.")
_TOO_LATE = Failure(
    code="deadline-exceeded", http_status=504, message="The deadline passed while waiting for the upstream."
)
_POSTGRES_BACK_SECONDS = 1.0
_LATE = {"rate-limited": Failure(code="rate-limited", http_status=429, message="The upstream allows no more calls.")}


class Next(Enum):
    """What follows a verb."""

    AGAIN = auto()  # the same holder goes on in the same step
    CHAIN = auto()  # moved on as planned: the chain's next task may take it
    STOP = auto()  # the row carries its own future


@dataclass(frozen=True, kw_only=True)
class NotCalled(Outcome):
    """The engine's own outcome: the call was certainly not sent."""

    after: float
    reason: str


def run(workflow_id: UUID) -> None:
    """Carry a workflow through all that can be done now, in this thread: what the sweep does without a broker."""
    while True:
        with db.statements() as session:
            seen = workflows.read(session, workflow_id)
        step = seen and lines.FLOWS[seen.kind].step_in(seen.state)
        if not seen or not step or not perform(seen.kind, step.name, workflow_id):
            return


def perform(kind: str, step_name: str, workflow_id: UUID) -> bool:
    """Take the workflow if it is free, due and at this step, and run the step. True: the next step may follow.

    Safe to call twice, late, or for anything at all: with nothing to take, nothing happens. Rows whose holders died
    again and again run one at a time, and the sweep offers their next steps.
    """
    flow = lines.FLOWS[kind]
    step = flow.step_named(step_name)
    seen = _take(flow, step, workflow_id, fewer_crashes_than=worker.SUSPECT_AFTER_CRASHES)
    if seen:
        return _run(flow, step, seen)
    if _is_suspect(workflow_id):
        worker.suspects.run(workflow_id, partial(_run_suspect, flow, step, workflow_id))
    return False


def _is_suspect(workflow_id: UUID) -> bool:
    with db.statements() as session:
        seen = workflows.read(session, workflow_id)
    return bool(seen and seen.crashes >= worker.SUSPECT_AFTER_CRASHES)


def _run_suspect(flow: Flow, step: Step[Any], workflow_id: UUID) -> None:
    if seen := _take(flow, step, workflow_id, fewer_crashes_than=workflows.ANY_NUMBER):
        _run(flow, step, seen)


def _take(flow: Flow, step: Step[Any], workflow_id: UUID, *, fewer_crashes_than: int) -> Seen | None:
    if worker.stopping():
        return None
    with db.statements() as session:
        seen = workflows.take(
            session,
            flow.machine.kind,
            workflow_id,
            among=flow.taken_in(step),
            worker=worker.incarnation(),
            release=worker.release(),
            lease=flow.policy().lease,
            fewer_crashes_than=fewer_crashes_than,
        )
    if seen:
        boundaries.reach(step.name, boundaries.TAKEN)
    return seen


def _run(flow: Flow, step: Step[Any], seen: Seen) -> bool:
    with structlog.contextvars.bound_contextvars(
        workflow=str(seen.id), kind=seen.kind, correlation_id=seen.correlation_id, step=step.name
    ):
        try:
            return Run(Holding(flow, step, seen)).to_its_end()
        finally:
            worker.marks.rests()


class Run:
    """One holder's run of one step: which verb comes, and what follows from how it ended."""

    def __init__(self, held: Holding) -> None:
        self.held = held

    def to_its_end(self) -> bool:
        """Run verbs until the row has moved or carries its own future. The lease is released on every exit."""
        held = self.held
        try:
            follows = Next.AGAIN
            while follows is Next.AGAIN:
                follows = self._next_verb()
            return follows is Next.CHAIN
        except errors.LeaseLost:
            log.warning("engine.lease-lost")
        except Exception:
            log.exception("engine.step-crashed")
            held.let_go()
        return False

    def _next_verb(self) -> Next:
        held = self.held
        worker.marks.works(held.seen.kind, held.policy.lease)
        if reason := held.load():
            log.info("engine.held", reason=reason)
            return Next.STOP
        if held.seen.in_doubt:
            return self._find() if self._doubted().find else self._do()
        if held.record.asked and not held.undoing:
            ending = held.flow.asked(held.record)
            return self._end(held.work("do"), Ok(), ending, reason=f"{held.record.asked} asked for")
        return self._do()

    def _do(self) -> Next:
        work = self.held.work("do")
        try:
            return self._conclude(self.held.step, work, *self._call(self.held.step, work))
        except errors.StopAsked:
            self.held.keep_calls(work)
            return Next.AGAIN

    def _find(self) -> Next:
        doubted, work = self._doubted(), self.held.work("find")
        return self._conclude(doubted, work, *self._call(doubted, work))

    def _doubted(self) -> Step[Any]:
        """The step whose call is in doubt."""
        return self._doubted_by(self.held.seen.intent or {})

    def _doubted_by(self, intent: Mapping[str, Any]) -> Step[Any]:
        return self.held.flow.step_named(str(intent["step"]))

    def _call(self, step: Step[Any], work: LeasedWork) -> tuple[Outcome, float]:
        verb = step.find if work.verb == "find" and step.find else step.do
        begun = time.monotonic()
        try:
            outcome = verb(self.held.record, work)
        except steps.Ended as ended:
            outcome = ended.outcome
        except errors.LeaseLost:
            self.held.keep_calls(work)
            raise
        except errors.Interrupted as stopped:
            outcome = _interrupted(work, stopped)
        except Exception as error:
            if db.unreachable(error):
                outcome = _interrupted(work, errors.NotSent("postgres-away", after=_POSTGRES_BACK_SECONDS))
            else:
                log.exception("engine.verb-crashed", verb=work.verb)
                outcome = Unknown(failure=_BUG) if work.intended else Retry(failure=_BUG)
        self.held.seen = replace(self.held.seen, state=work.seen.state)
        boundaries.reach(step.name, boundaries.called(work.verb))
        return outcome, time.monotonic() - begun

    # What follows an outcome

    def _conclude(self, step: Step[Any], work: LeasedWork, outcome: Outcome, seconds: float) -> Next:
        self._observe(step, work, outcome, seconds)
        self._remember(outcome.values)
        match outcome:
            case Ok():
                return self._went_well(step, work, outcome)
            case Rejected(failure=failure):
                return self._fail(work, outcome, failure, in_doubt=self.held.seen.in_doubt)
            case Retry():
                return self._try_again(work, outcome)
            case Unknown():
                return self._in_doubt(work, outcome)
            case Nothing():
                return self._saw_nothing(work, outcome)
        if isinstance(outcome, NotCalled):
            return self._not_called(work, outcome)
        raise TypeError(f"{step.name}.{work.verb} returned {outcome!r}")

    def _went_well(self, step: Step[Any], work: LeasedWork, outcome: Ok) -> Next:
        held = self.held
        to = outcome.state
        if to is None and held.flow.step_in(held.seen.state) is step and step.complete(held.record):
            to = step.to
        if to is None:
            held.progress(work, outcome)
            return Next.AGAIN
        reason = outcome.reason or (f"{step.name} adopted" if work.verb == "find" else step.name)
        return self._move(work, outcome, to, reason=reason, failure=outcome.failure)

    def _try_again(self, work: LeasedWork, outcome: Retry) -> Next:
        held, finding, doubt = self.held, work.verb == "find", self.held.seen.in_doubt
        tries = held.tries(work.verb) + (not outcome.free)
        limit = outcome.limit or held.policy.attempts
        used_up = not finding and not outcome.free and limit is not None and tries >= limit
        if used_up or held.is_past_deadline():
            failure = _undecided(outcome.failure) if doubt else outcome.failure
            return self._fail(work, outcome, failure, in_doubt=doubt)
        after = held.policy.wait(tries) if outcome.after is None else outcome.after
        intent: Mapping[str, Any] | None = None
        if doubt:
            intent = {**(held.seen.intent or {}), "finds": tries} if finding else held.stored_intent(work)
        return self._later(work, outcome, after=after, attempt=held.seen.attempt if finding else tries, intent=intent)

    def _in_doubt(self, work: LeasedWork, outcome: Unknown) -> Next:
        """The row keeps its intent: find looks soon, and again when the call has settled; or the call is repeated."""
        held = self.held
        if held.seen.in_doubt:
            return self._try_again(work, Retry(failure=outcome.failure, values=outcome.values))
        failure = {**vars(outcome.failure), "extra": dict(outcome.failure.extra)}
        intent = {**held.stored_intent(work), "failure": failure}
        tries = held.seen.attempt + 1
        after = held.policy.find_after if self._doubted_by(intent).find else held.policy.wait(tries)
        return self._later(work, outcome, after=after, attempt=tries, intent=intent)

    def _saw_nothing(self, work: LeasedWork, outcome: Nothing) -> Next:
        """The upstream shows no trace of the lost call: wait until it has settled, then do it again or give up.

        A repeat that a late effect cannot harm need not wait. An end must: nothing would look for the effect any more.
        """
        held = self.held
        lost = self._how_the_lost_call_ended()
        late = held.is_past_deadline()
        limit = held.policy.attempts
        gives_up = late or (limit is not None and held.seen.attempt >= limit and not held.undoing)
        repeats = not (gives_up or held.record.asked)
        if not work.settled and not (outcome.at_once and repeats):
            if late:
                return self._fail(work, outcome, _undecided(lost), in_doubt=True)
            wait = max((held.settles_at() - held.seen.now).total_seconds(), 0.1)
            return self._later(work, outcome, after=wait, attempt=held.seen.attempt, intent=held.seen.intent)
        if gives_up:
            return self._fail(work, outcome, lost, in_doubt=False)
        if outcome.at_once:
            return self._later(work, outcome, after=held.policy.wait(held.seen.attempt), attempt=held.seen.attempt)
        return Next.AGAIN if held.settle(work, outcome) else Next.STOP

    def _how_the_lost_call_ended(self) -> Failure:
        kept = (self.held.seen.intent or {}).get("failure")
        return Failure(**kept) if kept else _SILENCE

    def _not_called(self, work: LeasedWork, outcome: NotCalled) -> Next:
        """Certainly not sent: no attempt used; a doubt that was there before stays."""
        held, doubt = self.held, self.held.seen.in_doubt
        if outcome.after > 0 and held.is_past_deadline():
            late = _LATE.get(outcome.reason, _TOO_LATE)
            return self._fail(work, outcome, _undecided(late) if doubt else late, in_doubt=doubt)
        log.info("engine.not-called", reason=outcome.reason)
        intent = held.seen.intent if doubt else None
        return self._later(work, outcome, after=outcome.after, attempt=held.seen.attempt, intent=intent)

    def _fail(self, work: LeasedWork, outcome: Outcome, failure: Failure, *, in_doubt: bool) -> Next:
        self.held.record.in_doubt = in_doubt
        ending = self.held.flow.failed(self.held.record, failure)
        return self._end(work, outcome, ending, reason=failure.code, failure=failure, in_doubt=in_doubt)

    def _end(
        self,
        work: LeasedWork,
        outcome: Outcome,
        ending: Ending,
        *,
        reason: str,
        failure: Failure | None = None,
        in_doubt: bool = False,
    ) -> Next:
        self._remember(ending.values)
        outcome = replace(outcome, values={**outcome.values, **ending.values})
        return self._move(
            work, outcome, ending.state, reason=reason, failure=failure, in_doubt=in_doubt, deadline=ending.deadline
        )

    def _move(
        self, work: LeasedWork, outcome: Outcome, to: str, *, reason: str, failure: Failure | None = None, **more: Any
    ) -> Next:
        columns = self._columns(work, to, failure)
        goes_on = self.held.move(work, outcome, to, reason=reason, columns=columns, **more)
        log.info("engine.moved", of=self.held.seen.state, to=to, reason=reason)
        return Next.CHAIN if goes_on else Next.STOP

    def _columns(self, work: LeasedWork, to: str, failure: Failure | None) -> dict[str, Any]:
        """The first error stands: what goes wrong while undoing never replaces it. Undo has attempts of its own."""
        if failure is None:
            return {"attempt": 0}
        if self.held.undoing:
            return {}
        tried = self.held.seen.attempt + (work.verb == "do")
        error = error_object(self.held.step.name, failure, attempt=tried)
        left = 0 if self.held.flow.is_undoing(to) else tried
        return {"error": error, "attempt": left, "release": worker.release()}

    def _later(self, work: LeasedWork, outcome: Outcome, *, after: float, attempt: int, intent: Any = None) -> Next:
        self.held.later(work, outcome, after=after, attempt=attempt, intent=intent)
        ended = type(outcome).__name__
        log.info("engine.later", verb=work.verb, outcome=ended, seconds=round(after, 1), attempt=attempt)
        return Next.STOP

    def _remember(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(self.held.record, name, value)

    def _observe(self, step: Step[Any], work: LeasedWork, outcome: Outcome, seconds: float) -> None:
        word = type(outcome).__name__.lower()
        metrics.engine_steps.labels(self.held.seen.kind, step.name, work.verb, word).inc()
        verdict = Verdict(step.name, work.verb, outcome, seconds, work.calls, work.settled)
        self.held.flow.observed(self.held.record, verdict)


def _interrupted(work: LeasedWork, stopped: errors.Interrupted) -> Outcome:
    """Not called, unless a call with effects had been let through before: then only find can tell."""
    if work.intended:
        return Unknown(failure=_SILENCE)
    if isinstance(stopped, errors.NotSent):
        return NotCalled(after=stopped.after, reason=stopped.reason)
    raise stopped


def _undecided(failure: Failure) -> Failure:
    message = f"It could not be learned whether the call took effect. {failure.message}".strip()
    return Failure(code="outcome-unknown", http_status=504, message=message[:200])
