"""Metrics and log records of travel claims: each counts or names what the contract says, per product."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from app import db, logs, states
from app.flows import claim_requests, engine
from app.store import clients
from sandbox import Sandbox
from tests.flows.conftest import IMPATIENT, quick, row
from tests.flows.test_claim_requests import advance
from tests.flows.test_claim_rules import GARAGE, MILEAGE, client_of, file_claim, lose_create, plant
from tests.flows.test_claims import ICN, carry, texts_of

S = states.Claim
__all__ = ["quick"]  # a fixture, used by its name
Count = Callable[..., float]


@pytest.fixture
def count() -> Count:
    """By how much a metric has grown since the test began."""
    before = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
    }

    def grown(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        return now - before.get((name, tuple(sorted(labels.items()))), 0.0)

    return grown


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """The log records so far, of one event if told."""
    out, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stdout=out))
    logs.configure("INFO")

    def written(event: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in out.getvalue().splitlines()]
        return [one for one in found if event in ("", one["event"])]

    yield written
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


OUTCOMES: dict[str, tuple[list[tuple[str, dict[str, Any]]], str]] = {
    "success": ([], "success"),
    "claim_failure": ([("read-claim", {"fault": "claim-status", "claim_status": "Denied"})], "failure"),
    "duplicate": ([("find-or-add", {"fault": "foreign-claim"})], "duplicate"),
    "error": ([("submit-claim", {"fault": "status", "status": 400})], "error"),
    "timeout": ([("find-or-add", {"fault": "status", "status": 504})], "timeout"),
}


@pytest.mark.parametrize("product", ["pci", "oh"])
@pytest.mark.parametrize("phone", ["+12025550143", None])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_is_counted_once_under_its_product_also_when_no_text_is_sent(
    *, quick: None, upstreams: Sandbox, set_settings: Any, count: Count, product: str, phone: str | None, outcome: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=2)
    faults, template = OUTCOMES[outcome]
    for call, fault in faults:
        upstreams.fault(call, **fault)
    claim_id = file_claim(product=product, phone=phone)
    carry(claim_id)
    for one in ("pci", "oh"):
        found = {word: count("claims_outcome_total", product=one, outcome=word) for word in (*OUTCOMES, "cancelled")}
        assert found == {word: float(word == outcome and one == product) for word in found}
    (text,) = texts_of(claim_id)
    carry(text.id)
    result = "success" if phone else "error"
    assert count("claims_notify_total", product=product, template=template, result=result) == 1
    bad_news = not phone and template in {"error", "failure", "timeout"}
    functions = {
        "pci": "CheckIn Travel Pay Notification Failure", "oh": "OH Travel Pay Notification Failure",
    }  # fmt: skip
    for one, function in functions.items():
        silent = count("silent_failure_total", service="check-in", function=function)
        assert silent == float(bad_news and one == product)


def test_a_cancelled_claim_is_counted_as_such(quick: None, upstreams: Sandbox, count: Count) -> None:
    claim_requests.cancel(file_claim())
    assert count("claims_outcome_total", product="pci", outcome="cancelled") == 1


@pytest.mark.parametrize(
    ("call", "fault", "step", "outcome"),
    [
        ("find-or-add", {"fault": "status", "status": 500}, "find_appointment", "retry"),
        ("create-claim", {"fault": "drop-after"}, "create_claim", "unknown"),
        ("add-expense", {"fault": "status", "status": 422}, "add_expenses", "rejected"),
        ("submit-claim", {"fault": "rate-limit", "seconds": 1}, "submit_claim", "retry"),
    ],
)
def test_each_end_of_a_step_is_counted_with_its_outcome(
    *, quick: None, upstreams: Sandbox, count: Count, call: str, fault: dict[str, Any], step: str, outcome: str
) -> None:
    upstreams.fault(call, **fault, times=1)
    carry(file_claim(product="oh"))
    assert count("claims_step_total", product="oh", step=step, outcome=outcome) == 1
    assert count("claims_step_total", product="oh", step="authorize", outcome="ok") == 1
    assert count("claims_step_total", product="pci", step="authorize", outcome="ok") == 0
    seconds = {verb: count("claims_step_seconds_count", product="oh", step=step, verb=verb) for verb in ("do", "find")}
    assert seconds["do"] == (2 if outcome == "retry" else 1)
    assert seconds["find"] == (1 if outcome == "unknown" else 0)


def test_a_call_that_was_held_back_is_the_end_of_no_step(
    quick: None, upstreams: Sandbox, set_settings: Any, count: Count
) -> None:
    upstreams.fault("find-or-add", "rate-limit", seconds=50, times=1)
    engine.run(file_claim())
    other = file_claim(appointment={"dateTime": "2026-03-02T12:00:00"})
    engine.run(other)
    assert row(other).attempt == 0
    words = ("ok", "rejected", "retry", "unknown")
    every = [
        sample.labels for family in REGISTRY.collect() for sample in family.samples if family.name == "claims_step"
    ]
    assert {labels["outcome"] for labels in every} <= set(words)
    assert sum(count("claims_step_total", product="pci", step="authorize", outcome=word) for word in words) == 1


ERRORS = [
    ("veis-token", {"fault": "status", "status": 500}, "authorize", "http", "auth"),
    ("system-token", {"fault": "token-absent"}, "authorize", "empty_response", "auth"),
    ("find-or-add", {"fault": "hang-before"}, "find_appointment", "timeout", "btsss"),
    ("find-or-add", {"fault": "empty-list"}, "find_appointment", "empty_response", "btsss"),
    ("create-claim", {"fault": "drop-before"}, "create_claim", "connection", "btsss"),
    ("add-expense", {"fault": "status", "status": 422}, "add_expenses", "http", "btsss"),
    ("submit-claim", {"fault": "missing-field"}, "submit_claim", None, "btsss"),
    ("submit-claim", {"fault": "wrong-shape"}, "submit_claim", "empty_response", "btsss"),
]


@pytest.mark.parametrize(("call", "fault", "step", "kind", "source"), ERRORS)
def test_each_failed_call_is_counted_by_kind_and_source(
    *, quick: None, upstreams: Sandbox, set_settings: Any, count: Count,
    call: str, fault: dict[str, Any], step: str, kind: str | None, source: str,
) -> None:  # fmt: skip
    set_settings(**(IMPATIENT if kind == "timeout" else {}))
    upstreams.fault(call, **fault, times=1)
    carry(file_claim())
    found = {
        (one, where): count("claims_step_errors_total", product="pci", step=step, error_type=one, source=where)
        for one in ("timeout", "http", "connection", "empty_response")
        for where in ("auth", "btsss")
    }
    assert found == {key: float(key == (kind, source)) for key in found}


def test_what_is_filed_elsewhere_is_no_failed_call(quick: None, upstreams: Sandbox, count: Count) -> None:
    upstreams.fault("create-claim", "foreign-claim")
    assert carry(file_claim()).state == S.DUPLICATE
    labels = {"product": "pci", "step": "create_claim", "source": "btsss"}
    assert [count("claims_step_errors_total", **labels, error_type=one) for one in ("http", "empty_response")] == [0, 0]


@pytest.mark.parametrize(("fault", "result"), [("drop-after", "adopted"), ("drop-before", "repeated")])
@pytest.mark.parametrize(
    ("call", "step"),
    [("create-claim", "create_claim"), ("add-expense", "add_expenses"), ("submit-claim", "submit_claim")],
)
def test_each_doubt_is_counted_once_by_how_it_ended(
    *, quick: None, upstreams: Sandbox, count: Count, call: str, step: str, fault: str, result: str
) -> None:
    upstreams.fault(call, fault, times=1)
    carry(file_claim())
    found = {one: count("claims_in_doubt_total", product="pci", step=step, result=one) for one in RESULTS}
    assert found == {one: float(one == result) for one in RESULTS}


RESULTS = ("adopted", "repeated", "unresolved")


@pytest.mark.parametrize("why", ["filed elsewhere", "refused"])
def test_a_doubt_that_neither_ends_adopted_nor_repeated_is_unresolved(
    quick: None, upstreams: Sandbox, count: Count, why: str
) -> None:
    claim_id = lose_create(upstreams)
    if why == "refused":
        upstreams.fault("find-or-add", "status", status=403)
    else:
        plant(upstreams, status="ClaimSubmitted")
    carry(claim_id)
    found = [count("claims_in_doubt_total", product="pci", step="create_claim", result=one) for one in RESULTS]
    assert found == [0, 0, 1]


ROLLBACKS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "partial": ({}, [MILEAGE]),
    "failed": ({"call": "delete-expense", "fault": "status", "status": 403}, [MILEAGE]),
    "unsupported": ({}, [GARAGE]),
}


@pytest.mark.parametrize("result", ROLLBACKS)
def test_each_rollback_is_counted_by_its_result(*, quick: None, upstreams: Sandbox, count: Count, result: str) -> None:
    more, asked = ROLLBACKS[result]
    upstreams.fault("add-expense" if result == "unsupported" else "submit-claim", "status", status=400)
    if more:
        upstreams.fault(**more)
    assert carry(file_claim(product="oh", rollback=True, expenses=asked)).rollback_result == result
    assert count("claims_rollback_total", product="oh", result=result) == 1
    assert count("claims_rollback_total", product="pci", result=result) == 0


def test_mints_and_renewals_are_counted_with_their_reason(quick: None, upstreams: Sandbox, count: Count) -> None:
    upstreams.fault("find-or-add", "refuse-401", times=1)
    upstreams.fault("create-claim", "contact-409", times=1)
    carry(file_claim(product="oh"))
    assert count("claims_veis_mints_total", product="oh") == len(upstreams.calls(call="veis-token"))
    for kind, reason in (("veis", "401"), ("btsss", "401"), ("btsss", "409")):
        assert count("claims_token_renewals_total", product="oh", kind=kind, reason=reason) == 1
    assert len(upstreams.ledger()["btsss_mints"]) > 0


def test_a_text_is_counted_by_its_fate(quick: None, upstreams: Sandbox, count: Count) -> None:
    upstreams.fault("send-sms", "status", status=400)
    upstreams.fault("submit-claim", "status", status=403)
    claim_id = file_claim(product="oh")
    carry(claim_id)
    carry(texts_of(claim_id)[0].id)
    assert count("claims_notify_total", product="oh", template="error", result="error") == 1
    function = "OH Travel Pay Notification Failure"
    assert count("silent_failure_total", service="check-in", function=function) == 1


def test_a_text_that_is_switched_off_is_skipped_and_no_silent_failure(
    quick: None, upstreams: Sandbox, count: Count
) -> None:
    upstreams.fault("submit-claim", "status", status=403)
    claim_id = file_claim()
    with db.transaction() as session:
        clients.set_toggle(session, client_of("pci"), "claims-texts", on=False)
    carry(claim_id)
    assert count("claims_notify_total", product="pci", template="error", result="skipped") == 1
    function = "CheckIn Travel Pay Notification Failure"
    assert count("silent_failure_total", service="check-in", function=function) == 0


def test_what_is_counted_within_a_transaction_that_fails_is_not_counted(
    quick: None, upstreams: Sandbox, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_id = file_claim()
    advance(claim_id, to=S.EXPENSED)

    def enter() -> None:
        with db.transaction() as session:
            engine.lines.FLOWS["claim"].entered(session, row(claim_id), S.SUBMITTED)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        enter()
    assert count("claims_outcome_total", product="pci", outcome="success") == 0


# Log records

# What holds any digits by chance: ids and timestamps.
CHANCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z")
LAST_FOUR = re.compile(r"(?<![0-9A-Za-z])0143(?![0-9A-Za-z])")  # of the phone, as a number of its own

COMMON = ("line", "claim", "client", "product", "correlation_id", "run")
STEP = ("step", "verb", "attempt", "outcome", "http_status", "code", "seconds")


def test_every_step_leaves_a_record_with_the_fields_of_the_contract(
    quick: None, upstreams: Sandbox, records: Callable[..., list[dict[str, Any]]]
) -> None:
    upstreams.fault("create-claim", "drop-after", times=1)
    upstreams.fault("submit-claim", "status", status=422)
    claim_id = file_claim(product="oh", corr="mine")
    carry(claim_id)
    steps = records("claims.step")
    for one in steps:
        assert {*COMMON, *STEP, "veis_token_present", "btsss_token_present"} <= one.keys()
        wanted = {"line": "claims", "claim": str(claim_id), "product": "oh", "correlation_id": "mine", "run": 1}
        assert wanted.items() <= one.items()
    assert [(one["step"], one["verb"], one["outcome"], one["http_status"], one["code"]) for one in steps] == [
        ("authorize", "do", "ok", 200, None),
        ("find_appointment", "do", "ok", 200, None),
        ("create_claim", "do", "unknown", None, "upstream-unavailable"),
        ("create_claim", "find", "ok", 200, None),
        ("add_expenses", "do", "ok", 200, None),
        ("add_expenses", "do", "ok", 200, None),
        ("submit_claim", "do", "rejected", 422, "rejected"),
    ]
    assert [one["failed_step"] for one in steps if "failed_step" in one] == ["create_claim", "submit_claim"]
    assert [one["error_class"] for one in steps if "error_class" in one] == ["connection", "http"]
    assert (steps[0]["btsss_token_present"], steps[1]["btsss_token_present"]) == (True, True)


def test_every_move_renewal_and_try_of_a_text_leaves_a_record(
    quick: None, upstreams: Sandbox, records: Callable[..., list[dict[str, Any]]]
) -> None:
    upstreams.fault("find-or-add", "contact-409", times=1)
    claim_id = file_claim(corr="mine")
    carry(claim_id)
    carry(texts_of(claim_id)[0].id)
    assert [(one["of"], one["to"]) for one in records("claims.state")][-1] == ("expensed", "submitted")
    assert len(records("claims.state")) == 5
    (renewed,) = records("claims.token-renewed")
    assert (renewed["kind"], renewed["reason"], renewed["correlation_id"]) == ("btsss", "409", "mine")
    (told,) = records("notifications.step")
    assert {*COMMON, *STEP} <= told.keys()
    assert (told["outcome"], told["http_status"], told["claim"]) == ("ok", 201, str(claim_id))


def test_nothing_personal_or_secret_is_in_the_records_and_metrics(
    quick: None, upstreams: Sandbox, records: Callable[..., list[dict[str, Any]]]
) -> None:
    upstreams.fault("submit-claim", "status", status=422, message=f"No for {ICN} at +12025550143")
    upstreams.fault("send-sms", "status", status=400, message="+12025550143 is no number")
    described = {"type": "lodging", "costRequested": 1, "vendor": "CANARY-INN", "description": "CANARY-WORDS"}
    stay = {"checkInDate": "2026-03-01", "checkOutDate": "2026-03-02"}
    claim_id = file_claim(expenses=[described | stay], appointment={"name": "CANARY-NAME"})
    carry(claim_id)
    carry(texts_of(claim_id)[0].id)
    tokens = {call["headers"].get("BTSSS-Access-Token") for call in upstreams.calls()} - {None}
    text = CHANCE.sub("", json.dumps(records()))
    labels = json.dumps([sample.labels for family in REGISTRY.collect() for sample in family.samples])
    for canary in (ICN, "2025550143", "CANARY", "pci-secret", "s3cret", "subscription-key", *tokens):
        assert canary not in text
        assert canary not in labels
    assert not LAST_FOUR.search(text)
    assert not LAST_FOUR.search(labels)
    assert len(records()) > 10
