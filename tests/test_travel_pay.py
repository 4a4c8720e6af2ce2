"""The in-process Python interface: the same steps, straight through."""

from collections.abc import Callable
from typing import Any

import pytest

from app.flows import straight
from app.travel_pay import (
    Appointment,
    ClaimError,
    Credentials,
    Expense,
    InvalidClaim,
    SimpleMileage,
    SubmittedClaim,
    TravelPay,
)
from sandbox import Sandbox

ICN = "1012667122V019349"
VISIT = {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"}


@pytest.fixture
def credentials(upstreams: Sandbox) -> Credentials:
    own = upstreams.environment()
    return Credentials(
        auth_url=own["TRAVEL_PAY_AUTH_URL"],
        url=own["TRAVEL_PAY_URL"],
        tenant_id=own["TRAVEL_PAY_TENANT_ID"],
        client_id=own["TRAVEL_PAY_CLIENT_ID"],
        client_secret=own["TRAVEL_PAY_CLIENT_SECRET"],
        resource=own["TRAVEL_PAY_RESOURCE"],
        subscription_key=own["TRAVEL_PAY_SUBSCRIPTION_KEY"],
        secret=own["TRAVEL_PAY_PCI_SECRET"],
        client_number=own["TRAVEL_PAY_PCI_CLIENT_NUMBER"],
    )


@pytest.fixture
def submit(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SubmittedClaim]:
    """File a claim; waiting costs no time but moves the clock."""
    clock = [0.0]
    real = straight.time.monotonic
    monkeypatch.setattr(straight.time, "monotonic", lambda: real() + clock[0])
    monkeypatch.setattr(straight.Straight, "pause", lambda self, seconds: None)
    original = straight.Straight.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs, wait=lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    monkeypatch.setattr(straight.Straight, "__init__", init)
    client = TravelPay(credentials)

    def file(**more: Any) -> SubmittedClaim:
        return client.submit_claim(**{"icn": ICN, "appointment": VISIT, **more})

    return file


def count(sandbox: Sandbox, kind: str) -> int:
    return sum(entry["count"] for entry in sandbox.ledger()[kind])


def test_a_claim_is_submitted(submit: Callable[..., SubmittedClaim], upstreams: Sandbox) -> None:
    claim = submit(expenses=[SimpleMileage()], rollback=True, correlation_id="mine")
    assert claim.status == "ClaimSubmitted"
    assert (claim.claim_number or "").startswith("TC")
    assert len(claim.expense_ids) == 1
    assert claim.correlation_id == "mine"
    assert {call["correlation_id"] for call in upstreams.calls()} == {"mine"}
    assert [count(upstreams, kind) for kind in ("claims", "expenses", "submissions", "texts")] == [1, 1, 1, 0]


def test_every_way_to_name_visit_and_expenses(submit: Callable[..., SubmittedClaim], upstreams: Sandbox) -> None:
    claim = submit(
        appointment=Appointment("2026-03-02T11:00:00", "983", name="Checkup"),
        expenses=[
            Expense("parking", costRequested=12.5),
            {"type": "toll", "costRequested": 3},
            SimpleMileage("OneWay"),
        ],
    )
    assert len(claim.expense_ids) == 3


@pytest.mark.parametrize("fault", ["drop-after", "drop-before", "hang"])
@pytest.mark.parametrize("call", ["create-claim", "add-expense", "submit-claim"])
def test_a_lost_answer_is_looked_up_before_a_repeat(
    submit: Callable[..., SubmittedClaim], upstreams: Sandbox, call: str, fault: str
) -> None:
    upstreams.fault(call, "malformed-json" if fault == "hang" else fault, times=1)
    assert submit().status == "ClaimSubmitted"
    assert [count(upstreams, kind) for kind in ("claims", "expenses", "submissions")] == [1, 1, 1]


def test_a_refusal_names_step_status_and_what_was_undone(
    submit: Callable[..., SubmittedClaim], upstreams: Sandbox
) -> None:
    said = "Validation failed: The claim does not have any expenses."
    upstreams.fault("submit-claim", "status", status=400, message=said)
    with pytest.raises(ClaimError) as caught:
        submit(rollback=True)
    error = caught.value
    assert (error.step, error.http_status, error.code, error.message) == ("submit_claim", 400, "rejected", said)
    assert (error.claim_state, error.rollback.result) == ("Incomplete", "partial")
    assert list(error.as_dict()) == [
        "step", "httpStatus", "code", "message", "claim", "rollback", "retryable", "correlationId",
    ]  # fmt: skip


def test_a_failing_expense_is_named_by_its_index(submit: Callable[..., SubmittedClaim], upstreams: Sandbox) -> None:
    upstreams.fault("add-expense", "status", status=422, match={"type": "toll"})
    with pytest.raises(ClaimError) as caught:
        submit(expenses=[SimpleMileage(), Expense("toll", costRequested=1)])
    assert (caught.value.step, caught.value.expense_index, caught.value.claim_state) == ("add_expenses", 1, "Saved")


def test_what_fails_for_a_while_is_repeated_twice(submit: Callable[..., SubmittedClaim], upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", "status", status=500, times=2)
    assert submit().status == "ClaimSubmitted"
    upstreams.reset()
    upstreams.fault("find-or-add", "status", status=500)
    with pytest.raises(ClaimError) as caught:
        submit()
    assert (caught.value.code, caught.value.http_status) == ("upstream-unavailable", 502)
    assert len(upstreams.calls(call="find-or-add")) == 3


def test_a_claim_that_was_there_before_is_a_duplicate(
    submit: Callable[..., SubmittedClaim], upstreams: Sandbox
) -> None:
    submit()
    with pytest.raises(ClaimError) as caught:
        submit()
    assert (caught.value.code, caught.value.http_status) == ("duplicate-claim", 409)
    assert count(upstreams, "claims") == 1


def test_the_time_budget_ends_it(submit: Callable[..., SubmittedClaim], upstreams: Sandbox) -> None:
    upstreams.fault("create-claim", "drop-before", times=1)
    upstreams.fault("read-claim", "status", status=500)
    upstreams.fault("find-or-add", "rate-limit", seconds=600)
    with pytest.raises(ClaimError) as caught:
        submit()
    assert (caught.value.code, caught.value.http_status) == ("rate-limited", 429)


def test_a_bad_claim_is_refused_before_any_call(submit: Callable[..., SubmittedClaim], upstreams: Sandbox) -> None:
    with pytest.raises(InvalidClaim) as caught:
        submit(icn="123", expenses=[{"type": "hotel"}])
    assert {(error["pointer"], error["code"]) for error in caught.value.errors} == {
        ("/icn", "pattern"),
        ("/expenses/0/type", "enum"),
    }
    assert upstreams.calls() == []


def test_credentials_come_from_the_environment_and_show_no_secret(
    environment: dict[str, str], credentials: Credentials
) -> None:
    own = Credentials.from_env("pci")
    assert (own.secret, own.client_number, own.url) == (credentials.secret, credentials.client_number, credentials.url)
    assert own.secret not in repr(own)
    assert own.client_secret not in repr(own)
