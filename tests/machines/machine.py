"""The rules that every line's machine has: messages, workers, time and faults."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.flows import lines
from app.models.orm import new_id
from tests.machines.world import World

SOME = st.integers(0, 11)
SILENT = 5  # seconds: who is silent for so long is dead
STEPS = [(kind, step.name) for kind, flow in lines.FLOWS.items() for step in flow.steps]
Fault = tuple[str, dict[str, Any]]
LOST: Sequence[Fault] = (
    ("drop-after", {}),
    ("drop-before", {}),
    ("status", {"status": 500, "effect": True}),
    ("status", {"status": 500}),
)
FLAKY: Sequence[Fault] = (
    ("drop-before", {}),
    ("status", {"status": 503}),
    ("html", {}),
    ("rate-limit", {"seconds": 5}),
    ("refuse-401", {}),
)
NO: Sequence[Fault] = (("status", {"status": 400}),)


class LineMachine(RuleBasedStateMachine):
    """What may happen to any workflow. `effects` and `reads` are the calls of the line."""

    effects: ClassVar[Sequence[str]] = ()
    reads: ClassVar[Sequence[str]] = ()

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        world.begin()

    def one(self, number: int) -> UUID:
        """Some workflow, of any line; one that does not exist where there is none."""
        ids = [row.id for row in self.world.rows()]
        return ids[number % len(ids)] if ids else new_id()

    @rule()
    def workers_work(self) -> None:
        self.world.work()

    @rule(number=SOME)
    def a_message_comes(self, number: int) -> None:
        self.world.deliver(number)

    @rule(number=SOME)
    def a_message_is_lost(self, number: int) -> None:
        self.world.deliver(number, lost=True)

    @rule(step=st.sampled_from(STEPS), number=SOME, known=st.booleans())
    def a_message_is_forged(self, step: tuple[str, str], number: int, *, known: bool) -> None:
        """Of its own line, at any step; of another line, or of nothing at all."""
        self.world.perform(*step, self.one(number) if known else new_id())

    @rule(after=st.integers(0, 15))
    def a_worker_will_die(self, after: int) -> None:
        self.world.doomed.append(after)

    @rule(number=SOME, at=st.integers(0, 12))
    def a_worker_stalls(self, number: int, at: int) -> None:
        if len(self.world.stalled) < 2:
            self.world.stall(self.one(number), at, silent=False)

    @rule(number=SOME, at=st.integers(0, 12), wakes=st.booleans())
    def a_worker_falls_silent(self, number: int, at: int, *, wakes: bool) -> None:
        """What it held is taken away. It may wake up before others have gone on with it."""
        if len(self.world.stalled) < 2:
            self.world.stall(self.one(number), at, silent=True)
            self.world.pass_time(SILENT)
            self.world.sweep()
            if wakes:
                self.world.wake(-1)

    @rule(number=SOME)
    def who_stalled_goes_on(self, number: int) -> None:
        self.world.wake(number)

    @rule(seconds=st.sampled_from((1, 8, 70, 600)))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @initialize(lost=st.lists(st.tuples(SOME, st.sampled_from(LOST)), min_size=1, max_size=4), after=st.integers(0, 30))
    def it_is_a_bad_day(self, lost: list[tuple[int, Fault]], after: int) -> None:
        """Whatever else happens, some answers will be lost, and one worker dies."""
        for number, fault in lost:
            self.a_call_will_go_wrong(number, fault)
        self.world.doomed.append(after)

    @rule(number=SOME, fault=st.sampled_from((*LOST, *FLAKY, *NO)))
    def a_call_goes_wrong(self, number: int, fault: Fault) -> None:
        self.a_call_will_go_wrong(number, fault)

    def a_call_will_go_wrong(self, number: int, fault: Fault) -> None:
        kind, more = fault
        self.world.upstreams.fault(self.effects[number % len(self.effects)], kind, times=1, **more)

    @rule(number=SOME, fault=st.sampled_from(FLAKY))
    def a_look_goes_wrong(self, number: int, fault: Fault) -> None:
        if self.reads:
            kind, more = fault
            self.world.upstreams.fault(self.reads[number % len(self.reads)], kind, times=1, **more)

    @invariant()
    def is_sound(self) -> None:
        self.world.check()
        self.nothing_twice()

    def nothing_twice(self) -> None:
        """No effect of a workflow stands at the upstream more often than its line allows."""
        raise NotImplementedError

    def everything_once(self) -> None:
        """All is at rest: what the rows say is what the upstream shows."""
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            self.world.come_to_rest()
            self.is_sound()
            self.everything_once()
        finally:
            while self.world.stalled:
                self.world.wake()


Run = Callable[[Callable[[World], LineMachine]], None]
