"""A travel claim against the sandbox's Travel Pay: every effect once, whatever one call does."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import select

from app import config, db, states
from app.flows import claim_members, engine, lines
from app.models.notification import Notification
from app.store import claims, clients, workflows
from app.upstreams import travel_pay_access
from sandbox import Sandbox
from tests.flows.conftest import IMPATIENT, row, shift

S = states.Claim
ICN = "1012667122V019349"
MILEAGE = {"type": "mileage", "dateIncurred": "2026-03-02", "description": "mileage", "tripType": "RoundTrip"}
PARKING = {"type": "parking", "dateIncurred": "2026-03-02", "description": "Garage", "costRequested": "12.5"}


def accept(*, details: list[dict[str, Any]] | None = None, rollback: bool = False, **more: Any) -> UUID:
    """A claim as the API would store it."""
    with db.transaction() as session:
        try:
            client = clients.named(session, "shop")
        except LookupError:
            clients.add(session, "shop", ["claims"], "pci")
            client = clients.named(session, "shop")
        new = claims.NewClaim(
            icn=more.get("icn", ICN),
            appointment={"dateTime": more.get("at", "2026-03-02T10:00:00"), "stationNumber": "983GC"},
            appointment_name=None,
            expense_details=details or [MILEAGE],
            rollback=rollback,
            phone=more.get("phone", "+12025550143"),
            callback_url=more.get("callback_url"),
        )
        return claims.accept(session, client, new, correlation_id=more.get("corr", "corr-1"), waiting=False)[0]


def carry(workflow_id: UUID) -> Any:
    """Run it to its end; what it waits for comes at once (a breaker or limiter in Redis is forgotten)."""
    broker = redis.Redis.from_url(config.settings().redis_url)
    for _ in range(60):
        engine.run(workflow_id)
        found = row(workflow_id)
        if found.due_at is None:
            return found
        with db.transaction() as session:
            wait = (found.due_at - workflows.now(session)).total_seconds()
        shift(workflow_id, max(wait, 0) + 0.01)
        broker.flushall()
        travel_pay_access._gateways.clear()
    raise AssertionError(f"still {row(workflow_id).state} after 60 rounds: {vars(row(workflow_id))}")


def texts_of(claim_id: UUID) -> list[Notification]:
    with db.transaction() as session:
        return list(session.execute(select(Notification).where(Notification.claim_id == claim_id)).scalars())


def effects(sandbox: Sandbox) -> dict[str, int]:
    """How often each kind of effect stands at the upstream; a doubled one counts twice."""
    ledger = sandbox.ledger()
    kinds = ("appointments", "claims", "expenses", "submissions", "deletions", "texts")
    return {kind: sum(entry["count"] for entry in ledger[kind]) for kind in kinds}


def test_the_happy_path_has_every_effect_once_and_the_wire_of_the_contract(quick: None, upstreams: Sandbox) -> None:
    claim_id = accept()
    done = carry(claim_id)
    assert (done.state, done.status, done.error) == (S.SUBMITTED, "ClaimSubmitted", None)
    assert (done.claim_number or "").startswith("TC")
    assert done.btsss_token is None
    (told,) = texts_of(claim_id)
    assert told.template == "success"
    assert carry(told.id).state == "sent"
    assert effects(upstreams) == {
        "appointments": 1, "claims": 1, "expenses": 1, "submissions": 1, "deletions": 0, "texts": 1,
    }  # fmt: skip
    assert [call["call"] for call in upstreams.calls()] == [
        "veis-token", "system-token", "find-or-add", "create-claim", "add-expense", "submit-claim", "read-claim",
        "send-sms",
    ]  # fmt: skip


FAULTS: dict[str, dict[str, Any]] = {
    "429": {"fault": "rate-limit", "seconds": 5},
    "500": {"fault": "status", "status": 500},
    "502 with HTML": {"fault": "html"},
    "no answer before the effect": {"fault": "hang-before"},
    "no answer after the effect": {"fault": "hang-after"},
    "dropped before the effect": {"fault": "drop-before"},
    "dropped after the effect": {"fault": "drop-after"},
    "malformed JSON": {"fault": "malformed-json", "effect": False},
    "malformed JSON after the effect": {"fault": "malformed-json", "effect": True},
    "missing field": {"fault": "missing-field", "effect": False},
    "missing field after the effect": {"fault": "missing-field", "effect": True},
    "wrong shape": {"fault": "wrong-shape"},
    "401 once": {"fault": "refuse-401"},
    "409 once": {"fault": "contact-409"},
}


def limits(fault: str) -> dict[str, Any]:
    """Of time, so that silence is soon a timeout."""
    return IMPATIENT if FAULTS[fault]["fault"].startswith("hang") else {}


CALLS = ("veis-token", "system-token", "find-or-add", "create-claim", "add-expense", "submit-claim")


def pairs(faults: Iterable[str]) -> list[tuple[str, str]]:
    """Every call with every fault, but those that are a definite answer: refused tokens, an empty list."""
    tokens = {"veis-token", "system-token"}
    definite = {(call, fault) for call in tokens for fault in ("401 once", "409 once")} | {
        ("find-or-add", "missing field")
    }
    return [(call, fault) for call in CALLS for fault in faults if (call, fault) not in definite]


@pytest.mark.parametrize(("call", "fault"), pairs(FAULTS))
def test_one_fault_of_one_call_is_survived_with_every_effect_once(
    quick: None, upstreams: Sandbox, set_settings: Callable[..., None], call: str, fault: str
) -> None:
    set_settings(**limits(fault))
    upstreams.fault(call, **FAULTS[fault], times=1)
    done = carry(accept())
    assert (done.state, done.error) == (S.SUBMITTED, None)
    found = effects(upstreams)
    assert (found["claims"], found["expenses"], found["submissions"]) == (1, 1, 1)


STEP_OF = {
    "veis-token": "authorize",
    "system-token": "authorize",
    "find-or-add": "find_appointment",
    "create-claim": "create_claim",
    "add-expense": "add_expenses",
    "submit-claim": "submit_claim",
}
ENDS = {
    "429": ("rate-limited", 429),
    "500": ("upstream-unavailable", 502),
    "502 with HTML": ("upstream-unavailable", 502),
    "no answer before the effect": ("upstream-timeout", 504),
    "dropped before the effect": ("upstream-unavailable", 502),
    "malformed JSON": ("malformed-answer", 502),
    "missing field": ("malformed-answer", 502),
}


@pytest.mark.parametrize(("call", "fault"), pairs(ENDS))
def test_a_fault_that_stays_fails_the_claim_as_the_contract_says(
    quick: None, upstreams: Sandbox, set_settings: Callable[..., None], call: str, fault: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=3, TRAVEL_CLAIMS_DEADLINE_SECONDS=7_200, **limits(fault))
    upstreams.fault(call, **FAULTS[fault] | ({"seconds": 1_800} if fault == "429" else {}))
    claim_id = accept()
    done = carry(claim_id)
    code, status = ENDS[fault]
    assert done.state == S.FAILED
    assert done.error
    assert (done.error["step"], done.error["code"], done.error["httpStatus"]) == (STEP_OF[call], code, status)
    found = effects(upstreams)
    assert max(found["claims"], found["expenses"], found["submissions"]) <= 1
    (told,) = texts_of(claim_id)
    assert told.template == ("timeout" if code in {"rate-limited", "upstream-timeout"} else "error")


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_connection_is_retried_and_then_named(
    quick: None, upstreams: Sandbox, redis_server: Any, set_settings: Callable[..., None], call: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=3)
    claim_id = accept()
    step = STEP_OF[call]
    flow = lines.FLOWS["claim"]
    upstream = "travel-pay-auth" if call == "veis-token" else "travel-pay"
    while row(claim_id).state != flow.step_named(step).of:
        found = flow.step_in(row(claim_id).state)
        assert found
        engine.perform("claim", found.name, claim_id)
    upstreams.listen(upstream, open=False)
    done = carry(claim_id)
    upstreams.listen(upstream, open=True)
    assert done.state == S.FAILED
    assert done.error
    assert (done.error["code"], done.error["httpStatus"]) == ("upstream-unavailable", 502)


@pytest.mark.parametrize("status", [400, 403, 404, 422, 418])
@pytest.mark.parametrize("call", ["find-or-add", "create-claim", "add-expense", "submit-claim"])
def test_a_definite_no_fails_at_once(quick: None, upstreams: Sandbox, call: str, status: int) -> None:
    upstreams.fault(call, "status", status=status, message="Invalid appointment ID")
    done = carry(accept())
    assert done.state == S.FAILED
    assert done.error
    assert (done.error["code"], done.error["retryable"]) == ("rejected", False)
    assert done.error["httpStatus"] == (502 if status == 418 else status)
    assert done.error["message"] == "Invalid appointment ID"
    assert ("expenseIndex" in done.error) == (call == "add-expense")
    assert len(upstreams.calls(call=call)) == 1


@pytest.mark.parametrize(("fault", "status"), [("refuse-401", 401), ("contact-409", 409)])
def test_tokens_refused_again_after_renewal_end_the_claim(
    quick: None, upstreams: Sandbox, fault: str, status: int
) -> None:
    upstreams.fault("create-claim", fault)
    done = carry(accept())
    assert done.error
    assert (done.error["code"], done.error["httpStatus"]) == ("token-refused", status)
    assert len(upstreams.calls(call="create-claim")) == 2


@pytest.mark.parametrize("call", ["veis-token", "system-token"])
def test_a_token_endpoint_that_refuses_is_authorization_failed(quick: None, upstreams: Sandbox, call: str) -> None:
    upstreams.fault(call, "status", status=403)
    done = carry(accept())
    assert done.error
    assert (done.error["code"], done.error["httpStatus"], done.error["step"]) == (
        "authorization-failed",
        502,
        "authorize",
    )


def test_an_empty_list_is_appointment_not_found(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", "empty-list")
    done = carry(accept())
    assert done.error
    assert (done.error["code"], done.error["httpStatus"]) == ("appointment-not-found", 404)


def test_a_cancelled_appointment_that_comes_first_is_passed_over(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", "cancelled-first")
    done = carry(accept())
    assert done.state == S.SUBMITTED


def test_a_visit_filed_elsewhere_is_a_duplicate_and_no_create_is_sent(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", "foreign-claim")
    claim_id = accept()
    done = carry(claim_id)
    assert (done.state, done.claim_id) == (S.DUPLICATE, None)
    assert done.claim_number
    assert done.error
    assert done.error["message"] == "A claim already exists for this appointment."
    assert upstreams.calls(call="create-claim") == []
    (told,) = texts_of(claim_id)
    assert told.template == "duplicate"


def test_a_create_refused_as_duplicate_without_a_claim_of_ours_is_a_duplicate(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("create-claim", "duplicate")
    done = carry(accept())
    assert done.state == S.DUPLICATE
    assert done.error
    assert (done.error["code"], done.error["httpStatus"]) == ("duplicate-claim", 409)


def test_a_half_made_claim_of_ours_is_resumed_by_the_next_one(quick: None, upstreams: Sandbox) -> None:
    fault = upstreams.fault("add-expense", "status", status=422, message="Expense type is invalid for this claim.")
    first = carry(accept())
    assert first.state == S.FAILED
    upstreams.clear_faults(fault)
    second_id = accept()
    assert second_id != first.id
    second = carry(second_id)
    assert (second.state, second.claim_id, second.claim_made) == (S.SUBMITTED, first.claim_id, False)
    found = effects(upstreams)
    assert (found["claims"], found["expenses"], found["submissions"]) == (1, 1, 1)


def test_an_effect_later_than_its_repeat_is_adopted_not_doubled(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("create-claim", "late", seconds=0.3, times=1)
    done = carry(accept())
    assert done.state == S.SUBMITTED
    assert effects(upstreams)["claims"] == 1


def test_a_submit_that_had_gone_through_counts(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "drop-after", times=1)
    upstreams.fault("read-claim", "status", status=500, times=1)
    done = carry(accept())
    assert (done.state, effects(upstreams)["submissions"]) == (S.SUBMITTED, 1)


def test_a_read_that_fails_after_submit_changes_nothing(quick: None, upstreams: Sandbox, redis_server: Any) -> None:
    upstreams.fault("read-claim", "status", status=500)
    claim_id = accept()
    done = carry(claim_id)
    assert (done.state, done.claim_number) == (S.SUBMITTED, None)
    (told,) = texts_of(claim_id)
    assert told.personalisation == {"claim_number": "unknown", "appt_date": "Mar 02"}


def test_rollback_after_a_failed_submit_deletes_the_expenses_and_keeps_the_first_error(
    quick: None, upstreams: Sandbox
) -> None:
    upstreams.fault("submit-claim", "status", status=400, message="Validation failed: No.")
    done = carry(accept(rollback=True, details=[MILEAGE, PARKING]))
    assert (done.state, done.rollback_result) == (S.ROLLED_BACK, "partial")
    assert done.rollback_detail == "2 expenses deleted; claim left, Travel Pay offers no delete here"
    assert done.error
    assert (done.error["step"], done.error["code"], done.error["message"]) == (
        "submit_claim", "rejected", "Validation failed: No.",
    )  # fmt: skip
    assert effects(upstreams)["deletions"] == 2
    assert [item["state"] for item in done.expenses] == ["removed", "removed"]


def test_rollback_with_a_delete_path_takes_the_claim_too(
    quick: None, upstreams: Sandbox, set_settings: Callable[..., None]
) -> None:
    set_settings(TRAVEL_PAY_DELETE_CLAIM_PATH="api/v3/claims/{claimId}")
    upstreams.change({"claim_delete": True})
    upstreams.fault("submit-claim", "status", status=400)
    done = carry(accept(rollback=True))
    assert (done.state, done.rollback_result, done.undo["claim"]) == (S.ROLLED_BACK, "succeeded", "deleted")


def test_rollback_with_nothing_but_the_claim_made_is_unsupported(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("add-expense", "status", status=422)
    done = carry(accept(rollback=True))
    assert (done.state, done.rollback_result) == (S.ROLLED_BACK, "unsupported")


def test_rollback_asked_for_with_nothing_made_is_a_plain_failure(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("create-claim", "status", status=422)
    done = carry(accept(rollback=True))
    assert (done.state, done.rollback_result) == (S.FAILED, "none")


def test_one_refused_delete_does_not_stop_the_others(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-expense", "status", status=403, times=1)
    done = carry(accept(rollback=True, details=[MILEAGE, PARKING]))
    assert (done.state, done.rollback_result) == (S.ROLLBACK_FAILED, "partial")
    assert [item["state"] for item in done.expenses] == ["removed", "added"]


def test_a_delete_that_fails_for_a_while_is_repeated(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-expense", "status", status=500, times=2)
    done = carry(accept(rollback=True))
    assert (done.state, effects(upstreams)["deletions"]) == (S.ROLLED_BACK, 1)


def test_a_claim_that_turns_out_submitted_is_never_touched(quick: None, upstreams: Sandbox) -> None:
    """Submit took effect, but was answered with a definite no."""
    upstreams.fault("submit-claim", "drop-after", times=1)
    upstreams.fault("read-claim", "status", status=403, times=1)
    done = carry(accept(rollback=True))
    assert done.state == S.SUBMITTED
    assert effects(upstreams)["deletions"] == 0


@pytest.mark.parametrize(
    "fault", ["500", "no answer after the effect", "dropped after the effect", "malformed JSON after the effect"]
)
def test_a_lost_answer_of_the_text_is_found_by_its_reference(
    quick: None, upstreams: Sandbox, set_settings: Callable[..., None], fault: str
) -> None:
    set_settings(**limits(fault))
    upstreams.fault("send-sms", **FAULTS[fault], times=1)
    claim_id = accept()
    carry(claim_id)
    (told,) = texts_of(claim_id)
    assert carry(told.id).state == "sent"
    assert effects(upstreams)["texts"] == 1


def test_no_phone_no_text(quick: None, upstreams: Sandbox) -> None:
    claim_id = accept(phone=None)
    assert carry(claim_id).state == S.SUBMITTED
    (told,) = texts_of(claim_id)
    assert (told.state, told.reason) == ("skipped", "no-phone")
    assert effects(upstreams)["texts"] == 0


def test_texts_switched_off_for_a_client_are_skipped_and_claims_go_on(quick: None, upstreams: Sandbox) -> None:
    claim_id = accept()
    with db.transaction() as session:
        clients.set_toggle(session, "shop", "claims-texts", on=False)
    assert carry(claim_id).state == S.SUBMITTED
    assert [(one.state, one.reason) for one in texts_of(claim_id)] == [("skipped", "texts-disabled")]


def test_a_line_switched_off_holds_its_work_until_it_is_on_again(quick: None, upstreams: Sandbox) -> None:
    claim_id = accept()
    with db.transaction() as session:
        clients.set_toggle(session, "shop", "claims", on=False)
    engine.run(claim_id)
    assert row(claim_id).state == S.ACCEPTED
    assert upstreams.calls() == []
    with db.transaction() as session:
        clients.set_toggle(session, "shop", "claims", on=True)
    assert carry(claim_id).state == S.SUBMITTED


def test_one_mint_serves_many_claims(quick: None, upstreams: Sandbox) -> None:
    for minute in range(10):
        assert carry(accept(at=f"2026-03-02T10:{minute:02}:00")).state == S.SUBMITTED
    assert len(upstreams.calls(call="veis-token")) <= 1


@pytest.mark.parametrize("call", ["add-expense", "submit-claim"])
def test_a_claim_that_travel_pay_no_longer_knows_is_told_as_none(quick: None, upstreams: Sandbox, call: str) -> None:
    upstreams.fault(call, "status", status=404, message="Claim not found")
    done = carry(accept())
    assert done.state == S.FAILED
    assert claim_members.claim_state(done) == "none"


def test_a_claim_that_is_read_well_after_a_404_is_not_taken_for_gone(
    quick: None, upstreams: Sandbox, set_settings: Callable[..., None]
) -> None:
    set_settings(TRAVEL_PAY_DELETE_CLAIM_PATH="api/v3/claims/{claimId}")
    upstreams.change({"claim_delete": True})
    upstreams.fault("add-expense", "status", status=404, message="Claim not found")
    done = carry(accept(rollback=True))
    assert (done.state, done.rollback_result, done.rollback_detail) == (S.ROLLED_BACK, "succeeded", "claim deleted")
    assert len(upstreams.calls(call="delete-claim")) == 1


def test_a_404_that_does_not_speak_of_the_claim_leaves_it_known(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("add-expense", "status", status=404, message="Resource not found")
    done = carry(accept())
    assert claim_members.claim_state(done) == "Incomplete"


def test_a_refused_expense_does_not_keep_the_claim_from_being_deleted(
    quick: None, upstreams: Sandbox, set_settings: Callable[..., None]
) -> None:
    set_settings(TRAVEL_PAY_DELETE_CLAIM_PATH="api/v3/claims/{claimId}")
    upstreams.change({"claim_delete": True})
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-expense", "status", status=403)
    done = carry(accept(rollback=True))
    assert (done.state, done.rollback_result) == (S.ROLLED_BACK, "succeeded")
    assert len(upstreams.calls(call="delete-claim")) == 1


def test_a_claim_whose_product_has_no_credentials_here_waits(
    quick: None, upstreams: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAVEL_PAY_PCI_SECRET")
    config.settings.cache_clear()
    claim_id = accept()
    engine.run(claim_id)
    assert (row(claim_id).state, row(claim_id).attempt, upstreams.calls()) == (S.ACCEPTED, 0, [])
