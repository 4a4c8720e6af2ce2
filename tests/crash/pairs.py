"""All pairs of crash points: a worker dies, the one that recovers dies, a third one brings it to its end.

Not collected with the other tests; `make crash` runs them.
"""

from collections.abc import Callable

import pytest

from tests.crash.conftest import Trial
from tests.crash.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.timeout(1_800)  # the longest way has hundreds of pairs


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_two_workers_may_die_anywhere(
    trial: Callable[[Scenario], Trial], scenario: Scenario, record_property: Callable[[str, object], None]
) -> None:
    tries = trial(scenario)
    for first in range(len(tries.way())):
        second = 0
        while tries.twice(first, second):
            second += 1
    record_property("crash points", (scenario.name, "dies twice", *tries.row()))
    assert tries.wrong == []
