"""How long the machines run: HYPOTHESIS_PROFILE is `quick` (the same examples each time) or `deep` (new ones)."""

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from app import boundaries, config
from app.flows import claim_steps, dispatch, work, worker
from sandbox import Sandbox
from tests.machines.world import World

_COMMON: Any = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.generate, Phase.shrink),
}
PROFILES = {
    "quick": settings(max_examples=25, stateful_step_count=20, derandomize=True, **_COMMON),
    "deep": settings(max_examples=400, stateful_step_count=50, print_blob=True, **_COMMON),
}
FAST = {
    "LEASE_HEARTBEAT_SECONDS": 0.01,
    "LEASE_DEAD_SECONDS": 0.05,
    "MDG_RATE_PER_SECOND": 1000,
    "IMOVO_RATE_PER_SECOND": 1000,
    "TRAVEL_PAY_DELETE_CLAIM_PATH": "api/v3/claims/{claimId}",
}


@pytest.fixture
def world(
    database: None,
    upstreams: Sandbox,
    redis_server: Any,
    set_settings: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Workers, messages and time, as the machines play with them."""
    set_settings(**FAST)
    made = World(upstreams, redis.Redis.from_url(config.settings().redis_url))
    monkeypatch.setattr(worker, "incarnation", lambda: made.worker)
    monkeypatch.setattr(worker, "release", lambda: made.of_release)
    of_its_own = SimpleNamespace(run=lambda _, action: action())
    monkeypatch.setattr(worker, "suspects", of_its_own)  # each holder is a process of its own
    monkeypatch.setattr(work, "_boottime", made.boottime)
    monkeypatch.setattr(dispatch, "send", made.keep_message)
    monkeypatch.setattr(claim_steps, "_READ_AGAIN_SECONDS", 0.0)
    boundaries.listen(made.reached)
    yield made
    boundaries.listen(None)


@pytest.fixture
def run(world: World) -> Callable[[Callable[[World], RuleBasedStateMachine]], None]:
    """Run a machine as long as the profile says."""
    profile = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "quick")]
    return lambda machine: run_state_machine_as_test(lambda: machine(world), settings=profile)
