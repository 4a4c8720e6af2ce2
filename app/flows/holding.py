"""A workflow that this process holds: every write of its holder, each one transaction, each guarded by the fence.

A write that hits no row means that the right to write has moved on: `LeaseLost`, and nothing of it is stored but the
upstream calls that were really made, which belong in the timeline whoever holds the row.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from app import boundaries, config, db, errors
from app.db import Session
from app.flows import dispatch
from app.flows.flow import Flow
from app.flows.work import LeasedWork
from app.steps import Failure, Outcome, Step
from app.store import workflows
from app.store.workflows import Seen


class Holding:
    """The row as its holder sees it (`seen`), and the line's record of it (`record`, once loaded)."""

    def __init__(self, flow: Flow, step: Step[Any], seen: Seen) -> None:
        self.flow, self.step, self.seen = flow, step, seen
        self.policy = flow.policy()
        self.undoing = flow.is_undoing(seen.state)
        self.record: Any = None

    def load(self) -> str | None:
        """Read the record anew. Returns why accepted work must wait now, if so: then the row is let go for a while."""
        with db.statements() as session:
            if self.record is not None:  # time has passed since the take
                self.seen = replace(self.seen, now=workflows.now(session))
            self.record = self.flow.load(session, self.seen.id)
            self._must(self.record.fence == self.seen.fence)
            reason = self.flow.held(session, self.record)
        if reason:
            with db.transaction() as session:
                self._must(workflows.hold(session, self.seen, after=config.settings().hold_seconds))
        else:
            self._begin()
        return reason

    def _begin(self) -> None:
        """Where the machine shows it, the state says that somebody is at it."""
        to = self.seen.machine.busy(self.seen.state, in_doubt=self.seen.in_doubt)
        if to != self.seen.state:
            with db.transaction() as session:
                self._must(workflows.begin(session, self.seen, to))
            self.seen = replace(self.seen, state=to)

    def work(self, verb: str) -> LeasedWork:
        """The line to the engine for one verb."""
        limit = self.policy.attempts
        last = self.is_past_deadline(self.seen.now) or (limit is not None and self.tries(verb) + 1 >= limit)
        return LeasedWork(
            self.seen,
            self.step.name,
            verb,
            clearance=self._clear,
            lease=self.policy.lease,
            last_try=last,
            settled=verb == "find" and self.seen.now >= self.settles_at(),
        )

    def _clear(self, seen: Seen, intent: Mapping[str, Any]) -> Seen | None:
        """Store the intent, and with it what the line has to say about this call. None: no row was hit."""
        anyway = self.undoing or seen.in_doubt  # the repeat of a call in doubt is how its outcome is learned
        if self.flow.clear is None:
            with db.statements() as session:
                stored = workflows.intend(session, seen, intent, lease=self.policy.lease, anyway=anyway)
        else:
            with db.transaction() as session:
                self.flow.lock(session, self.record)
                stored = workflows.intend(session, seen, intent, lease=self.policy.lease, anyway=anyway)
                if stored:
                    self._remember(session, self.flow.clear(session, self.record))
        return replace(seen, state=seen.machine.busy(seen.state, in_doubt=True)) if stored else None

    def _remember(self, session: Session, values: Mapping[str, Any]) -> None:
        workflows.save(session, self.flow.table, self.seen.id, values)
        for name, value in values.items():
            setattr(self.record, name, value)

    def renew(self) -> None:
        with db.statements() as session:
            self._must(workflows.renew(session, self.seen, lease=self.policy.lease))

    def let_go(self) -> None:
        """An error of our own, outside of any verb: let go as it stands, to be tried again like any other failure."""
        tries = self.seen.attempt + 1
        with db.transaction() as session:
            workflows.release(session, self.seen, after=self.policy.wait(tries), attempt=tries)

    @db.persistent
    def progress(self, work: LeasedWork, outcome: Outcome) -> None:
        """A piece of the step is done, or a doubt has ended well: same state, same holder."""
        with db.transaction() as session:
            self.flow.lock(session, self.record)
            self._must(workflows.progress(session, self.seen, lease=self.policy.lease), work)
            self._store(session, work, outcome)
        self.seen = replace(self.seen, intent=None, in_doubt=False, attempt=0)

    @db.persistent
    def settle(self, work: LeasedWork, outcome: Outcome) -> bool:
        """The lost call had no effect: the doubt ends, the attempts used stay used. True: still held.

        Where the state shows the phases, the workflow starts over, and what remains is enqueued anew.
        """
        starts_over = self.seen.machine.phases is not None
        with db.transaction() as session:
            self.flow.lock(session, self.record)
            if starts_over:
                written = workflows.later(session, self.seen, after=0, attempt=self.seen.attempt, intent=None)
                db.after_commit(session, partial(dispatch.enqueue, self.seen.id))
            else:
                written = workflows.settle(session, self.seen, lease=self.policy.lease)
            self._must(written, work)
            self._store(session, work, outcome)
        self.seen = replace(self.seen, intent=None, in_doubt=False)
        return not starts_over

    @db.persistent
    def later(
        self, work: LeasedWork, outcome: Outcome, *, after: float, attempt: int, intent: Mapping[str, Any] | None = None
    ) -> None:
        """Let go with a future; in doubt where there is an intent. What is due at once is enqueued at once."""
        with db.transaction() as session:
            self.flow.lock(session, self.record)
            written = workflows.later(session, self.seen, after=after, attempt=attempt, intent=intent)
            self._must(written, work)
            self._store(session, work, outcome)
            if after <= 0:
                db.after_commit(session, partial(dispatch.enqueue, self.seen.id))

    @db.persistent
    def move(
        self,
        work: LeasedWork,
        outcome: Outcome,
        to: str,
        *,
        reason: str,
        in_doubt: bool = False,
        deadline: float | None = None,
        columns: Mapping[str, Any],
    ) -> bool:
        """Move and let go: values, calls, history and follow-up workflows with it. True: the chain may go on.

        Where the way goes on otherwise than planned, what remains is enqueued anew.
        """
        columns = {**columns} if in_doubt else {**columns, "intent": None, "in_doubt": False}
        lead = config.settings().redispatch_seconds
        with db.transaction() as session:
            db.after_commit(session, partial(boundaries.reach, self.step.name, boundaries.COMMITTED))
            self.flow.lock(session, self.record)
            self._add_calls(session, work)
            seen = self._on_the_way(session, to, work)
            written = workflows.move(
                session,
                seen,
                to,
                actor="worker",
                reason=reason,
                deadline=deadline,
                lead=lead,
                crashes=0,
                **columns,
            )
            self._must(written, work)
            workflows.save(session, self.flow.table, self.seen.id, outcome.values)
            dispatch.follow_up(session, self.seen.kind, self.record, to)
            goes_on = self.flow.step_in(to) is not None
            if goes_on and to != self.step.to:
                db.after_commit(session, partial(dispatch.enqueue, self.seen.id))
            boundaries.reach(self.step.name, boundaries.WRITTEN)
        return goes_on and to == self.step.to

    def _on_the_way(self, session: Session, to: str, work: LeasedWork) -> Seen:
        """The row as the move starts from it: back from its phase, where the table has no other way."""
        seen, machine = self.seen, self.seen.machine
        if machine.allows(seen.state, to):
            return seen
        self._must(workflows.later(session, seen, after=0, attempt=seen.attempt, intent=None), work)
        return replace(seen, state=machine.rest(seen.state, in_doubt=False))

    def keep_calls(self, work: LeasedWork) -> None:
        """What was really called belongs in the timeline, also when the lease is lost."""
        with db.statements() as session:
            self._add_calls(session, work)

    # Reckoning

    def tries(self, verb: str) -> int:
        """How often the step, or the find of the call in doubt, was tried."""
        return int((self.seen.intent or {}).get("finds", 0)) if verb == "find" else self.seen.attempt

    def settles_at(self) -> datetime:
        """From when on a find that sees nothing counts."""
        at = datetime.fromisoformat(str((self.seen.intent or {})["at"])).astimezone(UTC)
        return at + timedelta(seconds=self.policy.settle)

    def is_past_deadline(self, now: datetime | None = None) -> bool:
        if self.seen.deadline_at is None:
            return False
        if now is None:
            with db.statements() as session:
                now = workflows.now(session)
        return now >= self.seen.deadline_at

    def stored_intent(self, work: LeasedWork) -> dict[str, Any]:
        """The intent as it was written directly before the call. Raises LeaseLost."""
        with db.statements() as session:
            stored = workflows.read(session, self.seen.id)
        intent = stored.intent if stored and stored.fence == self.seen.fence else None
        self._must(bool(intent), work)
        return dict(intent or {})

    def _store(self, session: Session, work: LeasedWork, outcome: Outcome) -> None:
        workflows.save(session, self.flow.table, self.seen.id, outcome.values)
        self._add_calls(session, work)
        boundaries.reach(self.step.name, boundaries.WRITTEN)

    def _add_calls(self, session: Session, work: LeasedWork) -> None:
        workflows.add_calls(session, self.seen, self.step.name, work.verb, work.calls)

    def _must(self, written: bool, work: LeasedWork | None = None) -> None:
        if not written:
            if work:
                self.keep_calls(work)
            raise errors.LeaseLost(str(self.seen.id))


def error_object(step: str, failure: Failure, *, attempt: int) -> dict[str, Any]:
    """What `workflows.error` holds: the part of a contract's error object that does not depend on the line.

    `attempt`: how many times the step that failed was tried.
    """
    return {
        "step": step,
        "httpStatus": failure.http_status,
        "code": failure.code,
        "message": failure.message,
        **failure.extra,
        "retryable": failure.retryable,
        "attempt": attempt,
    }
