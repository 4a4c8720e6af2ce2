"""The real engine and store, played with: messages, workers that die or stall, time, and what must hold at each moment.

Every holder is a worker of its own. Time passes by shifting what the rows say; a stalled worker's clock goes along.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import redis
from sqlalchemy import text

from app import boundaries, db, states
from app.flows import engine, lines, sweep, worker
from app.models.orm import Table, new_id
from app.store import releases
from app.upstreams import imovo, mdg, travel_pay_access
from sandbox import Sandbox

T = TypeVar("T")
ROUNDS = 60
_MESSAGES = 12  # the oldest ones are lost
_SHIFT = """
    UPDATE workflows SET
        updated_at = updated_at - {by}, deadline_at = deadline_at - {by}, due_at = due_at - {by},
        wake_at = wake_at - {by}, finished_at = finished_at - {by},
        intent = CASE WHEN intent ? 'at' THEN jsonb_set(intent, '{{at}}',
            to_jsonb((intent ->> 'at')::timestamptz - {by})) ELSE intent END
"""
_PASS = text(_SHIFT.format(by="make_interval(secs => :seconds)"))
_UNTIL_DUE = text(
    _SHIFT.format(by="(greatest(due_at, wake_at) - clock_timestamp())")
    + " WHERE worker IS NULL AND greatest(due_at, wake_at) > clock_timestamp() AND due_at < 'infinity'"
)
_ROWS = text("""
    SELECT id, kind, state, worker, fence, in_doubt, intent, due_at, wake_at, finished_at, slot, error,
        (SELECT array_agg(ARRAY[m.of, m.to] ORDER BY m.id) FROM moves m
            WHERE m.workflow_id = w.id AND m.to IS NOT NULL) AS moves,
        (SELECT count(*) FROM moves m WHERE m.workflow_id = w.id AND m.reason = 'holder died') AS deaths
    FROM workflows w ORDER BY id
