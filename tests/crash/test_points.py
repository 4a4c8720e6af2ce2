"""A worker dies, or stalls, at every boundary of every flow; another recovers. The ledger and the row decide."""

from collections.abc import Callable

import pytest

from sandbox import Sandbox
from tests.crash.carrying import carry
from tests.crash.conftest import Parent, Scenario, Table, stall
from tests.crash.scenarios import SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
@pytest.mark.parametrize("how", ["die", "stall"])
def test_every_boundary(
    parent: Parent, upstreams: Sandbox, forget: Callable[[], None], scenario: Scenario, how: str
) -> None:
    table, number = Table(), 0
    points, _ = attempt(parent, upstreams, forget, scenario, number, None, how, table)
    for at, boundary in enumerate(points):
        number += 1
        reached, _ = attempt(parent, upstreams, forget, scenario, number, at, how, table)
        assert reached[at] == boundary, "another way than before"
    print(f"{scenario.name}, {how}: {len(table.tried)} boundaries, {number} tries, {len(table.wrong)} wrong")
    assert table.wrong == []


def attempt(parent, upstreams, forget, scenario, number, at, how, table):
    upstreams.clear_faults() if hasattr(upstreams, "clear_faults") else None
    forget()
    correlation = f"crash-{how}-{number}"
    workflow_id = scenario.begin(upstreams, correlation)
    reached, stalls = parent.run(workflow_id, at=at, how=how)
    if stalls:
        stall()
        carry(workflow_id)
        parent.go_on()
    table.add(scenario.name, reached[-1], how, scenario.right(upstreams, correlation, workflow_id))
    return reached, stalls
