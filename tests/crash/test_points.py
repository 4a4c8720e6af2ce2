"""A worker dies, or stalls, at every boundary of every flow, and another recovers: the ledger and the row decide.

The table enumerates itself: an undisturbed worker tells which boundaries there are, and each of them is then tried.
"""

from collections.abc import Callable

import pytest

from app import boundaries
from app.flows import lines
from tests.crash.conftest import Trial
from tests.crash.scenarios import SCENARIOS, Scenario

UNTRIED = {"deliver"}  # a callback may come more than once; its receiver tells by the delivery's id
Record = Callable[[str, object], None]
Trials = Callable[[Scenario], Trial]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_worker_may_die_anywhere(trial: Trials, scenario: Scenario, record_property: Record) -> None:
    tries = trial(scenario)
    tries.die_at_each()
    record_property("crash points", (scenario.name, "dies", *tries.row()))
    assert tries.wrong == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_worker_may_stall_anywhere(trial: Trials, scenario: Scenario, record_property: Record) -> None:
    tries = trial(scenario)
    tries.stall_at_each()
    record_property("crash points", (scenario.name, "stalls", *tries.row()))
    assert tries.wrong == []


@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.overlapping], ids=lambda one: one.name)
def test_two_workers_may_be_at_it(trial: Trials, scenario: Scenario, record_property: Record) -> None:
    tries = trial(scenario)
    tries.overlap_at_each()
    record_property("crash points", (scenario.name, "overlaps", *tries.row()))
    assert tries.wrong == []


def test_no_verb_is_left_out(trial: Trials) -> None:
    """Each step's do and find is on the way of a scenario, so that a new one cannot be forgotten."""
    reached = {boundary for scenario in SCENARIOS for boundary in trial(scenario).way()}
    steps = [step for flow in lines.FLOWS.values() for step in flow.steps if step.name not in UNTRIED]
    missing = [
        f"{step.name}: {verb}"
        for step in steps
        for verb in ("do", "find")
        if getattr(step, verb) and f"{step.name}: {boundaries.called(verb)}" not in reached
    ]
    assert missing == []
