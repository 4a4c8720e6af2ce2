"""The engine: dispatch a workflow, take it, run one step of it, conclude.

It knows nothing of any line. Every call to an upstream ends as one of the outcomes of `app.steps`; after `Unknown`, or
after a worker died in mid-step, `find` runs before `do` may run again. All results of a step (values, move, history,
calls, follow-up workflows) are one transaction, guarded by the fence. The protocol is checked exhaustively by the model
in `tests/model`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app import config, db, errors, metrics, queue, steps
from app.db import Session
from app.flows import lines, worker
from app.flows.flow import Ending, Flow, Verdict
from app.flows.work import LeasedWork
from app.steps import Failure, Nothing, Ok, Outcome, Rejected, Retry, Step, Unknown
from app.store import workflows
from app.store.workflows import Seen

log = structlog.get_logger("engine")


@dataclass(frozen=True, kw_only=True)
class NotCalled(Outcome):
    """The engine's own outcome: the call was certainly not sent."""

    after: float
    reason: str


class Next(Enum):
    """What follows a verb."""

    AGAIN = auto()  # the same holder goes on in the same step
    CHAIN = auto()  # moved on: the chain's next task may take it
    STOP = auto()  # the row carries its own future


def dispatch(workflow_id: UUID) -> None:
    """Enqueue what remains of a workflow: starting, retrying and resuming are the same thing.

    Best effort, never raises: if the broker is away the sweep delivers.
    """
    with db.transaction() as session:
        seen = workflows.read(session, workflow_id)
    if seen:
        try:
            send(seen.kind, seen.state, workflow_id, priority=seen.priority)
        except errors.BrokerAway as away:
            log.warning("engine.broker-away", reason=str(away))


def send(kind: str, state: str, workflow_id: UUID, *, priority: int) -> None:
    """Enqueue the chain of a workflow's remaining steps. Raises BrokerAway."""
    if names := lines.FLOWS[kind].remaining(state):
        queue.send(names, workflow_id, priority=priority)


def run(workflow_id: UUID) -> None:
    """Carry a workflow through all that can be done now, in this thread: what the sweep does without a broker."""
    while True:
        with db.transaction() as session:
            seen = workflows.read(session, workflow_id)
        step = seen and lines.FLOWS[seen.kind].step_in(seen.state)
        if not seen or not step or not perform(seen.kind, step.name, workflow_id):
            return


def perform(kind: str, step_name: str, workflow_id: UUID) -> bool:
    """Take the workflow if it is free, due and at this step, and run the step. True: the next step may follow.

    Safe to call twice, late, or for anything at all: with nothing to take, nothing happens.
    """
    flow = lines.FLOWS[kind]
    step = flow.step_named(step_name)
    if worker.stopping():
        return False
    lease = flow.policy().lease
    with db.transaction() as session:
        seen = workflows.take(session, workflow_id, state=step.of, worker=worker.incarnation(), lease=lease)
    if seen is None:
        return False
    with structlog.contextvars.bound_contextvars(
        workflow=str(seen.id), kind=kind, correlation_id=seen.correlation_id, step=step.name
    ):
        return Run(flow, step, seen).to_its_end()