""")


_WRITTEN = ("workflows", "moves", "claims", "notifications", "declarations", "voucher_operations", "vouchers")
_EACH = ", ".join(f"(SELECT jsonb_agg(to_jsonb(t) ORDER BY t) FROM {name} t)" for name in _WRITTEN)  # noqa: S608 - ours
_ALL = text(f"SELECT {_EACH}")


class Death(BaseException):
    """The worker is no more: nothing that follows in it is run."""


@dataclass
class Stalled:
    """A worker that stands still at a boundary until it is told to go on."""

    worker: UUID
    thread: threading.Thread
    at: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)


class World:
    """One installation, whose workers are threads of this process."""

    def __init__(self, upstreams: Sandbox, broker: redis.Redis) -> None:
        self.upstreams, self._broker = upstreams, broker
        self.messages: list[tuple[str, str, UUID]] = []
        self.stalled: list[Stalled] = []
        self.doomed: list[int] = []  # a worker dies after so many boundaries, then one after so many more
        self.worker, self.of_release = new_id(), ""
        self._fences: dict[UUID, int] = {}
        self._ahead, self._is_mortal = 0.0, False
        self._plans: dict[int, Callable[[str], None]] = {}

    def begin(self) -> None:
        """Nothing has happened yet."""
        with db.transaction() as session:
            for table in reversed(Table.metadata.sorted_tables):
                session.execute(table.delete())
        self.upstreams.reset()
        self.upstreams.change({"claim_delete": True})
        self.messages, self.stalled, self.doomed, self._fences, self._ahead = [], [], [], {}, 0.0
        self.forget_limits()
        self.release("release-0")

    def forget_limits(self) -> None:
        """Breakers and limiters begin anew."""
        self._broker.flushall()
        for known in (travel_pay_access._gateways, imovo._upstreams, mdg._upstreams):
            known.clear()  # type: ignore[attr-defined]

    # Messages

    def keep_message(self, kind: str, state: str, workflow_id: UUID, *_: Any, **__: Any) -> None:
        """In the place of the broker: one message per step that remains, chained."""
        self.messages = [*self.messages[1 - _MESSAGES :], (kind, state, workflow_id)]

    def deliver(self, number: int, *, lost: bool = False) -> None:
        """A message comes, or gets lost; one that came may come again."""
        if self.messages:
            kind, state, workflow_id = self.messages[number % len(self.messages)]
            if lost:
                del self.messages[number % len(self.messages)]
            else:
                self._chain(kind, state, workflow_id)

    def _chain(self, kind: str, state: str, workflow_id: UUID) -> None:
        for name in lines.FLOWS[kind].remaining(state):
            if not self.perform(kind, name.partition(".")[2], workflow_id):
                return

    def work(self) -> None:
        """One sweep; then all messages come, once."""
        self.sweep()
        while self.messages:
            self._chain(*self.messages.pop(0))

    def sweep(self) -> None:
        self._mortal(sweep.sweep)

    # Workers

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self._ahead

    def reached(self, boundary: str) -> None:
        """A worker is at a boundary; it may die or stall there."""
        if plan := self._plans.get(threading.get_ident()):
            plan(boundary)
        elif self._is_mortal and self.doomed:
            self.doomed[0] -= 1
            if self.doomed[0] < 0:
                del self.doomed[0]
                raise Death

    def release(self, name: str) -> None:
        """All workers that take work from now on are of this release."""
        with db.transaction() as session:
            releases.announce(session, name)
        self.of_release = name
        self._new_worker()

    def _new_worker(self) -> None:
        self.worker = new_id()
        worker.beat()
        self._heart("infinity", self.worker)

    def _heart(self, at: str, one: UUID) -> None:
        with db.transaction() as session:
            session.execute(text("UPDATE workers SET beat_at = :at WHERE id = :one"), {"at": at, "one": one})

    def _mortal(self, run: Callable[[], T]) -> T | None:
        """Run it in a worker that may be doomed. If it dies, another one is there."""
        self._is_mortal = True
        try:
            return run()
        except Death:
            self._heart("-infinity", self.worker)
            self._new_worker()
            return None
        finally:
            self._is_mortal = False

    def perform(self, kind: str, step: str, workflow_id: UUID) -> bool:
        return bool(self._mortal(lambda: engine.perform(kind, step, workflow_id)))

    def stall(self, workflow_id: UUID, at: int, *, silent: bool) -> None:
        """The worker stalls at a boundary, its heart too if `silent`. Another one is there.

        Not within a transaction: Postgres ends those of who is silent for long, which is as if it had died.
        """
        stands = threading.Event()

        def plan(boundary: str) -> None:
            nonlocal at
            if boundary.endswith(boundaries.WRITTEN):
                return
            at -= 1
            if at == -1:
                stalled.at = boundary
                stands.set()
                assert stalled.go_on.wait(300)

        def run() -> None:
            self._plans[threading.get_ident()] = plan
            try:
                engine.run(workflow_id)
            finally:
                del self._plans[threading.get_ident()]
                stands.set()

        stalled = Stalled(self.worker, threading.Thread(target=run, daemon=True))
        stalled.thread.start()
        assert stands.wait(300)
        if at < 0 and stalled.thread.is_alive():
            self.stalled.append(stalled)
            if silent:
                self._heart("-infinity", self.worker)
            self._new_worker()
        stalled.thread.join(0 if at < 0 else 300)

    def wake(self, number: int = 0) -> None:
        """One that stalled goes on, to its end. What it no longer holds it leaves as it is."""
        if self.stalled:
            stalled = self.stalled.pop(number % len(self.stalled))
            holds = any(row.worker == stalled.worker for row in self.rows())
            through = stalled.at.endswith(boundaries.COMMITTED)  # it may take the next step, as anybody may
            before = self._everything()
            stalled.go_on.set()
            stalled.thread.join(300)
            assert not stalled.thread.is_alive(), "it stands still for good"
            assert holds or through or self._everything() == before, "who had lost the lease has written"

    def _everything(self) -> Any:
        with db.transaction() as session:
            return session.execute(_ALL).one()

    # Time

    def pass_time(self, seconds: float) -> None:
        """So much time passes for all."""
        with db.transaction() as session:
            session.execute(_PASS, {"seconds": seconds})
        self._ahead += seconds
        self.forget_limits()

    def come_to_rest(self) -> None:
        """Nothing new goes wrong: who is doomed dies, who stalls goes on, what is waited for comes."""
        for _ in range(ROUNDS):
            self.work()
            self.wake()
            if not self.stalled and all(row.due_at is None or row.due_at.year == 9999 for row in self.rows()):
                return
            with db.transaction() as session:
                session.execute(_UNTIL_DUE)
            self.forget_limits()
        unfinished = [(row.kind, row.state, row.error) for row in self.rows() if row.due_at]
        raise AssertionError(f"not at rest after {ROUNDS} rounds: {unfinished}")

    # What holds at every moment

    def rows(self) -> Sequence[Any]:
        with db.transaction() as session:
            return session.execute(_ROWS).all()

    def check(self) -> None:
        """What the tables say is sound, whatever has happened."""
        for row in self.rows():
            machine = states.MACHINES[row.kind]
            finished = machine.is_finished(row.state)
            assert (row.due_at is None) == (row.wake_at is None) == finished == (row.finished_at is not None)
            assert not (finished and row.worker)
            assert (row.intent is not None) == row.in_doubt
            if machine.phases and row.worker is None:
                assert row.state == machine.rest(row.state, in_doubt=row.in_doubt)
            assert row.fence >= self._fences.get(row.id, 0), "the fence fell"
            self._fences[row.id] = row.fence
            _check_history(machine, row)


def _check_history(machine: states.Machine, row: Any) -> None:
    """The moves are a legal way from the start to where the row is."""
    at: str | None = None
    for of, to in row.moves:
        assert of == at, f"{row.moves}: {of} -> {to} does not follow {at}"
        assert machine.allows(of, to) if of else to == machine.start, f"{of} -> {to} is no legal move"
        at = to
    assert at == row.state, f"the history ends in {at}, the row is {row.state}"


def was_given_up(row: Any) -> bool:
    """Its holders died three times running."""
    return (row.error or {}).get("code") == "crashed" and row.deaths >= sweep.POISONED_AFTER_CRASHES
