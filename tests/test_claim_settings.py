"""Every variable of the travel-claims line has an effect."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import config, states
from app.flows import claims, engine, notifications
from sandbox import Sandbox
from tests.flows.conftest import quick, row
from tests.flows.test_claim_requests import advance
from tests.flows.test_claim_rules import due_in, file_claim, lose_create, pass_the_time, seconds_left
from tests.flows.test_claims import carry, texts_of

S = states.Claim
__all__ = ["quick"]  # a fixture, used by its name
Set = Callable[..., None]
APP = Path(__file__).parents[1] / "app"
GROUPS = {"travel_pay": config.TravelPay, "travel_claims": config.TravelClaims, "notify": config.Notify}
FIELDS = [(group, name) for group, settings in GROUPS.items() for name in settings.model_fields]
BY_PRODUCT = re.compile(r"^(pci|oh)_|^(sms_sender_id|template)_(pci|oh)")  # read by a name that is put together


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_no_variable_is_read_for_nothing(group: str, name: str) -> None:
    sources = [path.read_text() for path in APP.rglob("*.py") if path.name not in {"config.py", "variables.py"}]
    used = re.compile(rf"\.{name}\b|\"{name}\"")
    assert BY_PRODUCT.search(name) or any(used.search(source) for source in sources)


def test_versions_change_the_paths_of_their_calls(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    keys = ("system-access-token", "find-or-add", "claims", "claims-search", "mileage", "expenses")
    versions = {key: f"v{number}" for number, key in enumerate(keys, 11)}
    set_settings(TRAVEL_PAY_VERSIONS=",".join(f"{key}={version}" for key, version in versions.items()))
    both = [{"type": "mileage"}, {"type": "toll", "costRequested": 1}]
    assert carry(file_claim(expenses=both)).state == S.SUBMITTED
    paths = [re.findall(r"/api/(v[0-9]+)/(.*)", call["path"]) for call in upstreams.calls(upstream="travel-pay")]
    assert [(found[0][0], found[0][1].split("/")[-1]) for found in paths[:5]] == [
        (versions["system-access-token"], "system-access-token"), (versions["find-or-add"], "find-or-add"),
        (versions["claims"], "claims"), (versions["mileage"], "mileage"), (versions["expenses"], "toll"),
    ]  # fmt: skip


def test_find_and_settle_seconds_set_the_times_of_the_look_ups(
    quick: None, upstreams: Sandbox, set_settings: Set
) -> None:
    set_settings(TRAVEL_PAY_FIND_SECONDS=20, TRAVEL_PAY_SETTLE_SECONDS=200)
    claim_id = lose_create(upstreams)
    assert 10 < due_in(claim_id) <= 20
    pass_the_time(claim_id)
    engine.run(claim_id)
    assert 150 < due_in(claim_id) < 182


def test_attempts_and_back_off_set_how_often_and_when_a_step_is_repeated(
    quick: None, upstreams: Sandbox, set_settings: Set
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=3, TRAVEL_PAY_BACKOFF_SECONDS=100, TRAVEL_PAY_BACKOFF_MAX_SECONDS=150)
    upstreams.fault("find-or-add", "status", status=500)
    claim_id = file_claim()
    for low, high in ((70, 120), (110, 180)):
        engine.run(claim_id)
        assert low < due_in(claim_id) <= high
        pass_the_time(claim_id)
    engine.run(claim_id)
    assert row(claim_id).state == S.FAILED


@pytest.mark.parametrize(
    ("variable", "call"),
    [
        ("TRAVEL_PAY_READ_TIMEOUT", "find-or-add"),
        ("TRAVEL_PAY_READ_TIMEOUT", "system-token"),
        ("TRAVEL_PAY_AUTH_READ_TIMEOUT", "veis-token"),
    ],
)
def test_each_read_timeout_bounds_its_own_calls(
    *, quick: None, upstreams: Sandbox, set_settings: Set, variable: str, call: str
) -> None:
    set_settings(**{"TRAVEL_PAY_READ_TIMEOUT": 20, "TRAVEL_PAY_AUTH_READ_TIMEOUT": 20, variable: 0.5})
    upstreams.fault(call, "delay", seconds=1.5)
    claim_id = file_claim()
    engine.run(claim_id)
    assert row(claim_id).attempt == 1
    other = "find-or-add" if call == "veis-token" else "veis-token"
    upstreams.clear_faults()
    upstreams.fault(other, "delay", seconds=1.5)
    pass_the_time(claim_id)
    assert carry(claim_id).state == S.SUBMITTED


def test_the_rate_holds_further_calls_back(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    set_settings(TRAVEL_PAY_RATE_PER_MINUTE=5)
    claim_id = file_claim()
    for _ in range(3):
        engine.run(claim_id)
    assert len(upstreams.calls(upstream="travel-pay")) == 4  # a fifth is kept for those whom somebody waits for
    assert row(claim_id).attempt == 0
    assert due_in(claim_id) > 10


def test_the_deadline_is_that_of_its_variable(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    set_settings(TRAVEL_CLAIMS_DEADLINE_SECONDS=1_000)
    assert 970 < seconds_left(file_claim()) <= 1_000


def test_the_variables_of_notify_set_how_a_text_is_tried(environment: Any, set_settings: Set) -> None:
    set_settings(NOTIFY_TIMEOUT=7, NOTIFY_BACKOFF_SECONDS=9, NOTIFY_SETTLE_SECONDS=77, NOTIFY_DEADLINE_SECONDS=777)
    policy = notifications.policy()
    assert (policy.backoff, policy.factor, policy.backoff_max, policy.settle) == (9, 2, 3_600, 77)
    assert policy.attempts is None
    assert config.settings().notify.deadline_seconds == 777  # type: ignore[union-attr]


def test_the_lease_outlives_the_longest_call(environment: Any, set_settings: Set) -> None:
    set_settings(TRAVEL_PAY_CONNECT_TIMEOUT=3, TRAVEL_PAY_READ_TIMEOUT=40, TRAVEL_PAY_AUTH_READ_TIMEOUT=50)
    assert claims.policy().lease > 53


def test_with_no_notify_url_a_text_is_skipped_and_the_claim_goes_on(
    quick: None, upstreams: Sandbox, set_settings: Set
) -> None:
    set_settings(NOTIFY_URL="")
    claim_id = file_claim()
    advance(claim_id, to=S.EXPENSED)
    assert carry(claim_id).state == S.SUBMITTED
    assert [(one.state, one.reason) for one in texts_of(claim_id)] == [("skipped", "texts-disabled")]