class Run:
    """One holder's run of one step."""

    def __init__(self, flow: Flow, step: Step[Any], seen: Seen) -> None:
        self.flow, self.step, self.seen = flow, step, seen
        self.policy = flow.policy()
        self.undoing = flow.is_undoing(seen.state)
        self.record: Any = None

    def to_its_end(self) -> bool:
        """Run verbs until the row has moved or carries its own future. The lease is released on every exit."""
        try:
            with worker.gate(alone=self.seen.crashes >= worker.ALONE_AFTER_CRASHES, renew=self._renew):
                follows = Next.AGAIN
                while follows is Next.AGAIN:
                    follows = self._one_verb()
                return follows is Next.CHAIN
        except errors.LeaseLost:
            log.warning("engine.lease-lost")
        except Exception:
            log.exception("engine.step-crashed")
            self._let_go()
        return False

    def _renew(self) -> None:
        with db.transaction() as session:
            if not workflows.renew(session, self.seen, lease=self.policy.lease):
                raise errors.LeaseLost(str(self.seen.id))

    def _let_go(self) -> None:
        """An error of our own, outside of any verb: let go as it stands, and not at once again."""
        with db.transaction() as session:
            workflows.release(session, self.seen, after=self.policy.wait(1))

    def _one_verb(self) -> Next:
        with db.transaction() as session:
            self.record = self.flow.load(session, self.seen.id)
            held = self.flow.held(session, self.record)
            now = workflows.now(session)
            if held:
                self._guard(workflows.hold(session, self.seen, after=config.settings().hold_seconds))
        if held:
            log.info("engine.held", reason=held)
            return Next.STOP
        self.seen = replace(self.seen, now=now)
        if self.seen.in_doubt:
            return self._find()
        if self.record.asked and not self.undoing:
            return self._stop_as_asked()
        return self._do()

    # The two verbs

    def _do(self) -> Next:
        work = self._work("do")
        try:
            outcome, elapsed = self._call(self.step, "do", work)
        except errors.StopAsked:
            return Next.AGAIN
        if isinstance(outcome, NotCalled):
            return self._not_called(work, outcome)
        return self._conclude(self.step, "do", work, outcome, elapsed)

    def _find(self) -> Next:
        doubted = self.flow.step_named(str((self.seen.intent or {})["step"]))
        work = self._work("find")
        settled = self.seen.now >= self._settles_at()
        outcome, elapsed = self._call(doubted, "find" if doubted.find else "do", work)
        if isinstance(outcome, NotCalled):
            return self._not_called(work, outcome)
        if isinstance(outcome, Nothing):
            self._observe(doubted, "find", work, outcome, elapsed, settled=settled)
            return self._saw_nothing(work, outcome, settled=settled)
        return self._conclude(doubted, "find", work, outcome, elapsed)

    def _work(self, verb: str) -> LeasedWork:
        tries = self._tries(verb) + 1
        attempts = self.policy.attempts
        last = (attempts is not None and tries >= attempts) or self._past_deadline(self.seen.now)
        return LeasedWork(self.seen, self.step.name, lease=self.policy.lease, undoing=self.undoing, last_try=last)

    def _call(self, step: Step[Any], verb: str, work: LeasedWork) -> tuple[Outcome, float]:
        run = getattr(step, verb)
        begun = time.monotonic()
        try:
            outcome = run(self.record, work)
        except steps.Ended as ended:
            outcome = ended.outcome
        except errors.LeaseLost:
            self._keep_calls(work, verb)
            raise
        except errors.Interrupted as stopped:
            outcome = self._interrupted(work, stopped)
        except Exception:
            log.exception("engine.verb-crashed", verb=verb)
            bug = Failure(code="internal-error", http_status=502, message="An error of our own; it is logged.")
            outcome = Unknown(failure=bug) if work.intended else Retry(failure=bug)
        return outcome, time.monotonic() - begun

    def _interrupted(self, work: LeasedWork, stopped: errors.Interrupted) -> Outcome:
        """Not called, unless a call with effects had been let through before: then only find can tell."""
        if work.intended:
            return Unknown(failure=Failure(code="upstream-timeout", http_status=504, message="No answer was received."))
        if isinstance(stopped, errors.NotSent):
            return NotCalled(after=stopped.after, reason=stopped.reason)
        raise stopped

    def _observe(
        self, step: Step[Any], verb: str, work: LeasedWork, outcome: Outcome, elapsed: float, *, settled: bool = False
    ) -> None:
        word = type(outcome).__name__.lower()
        metrics.engine_steps.labels(self.flow.machine.kind, step.name, verb, word).inc()
        self.flow.observed(self.record, Verdict(step.name, verb, outcome, elapsed, work.calls, settled))

    # What follows an outcome

    def _conclude(self, step: Step[Any], verb: str, work: LeasedWork, outcome: Outcome, elapsed: float) -> Next:
        self._observe(step, verb, work, outcome, elapsed)
        self._remember(outcome.values)
        match outcome:
            case Ok():
                return self._went_well(step, verb, work, outcome)
            case Rejected(failure=failure):
                return self._fail(work, outcome, failure, verb=verb, in_doubt=verb == "find")
            case Retry():
                return self._try_again(work, outcome, verb)
            case Unknown():
                return self._in_doubt(work, outcome, verb)
        raise TypeError(f"{step.name}.{verb} returned {outcome!r}")

    def _went_well(self, step: Step[Any], verb: str, work: LeasedWork, outcome: Ok) -> Next:
        to = outcome.state
        if to is None and step.of == self.seen.state and step.complete(self.record):
            to = step.to
        if to is not None:
            reason = outcome.reason or (f"{step.name} adopted" if verb == "find" else step.name)
            return self._move(work, outcome, verb, to, reason=reason, failure=outcome.failure)
        with db.transaction() as session:
            self._guard(workflows.progress(session, self.seen, lease=self.policy.lease), work, verb)
            self._store(session, work, verb, outcome)
        self.seen = replace(self.seen, intent=None, in_doubt=False, attempt=0)
        return Next.AGAIN

    def _try_again(self, work: LeasedWork, outcome: Retry, verb: str) -> Next:
        finding = verb == "find"
        tries = self._tries(verb) + (not outcome.free)
        limit = outcome.limit or self.policy.attempts
        used_up = not finding and not outcome.free and limit is not None and tries >= limit
        if used_up or self._past_deadline():
            return self._fail(work, outcome, self._undecided(outcome.failure, finding), verb=verb, in_doubt=finding)
        after = self.policy.wait(tries) if outcome.after is None else outcome.after
        intent = {**(self.seen.intent or {}), "finds": tries} if finding else None
        attempt = self.seen.attempt if finding else tries
        return self._later(work, outcome, verb, after=after, attempt=attempt, intent=intent)

    def _in_doubt(self, work: LeasedWork, outcome: Unknown, verb: str) -> Next:
        """The row keeps its intent: find looks soon, and again when the call has settled."""
        if verb == "find":
            return self._try_again(work, Retry(failure=outcome.failure, values=outcome.values), verb)
        with db.transaction() as session:
            stored = workflows.read(session, self.seen.id)
        if stored is None or not stored.intent:
            raise errors.LeaseLost(str(self.seen.id))
        intent = {**stored.intent, "failure": _as_json(outcome.failure)}
        attempt = self.seen.attempt + 1
        return self._later(work, outcome, verb, after=self.policy.find_after, attempt=attempt, intent=intent)

    def _saw_nothing(self, work: LeasedWork, outcome: Outcome, *, settled: bool) -> Next:
        """The upstream shows no trace of the lost call: wait until it has settled, then do it again or give up."""
        if not settled and self._past_deadline():
            return self._fail(work, outcome, self._undecided(self._lost_failure(), True), verb="find", in_doubt=True)
        if not settled:
            wait = max((self._settles_at() - self.seen.now).total_seconds(), 0.1)
            return self._later(
                work, outcome, "find", after=wait, attempt=self.seen.attempt, intent=self.seen.intent
            )
        limit = self.policy.attempts
        if (limit is not None and self.seen.attempt >= limit and not self.undoing) or self._past_deadline():
            return self._fail(work, outcome, self._lost_failure(), verb="find", in_doubt=False)
        with db.transaction() as session:
            self._guard(workflows.settle(session, self.seen, lease=self.policy.lease), work, "find")
            self._store(session, work, "find", outcome)
        self.seen = replace(self.seen, intent=None, in_doubt=False)
        return Next.AGAIN

    def _not_called(self, work: LeasedWork, outcome: NotCalled) -> Next:
        """Certainly not sent: no attempt used; a doubt that was there before stays."""
        doubt = self.seen.in_doubt
        if self._past_deadline() and outcome.after > 0:
            late = Failure(code="deadline-exceeded", http_status=504, message="The deadline passed while waiting.")
            failure = self._undecided(late, finding=doubt)
            return self._fail(work, outcome, failure, verb="find" if doubt else "do", in_doubt=doubt)
        log.info("engine.not-called", reason=outcome.reason, after=outcome.after)
        return self._later(
            work, outcome, "do", after=outcome.after, attempt=self.seen.attempt, intent=self.seen.intent if doubt else None
        )

    def _stop_as_asked(self) -> Next:
        ending = self.flow.asked(self.record)
        return self._end(self._work("do"), Ok(), "do", ending, reason=f"{self.record.asked} asked for")

    def _fail(self, work: LeasedWork, outcome: Outcome, failure: Failure, *, verb: str, in_doubt: bool) -> Next:
        self.record.in_doubt = in_doubt
        ending = self.flow.failed(self.record, failure)
        if not in_doubt:
            self.seen = replace(self.seen, intent=None)
        return self._end(work, outcome, verb, ending, reason=failure.code, failure=failure, in_doubt=in_doubt)

    def _end(
        self, work: LeasedWork, outcome: Outcome, verb: str, ending: Ending, *, reason: str,
        failure: Failure | None = None, in_doubt: bool = False,
    ) -> Next:  # fmt: skip
        self._remember(ending.values)
        outcome = replace(outcome, values={**outcome.values, **ending.values})
        return self._move(
            work, outcome, verb, ending.state,
            reason=reason, failure=failure, in_doubt=in_doubt, deadline=ending.deadline,
        )  # fmt: skip

    def _remember(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(self.record, name, value)

    # Writing it down: one transaction each

    @db.persistent
    def _move(
        self, work: LeasedWork, outcome: Outcome, verb: str, to: str, *, reason: str,
        failure: Failure | None = None, in_doubt: bool = False, deadline: float | None = None,
    ) -> Next:  # fmt: skip
        columns = self._error_columns(failure, verb)
        if not in_doubt:
            columns |= {"intent": None, "in_doubt": False}
        with db.transaction() as session:
            self._guard(
                workflows.move(
                    session, self.seen, to, actor="worker", reason=reason, deadline=deadline,
                    lead=config.settings().redispatch_seconds, crashes=0, **columns,
                ), work, verb,
            )  # fmt: skip
            self._store(session, work, verb, outcome)
            enter(session, self.flow, self.record, to)
            planned = self.step.to == to
            if not planned and self.flow.step_in(to):
                db.after_commit(session, partial(dispatch, self.seen.id))
        log.info("engine.moved", of=self.seen.state, to=to, reason=reason)
        return Next.CHAIN if planned and self.flow.step_in(to) else Next.STOP

    def _error_columns(self, failure: Failure | None, verb: str) -> dict[str, Any]:
        """The first error stands: what goes wrong while undoing never replaces it."""
        if failure is None or self.undoing:
            return {"attempt": 0} if failure is None else {}
        tried = 1 if verb == "do" and not self.seen.in_doubt else 0
        release = config.settings().release
        return {"error": error_object(self.step.name, failure), "attempt": self.seen.attempt + tried, "release": release}

    @db.persistent
    def _later(
        self, work: LeasedWork, outcome: Outcome, verb: str, *, after: float, attempt: int,
        intent: Mapping[str, Any] | None,
    ) -> Next:  # fmt: skip
        with db.transaction() as session:
            self._guard(
                workflows.later(
                    session, self.seen, after=after, attempt=attempt, intent=intent, in_doubt=intent is not None
                ), work, verb,
            )  # fmt: skip
            self._store(session, work, verb, outcome)
        log.info("engine.later", verb=verb, outcome=type(outcome).__name__, seconds=round(after, 1), attempt=attempt)
        return Next.STOP

    def _store(self, session: Session, work: LeasedWork, verb: str, outcome: Outcome) -> None:
        workflows.save(session, self.flow.table, self.seen.id, outcome.values)
        workflows.add_calls(session, self.seen, self.step.name, verb, work.calls)

    def _guard(self, written: bool, work: LeasedWork | None = None, verb: str = "do") -> None:
        if not written:
            if work:
                self._keep_calls(work, verb)
            raise errors.LeaseLost(str(self.seen.id))

    def _keep_calls(self, work: LeasedWork, verb: str) -> None:
        """What was really called belongs in the timeline, also when the lease is lost."""
        with db.transaction() as session:
            workflows.add_calls(session, self.seen, self.step.name, verb, work.calls)

    # Reckoning

    def _tries(self, verb: str) -> int:
        return int((self.seen.intent or {}).get("finds", 0)) if verb == "find" else self.seen.attempt

    def _settles_at(self) -> datetime:
        at = datetime.fromisoformat(str((self.seen.intent or {})["at"])).astimezone(UTC)
        return at + timedelta(seconds=self.policy.settle)

    def _past_deadline(self, now: datetime | None = None) -> bool:
        if self.seen.deadline_at is None:
            return False
        if now is None:
            with db.transaction() as session:
                now = workflows.now(session)
        return now >= self.seen.deadline_at

    def _undecided(self, failure: Failure, finding: bool) -> Failure:
        if not finding:
            return failure
        message = f"It could not be learned whether the call took effect. {failure.message}".strip()
        return Failure(code="outcome-unknown", http_status=504, message=message[:200])

    def _lost_failure(self) -> Failure:
        """What is told of a call that was lost for good: how its last attempt ended."""
        kept = (self.seen.intent or {}).get("failure")
        if kept:
            return Failure(**kept)
        return Failure(code="upstream-timeout", http_status=504, message="No answer was received.")


def enter(session: Session, flow: Flow, record: Any, state: str) -> None:
    """What follows from a move, in its transaction: the line's follow-up workflows, dispatched after the commit."""
    for started in flow.entered(session, record, state):
        db.after_commit(session, partial(dispatch, started))


def error_object(step: str, failure: Failure) -> dict[str, Any]:
    """What `workflows.error` holds: the line-independent part of a contract's error object."""
    return {
        "step": step,
        "httpStatus": failure.http_status,
        "code": failure.code,
        "message": failure.message,
        **failure.extra,
        "retryable": failure.retryable,
    }


def _as_json(failure: Failure) -> dict[str, Any]:
    return {**vars(failure), "extra": dict(failure.extra)}
