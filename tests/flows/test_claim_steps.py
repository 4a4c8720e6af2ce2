"""The steps of a claim at their turning points: which appointment, whose claim, which expense, what is undone."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from app import db, errors, states
from app.flows import engine, straight
from app.store import workflows
from app.travel_pay import ClaimError, Credentials, TravelPay
from app.upstreams import travel_pay as travel_pay_client
from sandbox import Sandbox
from tests.flows.conftest import row, shift
from tests.flows.test_claim_requests import advance
from tests.flows.test_claim_rules import (
    AT,
    DELETE_PATH,
    GARAGE,
    MILEAGE,
    STATION,
    Set,
    Shown,
    bodies,
    file_claim,
    hide,
    listed,
    lose_create,
    pass_the_time,
    plant,
    remove,
    rename,
    shown,
)
from tests.flows.test_claims import ICN, carry, effects, texts_of

S = states.Claim
__all__ = ["shown"]  # a fixture, used by its name
Change = Callable[..., None]


@pytest.fixture
def deletable(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    """Travel Pay offers to delete claims."""
    set_settings(TRAVEL_PAY_DELETE_CLAIM_PATH=DELETE_PATH)
    upstreams.change({"claim_delete": True})


def deleted(sandbox: Sandbox) -> list[str]:
    """What is deleted upstream, in order, by its id."""
    return [entry.get("expenseId") or entry["claimId"] for entry in sandbox.ledger()["deletions"]]


# 5.2: which appointment


def entry(id: str, at: str | None = f"{AT}Z", status: str = "Checked In", current: str | None = None) -> dict[str, Any]:
    return {"id": id, "appointmentDateTime": at, "appointmentStatus": status, "currentStatus": current}


CHOICES: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "another minute is dropped": ([entry("a", "2026-03-02T10:01:00Z"), entry("b")], "b"),
    "another day is dropped": ([entry("a", "2026-03-03T10:00:00Z"), entry("b")], "b"),
    "seconds and zone do not matter": ([entry("a", "2026-03-02T10:00:59-05:00")], "a"),
    "one without time fits": ([entry("a", None)], "a"),
    "one that is not cancelled is preferred": ([entry("a", status="Cancelled By Clinic"), entry("b")], "b"),
    "the current status counts, in any case": ([entry("a", current="CANCELLED NO-SHOW"), entry("b")], "b"),
    "of cancelled ones the first": ([entry("a", status="Cancelled"), entry("b", current="canceled")], "a"),
    "of several the first": ([entry("a"), entry("b")], "a"),
    "none that fits": ([entry("a", "2026-03-02T11:00:00Z")], None),
}


@pytest.mark.parametrize("case", CHOICES)
def test_of_several_appointments_the_one_that_fits_is_chosen(quick: None, upstreams: Sandbox, case: str) -> None:
    entries, chosen = CHOICES[case]
    upstreams.fault("find-or-add", **listed(*entries))
    claim_id = file_claim()
    advance(claim_id, to=S.AUTHORIZED)
    engine.perform("claim", "find_appointment", claim_id)
    found = row(claim_id)
    assert found.appointment_id == chosen
    assert found.state == (S.APPOINTMENT_FOUND if chosen else S.FAILED)
    assert chosen or found.error["code"] == "appointment-not-found"


def test_what_find_appointment_saw_is_stored(quick: None, upstreams: Sandbox) -> None:
    seen = {"facilityName": "Cheyenne", "associatedClaimId": "c-1", "associatedClaimNumber": "TC1"}
    upstreams.fault("find-or-add", **listed(entry("a") | seen))
    claim_id = file_claim()
    advance(claim_id, to=S.APPOINTMENT_FOUND)
    found = row(claim_id)
    assert (found.facility_name, found.associated_claim_id, found.associated_claim_number) == ("Cheyenne", "c-1", "TC1")


# 5.3: whose claim


def half_made(upstreams: Sandbox, **more: Any) -> Any:
    """A claim that failed at its first expense; its upstream claim is left."""
    fault = upstreams.fault("add-expense", "status", status=422)
    done = carry(file_claim(**more))
    upstreams.clear_faults(fault)
    assert done.state == S.FAILED
    return done


def test_our_own_unfinished_claim_is_read_and_adopted_without_a_create(quick: None, upstreams: Sandbox) -> None:
    first = half_made(upstreams)
    second = carry(file_claim())
    assert (second.state, second.claim_id, second.claim_made) == (S.SUBMITTED, first.claim_id, False)
    assert len(upstreams.calls(call="create-claim")) == 1


@pytest.mark.parametrize("status", ["ClaimSubmitted", "Denied", "Brand New"])
def test_our_own_claim_of_another_status_is_a_duplicate(quick: None, upstreams: Sandbox, status: str) -> None:
    first = half_made(upstreams)
    rename(upstreams, first.claim_id, status)
    second = carry(file_claim())
    assert (second.state, second.claim_id) == (S.DUPLICATE, None)
    assert (second.claim_number or "").startswith("TC")
    assert len(upstreams.calls(call="create-claim")) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_our_own_claim_that_is_gone_is_forgotten_and_a_new_one_made(
    quick: None, upstreams: Sandbox, lost: bool
) -> None:
    """Also where the answer of the new create is lost: what is found then is ours."""
    first = half_made(upstreams)
    remove(upstreams, first.claim_id)
    gone = entry(first.appointment_id) | {"associatedClaimId": first.claim_id, "associatedClaimNumber": "TC1"}
    upstreams.fault("find-or-add", **listed(gone), times=1)
    if lost:
        upstreams.fault("create-claim", "drop-after", times=1)
    second = carry(file_claim())
    assert (second.state, second.claim_made) == (S.SUBMITTED, True)
    assert second.claim_id != first.claim_id
    assert len(upstreams.calls(call="create-claim")) == 2


def test_a_visit_with_only_a_claim_number_is_filed_elsewhere(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", **listed(entry("a") | {"associatedClaimNumber": "TC9"}))
    done = carry(file_claim())
    assert (done.state, done.claim_number) == (S.DUPLICATE, "TC9")


def test_a_claim_of_another_client_for_the_same_visit_is_not_ours(quick: None, upstreams: Sandbox) -> None:
    half_made(upstreams, product="oh")
    assert carry(file_claim(product="pci")).state == S.DUPLICATE


def test_a_lost_claim_is_searched_for_over_the_day_when_the_appointment_shows_none(
    quick: None, upstreams: Sandbox
) -> None:
    claim_id = lose_create(upstreams, effect=True)
    hide(upstreams)
    done = carry(claim_id)
    assert (done.state, done.claim_made, effects(upstreams)["claims"]) == (S.SUBMITTED, True, 1)
    query = upstreams.calls(call="search-claims")[0]["query"]
    found = {name: value[0] if isinstance(value, list) else value for name, value in query.items()}
    assert found == {
        "startDate": "2026-03-02T00:00:00Z", "endDate": "2026-03-02T23:59:59Z", "pageNumber": "1", "pageSize": "50",
    }  # fmt: skip


def test_a_claim_of_another_facility_or_minute_is_not_the_lost_one(quick: None, upstreams: Sandbox) -> None:
    claim_id = lose_create(upstreams)
    plant(upstreams, station="984")
    done = carry(claim_id)
    assert (done.state, len(upstreams.calls(call="create-claim"))) == (S.SUBMITTED, 2)
    other = {"data": [{"id": "x", "appointmentDateTime": "2026-03-02T10:01:00Z", "claimStatus": "Saved"}]}
    again = lose_create(upstreams, appointment={"dateTime": "2026-03-02T12:00:00"})
    upstreams.fault("search-claims", "status", status=200, body={"success": True, **other})
    assert carry(again).state == S.SUBMITTED


def test_a_facility_that_is_not_told_does_not_matter(quick: None, upstreams: Sandbox) -> None:
    claim_id = lose_create(upstreams)
    (planted,) = plant(upstreams, seen=False)
    found = {"id": planted, "appointmentDateTime": f"{AT}Z", "claimStatus": "Incomplete"}
    upstreams.fault("search-claims", **listed(found, total=900), times=1)
    assert carry(claim_id).claim_id == planted


@pytest.mark.parametrize("status", ["ClaimSubmitted", "Denied", "Brand New"])
def test_a_find_that_sees_a_claim_of_another_status_is_a_duplicate(
    quick: None, upstreams: Sandbox, status: str
) -> None:
    claim_id = lose_create(upstreams)
    plant(upstreams, status=status)
    done = carry(claim_id)
    assert (done.state, done.claim_id, len(upstreams.calls(call="create-claim"))) == (S.DUPLICATE, None, 1)


def test_a_claim_whose_create_an_earlier_workflow_lost_is_ours_while_unfinished(
    quick: None, upstreams: Sandbox
) -> None:
    first = lose_create(upstreams, effect=True)
    upstreams.fault("find-or-add", "status", status=403, times=1)
    assert carry(first).state == S.FAILED
    second = carry(file_claim())
    assert (second.state, second.claim_made, effects(upstreams)["claims"]) == (S.SUBMITTED, False, 1)


def test_a_claim_whose_create_an_earlier_workflow_lost_is_a_duplicate_once_submitted(
    quick: None, upstreams: Sandbox
) -> None:
    first = lose_create(upstreams, effect=True)
    upstreams.fault("find-or-add", "status", status=403, times=1)
    carry(first)
    rename(upstreams, upstreams.ledger()["claims"][0]["claimId"], "InProcess")
    assert carry(file_claim()).state == S.DUPLICATE


def test_a_create_answered_as_duplicate_after_a_doubt_is_adopted(quick: None, upstreams: Sandbox) -> None:
    claim_id = lose_create(upstreams)
    upstreams.fault("create-claim", "foreign-claim", claim_status="Incomplete")
    done = carry(claim_id)
    assert (done.state, len(upstreams.calls(call="create-claim"))) == (S.SUBMITTED, 2)


def test_a_create_answered_as_duplicate_of_somebody_else_is_one(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    upstreams.fault("create-claim", "foreign-claim", claim_status="Incomplete")
    claim_id = file_claim()
    done = carry(claim_id)
    assert (done.state, done.claim_id, done.claim_number) == (S.DUPLICATE, None, "TC202602000099121")
    said = "Validation failed: A claim has already been created for this appointment."
    assert shown(claim_id)["error"]["message"] == said


def test_a_look_up_that_is_held_back_after_a_duplicate_puts_nothing_in_doubt(
    quick: None, upstreams: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A definite refusal is no doubt: an unfinished claim of somebody else must not become ours by it."""
    upstreams.fault("create-claim", "foreign-claim", claim_status="Incomplete")
    claim_id = file_claim()
    advance(claim_id, to=S.APPOINTMENT_FOUND)
    asked, ask = [], travel_pay_client.TravelPay.find_or_add

    def held_back(self: Any, *args: Any, **more: Any) -> Any:
        asked.append(1)
        if len(asked) == 1:
            raise errors.NotSent("limiter", 5)
        return ask(self, *args, **more)

    monkeypatch.setattr(travel_pay_client.TravelPay, "find_or_add", held_back)
    engine.run(claim_id)
    assert (row(claim_id).in_doubt, row(claim_id).attempt) == (False, 0)
    assert carry(claim_id).state == S.DUPLICATE


# 5.4: which expense


def test_expenses_of_an_adopted_claim_are_adopted_one_for_one_and_theirs_stay(quick: None, upstreams: Sandbox) -> None:
    toll = {"type": "toll", "costRequested": 3}
    fault = upstreams.fault("submit-claim", "status", status=422)
    first = carry(file_claim(expenses=[GARAGE, GARAGE, toll]))
    upstreams.clear_faults(fault)
    second = carry(file_claim(expenses=[GARAGE, GARAGE, GARAGE, MILEAGE]))
    assert second.state == S.SUBMITTED
    assert [one["state"] for one in second.expenses] == ["adopted", "adopted", "added", "added"]
    ids = {one["expenseId"] for one in (*first.expenses, *second.expenses)}
    assert (len(ids), effects(upstreams)["expenses"], deleted(upstreams)) == (5, 5, [])


DIFFERENT = {
    "cost": {"costRequested": 12.51},
    "day": {"dateIncurred": "2026-03-03"},
    "description": {"description": "garage"},
    "type": {"type": "toll"},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_an_expense_that_differs_is_another_one(quick: None, upstreams: Sandbox, what: str) -> None:
    fault = upstreams.fault("submit-claim", "status", status=422)
    carry(file_claim(expenses=[GARAGE]))
    upstreams.clear_faults(fault)
    second = carry(file_claim(expenses=[GARAGE | DIFFERENT[what]]))
    assert [one["state"] for one in second.expenses] == ["added"]


def test_two_equal_expenses_are_two_and_a_lost_one_is_told_by_the_count(quick: None, upstreams: Sandbox) -> None:
    claim_id = file_claim(expenses=[GARAGE, GARAGE])
    advance(claim_id, to=S.CREATED)
    upstreams.fault("add-expense", "drop-after", times=1)
    done = carry(claim_id)
    assert [one["state"] for one in done.expenses] == ["adopted", "added"]
    assert (effects(upstreams)["expenses"], len(upstreams.calls(call="add-expense"))) == (2, 2)


@pytest.mark.parametrize("fault", ["drop-before", "drop-after"])
def test_the_second_of_two_equal_expenses_lost_is_not_taken_for_the_first(
    quick: None, upstreams: Sandbox, fault: str
) -> None:
    toll = {"type": "toll", "costRequested": 3}
    claim_id = file_claim(expenses=[GARAGE, toll, GARAGE])
    upstreams.fault("add-expense", "status", status=500, match={"type": "toll"}, times=1)
    advance(claim_id, to=S.CREATED)
    engine.run(claim_id)  # the toll is lost without effect
    pass_the_time(claim_id)
    engine.run(claim_id)
    upstreams.fault("add-expense", fault, match={"description": "Garage"}, times=1)
    done = carry(claim_id)
    assert done.state == S.SUBMITTED
    assert len({one["expenseId"] for one in done.expenses}) == 3
    assert effects(upstreams)["expenses"] == 3


def test_what_a_lost_call_added_too_late_is_deleted_before_the_submission(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("add-expense", "late", seconds=1_000, times=1)
    claim_id = file_claim(expenses=[GARAGE])
    advance(claim_id, to=S.CREATED)
    engine.perform("claim", "add_expenses", claim_id)
    for _ in range(2):
        pass_the_time(claim_id)
        engine.perform("claim", "add_expenses", claim_id)
    assert row(claim_id).state == S.EXPENSED
    for _, _, late in upstreams.world.scheduler._jobs:
        late()
    done = carry(claim_id)
    assert done.state == S.SUBMITTED
    (kept,) = [one["expenseId"] for one in done.expenses]
    assert (effects(upstreams)["expenses"], effects(upstreams)["deletions"]) == (2, 1)
    assert kept not in deleted(upstreams)
    order = [call["call"] for call in upstreams.calls() if call["call"] in {"delete-expense", "submit-claim"}]
    assert order == ["delete-expense", "submit-claim"]


def test_a_claim_never_in_doubt_is_not_read_before_its_submission(quick: None, upstreams: Sandbox) -> None:
    carry(file_claim())
    order = [call["call"] for call in upstreams.calls() if call["call"] in {"read-claim", "submit-claim"}]
    assert order == ["submit-claim", "read-claim"]


def test_after_a_refused_expense_no_later_one_is_sent(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    upstreams.fault("add-expense", "status", status=422, match={"type": "toll"})
    claim_id = file_claim(expenses=[MILEAGE, {"type": "toll", "costRequested": 1}, GARAGE])
    carry(claim_id)
    claim = shown(claim_id)
    assert (claim["error"]["expenseIndex"], claim["error"]["claim"]["state"]) == (1, "Saved")
    assert [one["state"] for one in claim["expenses"]] == ["added", "pending", "pending"]
    assert len(upstreams.calls(call="add-expense")) == 2


@pytest.mark.parametrize(("call", "fault"), [("read-claim", "status"), ("find-or-add", "status")])
def test_every_failure_of_an_expense_names_one(
    *, quick: None, upstreams: Sandbox, set_settings: Set, shown: Shown, call: str, fault: str
) -> None:
    """Also where nobody refused it: the find of a lost call, or the read of an adopted claim."""
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=2, TRAVEL_CLAIMS_DEADLINE_SECONDS=7_200)
    if call == "find-or-add":
        half_made(upstreams)
        call = "read-claim"
        claim_id = file_claim(expenses=[MILEAGE, GARAGE])
        advance(claim_id, to=S.CREATED)
    else:
        claim_id = file_claim(expenses=[MILEAGE, GARAGE])
        upstreams.fault("add-expense", "drop-before", times=1, match={"type": "parking"})
    upstreams.fault(call, fault, status=500)
    if not row(claim_id).adopt_expenses:
        upstreams.fault("add-expense", "drop-before", match={"expenseType": "parking"})
    carry(claim_id)
    error = shown(claim_id)["error"]
    assert error["step"] == "add_expenses"
    assert error["expenseIndex"] == (0 if row(claim_id).adopt_expenses else 1)


# 5.5: submission


ALREADY = {"error": {"code": "CLAIM_ALREADY_SUBMITTED", "message": "Claim has already been submitted"}}


@pytest.mark.parametrize("status", [400, 403, 409, 422])
@pytest.mark.parametrize("body", [ALREADY, {"message": "It HAS ALREADY BEEN SUBMITTED."}])
def test_an_own_claim_that_was_already_submitted_is_submitted(
    quick: None, upstreams: Sandbox, status: int, body: dict[str, Any]
) -> None:
    upstreams.fault("submit-claim", "status", status=status, body=body, effect=True, times=1)
    done = carry(file_claim())
    assert (done.state, done.error, effects(upstreams)["submissions"]) == (S.SUBMITTED, None, 1)
    assert (done.claim_number or "").startswith("TC")


def test_after_a_submission_the_claim_is_read_twice_at_most(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("read-claim", "status", status=500, times=1)
    begun = time.monotonic()
    done = carry(file_claim())
    assert (done.state, (done.claim_number or "")[:2]) == (S.SUBMITTED, "TC")
    assert len(upstreams.calls(call="read-claim")) == 2
    assert time.monotonic() - begun > 2


def test_a_submit_answered_with_an_unfinished_status_is_looked_up(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "claim-status", claim_status="Saved", times=1)
    done = carry(file_claim())
    assert (done.state, len(upstreams.calls(call="submit-claim"))) == (S.SUBMITTED, 1)


def test_a_submit_in_doubt_leaves_the_claims_state_unknown(
    quick: None, upstreams: Sandbox, set_settings: Set, shown: Shown
) -> None:
    set_settings(TRAVEL_CLAIMS_DEADLINE_SECONDS=7_200)
    upstreams.fault("submit-claim", "drop-before")
    upstreams.fault("read-claim", "status", status=500)
    claim_id = file_claim()
    carry(claim_id)
    assert shown(claim_id)["error"]["claim"]["state"] == "unknown"


# 4.6: odd behaviour


@pytest.mark.parametrize(("status", "state"), [(422, S.FAILED), (500, S.SUBMITTED), (None, S.SUBMITTED)])
@pytest.mark.parametrize("effect", [False, True])
def test_a_success_that_says_it_is_none_counts_as_its_inner_status(
    quick: None, upstreams: Sandbox, status: int | None, state: S, effect: bool
) -> None:
    upstreams.fault("create-claim", "success-false", status=status, effect=effect, times=1)
    done = carry(file_claim())
    assert done.state == state
    assert effects(upstreams)["claims"] == (0 if status == 422 and not effect else 1)


@pytest.mark.parametrize(("word", "spaced"), [("OneWay", "One Way"), ("RoundTrip", "Round Trip")])
def test_trip_types_are_spaced_where_that_is_set(
    quick: None, upstreams: Sandbox, set_settings: Set, word: str, spaced: str
) -> None:
    for number, (setting, told) in enumerate((("false", word), ("true", spaced))):
        set_settings(TRAVEL_PAY_SPACED_TRIP_TYPES=setting)
        visit = {"dateTime": f"2026-03-02T10:0{number}:00"}
        carry(file_claim(expenses=[{"type": "mileage", "tripType": word}], appointment=visit))
        assert bodies(upstreams, "add-expense")[-1]["tripType"] == told


def test_paging_goes_on_to_an_empty_page_whatever_the_total_says(quick: None, upstreams: Sandbox) -> None:
    claim_id = lose_create(upstreams, effect=True)
    hide(upstreams)
    plant(upstreams, number=60, status="ClaimSubmitted", seen=False, station="985")
    assert carry(claim_id).state == S.SUBMITTED
    pages = [call["query"]["pageNumber"] for call in upstreams.calls(call="search-claims")]
    assert [int(page[0] if isinstance(page, list) else page) for page in pages] == [1, 2, 3]


# 5.7: what is undone


def test_a_create_that_turns_out_not_to_have_happened_leaves_nothing_to_undo(quick: None, upstreams: Sandbox) -> None:
    claim_id = lose_create(upstreams, rollback=True)
    upstreams.fault("find-or-add", "status", status=403, times=1)
    done = carry(claim_id)
    assert (done.state, done.rollback_result, done.claim_id) == (S.ROLLED_BACK, "none", None)
    assert done.error["code"] == "rejected"


@pytest.mark.parametrize("status", ["ClaimSubmitted", "Brand New"])
def test_a_claim_of_somebody_else_found_while_undoing_is_left_alone(
    quick: None, upstreams: Sandbox, deletable: None, status: str
) -> None:
    claim_id = lose_create(upstreams, rollback=True)
    upstreams.fault("find-or-add", "status", status=403, times=1)
    pass_the_time(claim_id)
    engine.perform("claim", "create_claim", claim_id)
    assert row(claim_id).state == S.ROLLING_BACK
    plant(upstreams, status=status)
    done = carry(claim_id)
    assert (done.state, done.rollback_result, done.claim_id) == (S.ROLLED_BACK, "none", None)
    assert deleted(upstreams) == []


def test_everything_made_is_deleted_last_first(quick: None, upstreams: Sandbox, deletable: None) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    done = carry(file_claim(rollback=True, expenses=[MILEAGE, GARAGE, GARAGE]))
    ids = [one["expenseId"] for one in done.expenses]
    assert deleted(upstreams) == [*ids[::-1], done.claim_id]
    assert (done.state, done.rollback_result) == (S.ROLLED_BACK, "succeeded")
    assert done.rollback_detail == "3 expenses deleted; claim deleted"


def test_expenses_gone_and_the_claim_left_is_partial(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    claim_id = file_claim(rollback=True)
    carry(claim_id)
    error = shown(claim_id)["error"]
    detail = "1 expense deleted; claim left, Travel Pay offers no delete here"
    assert error["rollback"] == {"requested": True, "result": "partial", "detail": detail}
    assert error["claim"]["state"] == "Incomplete"


def test_some_deletes_that_work_and_some_that_do_not_are_a_partial_failure(
    quick: None, upstreams: Sandbox, deletable: None
) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-claim", "status", status=403)
    done = carry(file_claim(rollback=True))
    assert (done.state, done.rollback_result) == (S.ROLLBACK_FAILED, "partial")
    assert done.rollback_detail == "1 expense deleted; claim could not be deleted"


def test_no_delete_that_works_is_a_failure(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-expense", "status", status=403)
    done = carry(file_claim(rollback=True))
    assert (done.state, done.rollback_result) == (S.ROLLBACK_FAILED, "failed")


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 403},
        {"fault": "status", "status": 500},
        {"fault": "claim-status", "claim_status": "Brand New"},
    ],
)
def test_of_a_claim_that_cannot_be_read_or_told_nothing_is_deleted(
    quick: None, upstreams: Sandbox, fault: dict[str, Any]
) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("read-claim", **fault)
    done = carry(file_claim(rollback=True))
    assert (done.state, done.rollback_result, deleted(upstreams)) == (S.ROLLBACK_FAILED, "failed", [])
    assert done.error["code"] == "rejected"


def test_deletes_are_tried_eight_times(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-expense", "status", status=500)
    assert carry(file_claim(rollback=True)).state == S.ROLLBACK_FAILED
    assert len(upstreams.calls(call="delete-expense")) == 8


def test_an_expense_or_claim_that_is_gone_already_counts_as_deleted(
    quick: None, upstreams: Sandbox, deletable: None
) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    for call in ("delete-expense", "delete-claim"):
        upstreams.fault(call, "status", status=404)
    done = carry(file_claim(rollback=True))
    assert (done.state, done.rollback_result) == (S.ROLLED_BACK, "succeeded")


def test_what_an_earlier_workflow_made_stays(quick: None, upstreams: Sandbox, deletable: None) -> None:
    fault = upstreams.fault("submit-claim", "status", status=422)
    first = carry(file_claim(expenses=[GARAGE]))
    second = carry(file_claim(expenses=[GARAGE, MILEAGE], rollback=True))
    upstreams.clear_faults(fault)
    assert second.claim_id == first.claim_id
    assert deleted(upstreams) == [second.expenses[1]["expenseId"]]
    assert [one["state"] for one in second.expenses] == ["adopted", "removed"]


def test_an_expense_that_was_lost_and_found_is_undone_like_any_other(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("add-expense", "drop-after", times=1)
    upstreams.fault("submit-claim", "status", status=400)
    done = carry(file_claim(rollback=True))
    assert [one["state"] for one in done.expenses] == ["removed"]


def test_a_claim_left_by_a_rollback_is_resumed_by_the_next_one(quick: None, upstreams: Sandbox) -> None:
    fault = upstreams.fault("submit-claim", "status", status=400)
    first = carry(file_claim(rollback=True))
    upstreams.clear_faults(fault)
    second = carry(file_claim())
    assert (second.state, second.claim_id) == (S.SUBMITTED, first.claim_id)
    assert len(upstreams.calls(call="create-claim")) == 1


def test_a_failing_rollback_never_replaces_the_first_error(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    upstreams.fault("submit-claim", "status", status=422, message="First.")
    upstreams.fault("delete-expense", "status", status=403, message="Second.")
    claim_id = file_claim(rollback=True)
    carry(claim_id)
    error = shown(claim_id)["error"]
    assert (error["step"], error["message"], error["rollback"]["result"]) == ("submit_claim", "First.", "failed")


# 10: the worked examples


def test_the_wire_of_the_first_example(quick: None, upstreams: Sandbox) -> None:
    claim_id = file_claim(appointment={"dateTime": "2026-03-02T10:00:00-05:00"}, expenses=None)
    done = carry(claim_id)
    (text,) = texts_of(claim_id)
    carry(text.id)
    (appointment,) = upstreams.ledger()["appointments"]
    made, calls = {"claimId": done.claim_id}, upstreams.calls()
    assert [(call["method"], call["path"].rpartition("/api/")[2], call["body"]) for call in calls[1:7]] == [
        ("POST", "v4/auth/system-access-token", {"secret": "pci-secret", "icn": ICN}),
        (
            "POST", "v3/appointments/find-or-add",
            {"appointmentDateTime": "2026-03-02T10:00:00Z", "facilityStationNumber": STATION},
        ),
        (
            "POST", "v3/claims",
            {"appointmentId": appointment["id"], "claimName": "Travel Reimbursement", "claimantType": "Veteran"},
        ),
        (
            "POST", "v3/expenses/mileage",
            {**made, "dateIncurred": "2026-03-02", "description": "mileage", "tripType": "RoundTrip"},
        ),
        ("PATCH", f"v3/claims/{done.claim_id}/submit", None),
        ("GET", f"v3/claims/{done.claim_id}", None),
    ]  # fmt: skip
    assert calls[0]["path"] == "/5f0e3c1b-tenant/oauth2/token"
    form = "client_id=app&client_secret=s3cret&client_type=1&grant_type=client_credentials&resource=api-resource"
    assert calls[0]["body"] == form
    assert calls[7]["body"]["personalisation"] == {"claim_number": done.claim_number[-4:], "appt_date": "Mar 02"}
    assert len(calls) == 8


def test_the_second_example_a_refused_expense_with_rollback(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    said = "Expense type is invalid for this claim."
    upstreams.fault("add-expense", "status", status=422, message=said, match={"expenseType": "parking"})
    claim_id = file_claim(expenses=[MILEAGE, GARAGE], rollback=True)
    done = carry(claim_id)
    sent = {"claimId": done.claim_id, "dateIncurred": "2026-03-02", "description": "Garage", "costRequested": 12.5}
    assert bodies(upstreams, "add-expense")[1] == sent | {"expenseType": "parking"}
    assert upstreams.calls(call="delete-expense")[0]["path"].endswith(
        f"/api/v3/expenses/mileage/{done.expenses[0]['expenseId']}"
    )
    found = shown(claim_id)
    detail = "1 expense deleted; claim left, Travel Pay offers no delete here"
    assert (found["state"], found["text"]["template"]) == ("rolled-back", "error")
    assert list(found["error"].items()) == [
        ("step", "add_expenses"), ("httpStatus", 422), ("code", "rejected"), ("message", said), ("expenseIndex", 1),
        ("claim", {"id": done.claim_id, "state": "Incomplete"}),
        ("rollback", {"requested": True, "result": "partial", "detail": detail}),
        ("retryable", False), ("correlationId", "corr-1"),
    ]  # fmt: skip


@pytest.mark.parametrize("effect", [True, False])
def test_the_fourth_example_a_lost_create(quick: None, upstreams: Sandbox, effect: bool) -> None:
    claim_id = lose_create(upstreams, effect=effect)
    done = carry(claim_id)
    assert (done.state, done.claim_made, effects(upstreams)["claims"]) == (S.SUBMITTED, True, 1)
    assert len(upstreams.calls(call="create-claim")) == (1 if effect else 2)


def test_the_fifth_example_filed_elsewhere(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    upstreams.fault("find-or-add", "foreign-claim")
    claim_id = file_claim()
    carry(claim_id)
    found = shown(claim_id)
    assert (found["state"], found["claimId"], found["claimNumber"]) == ("duplicate", None, "TC202602000099121")
    assert found["error"] == {
        "step": "create_claim", "httpStatus": 409, "code": "duplicate-claim",
        "message": "A claim already exists for this appointment.", "claim": {"id": None, "state": "none"},
        "rollback": {"requested": False, "result": "none", "detail": None}, "retryable": False,
        "correlationId": "corr-1",
    }  # fmt: skip
    (text,) = texts_of(claim_id)
    assert (text.template, text.personalisation["claim_number"]) == ("duplicate", "9121")
    assert upstreams.calls(call="create-claim") == []


# 2.10: one story, whoever tells it


@pytest.fixture
def from_python(environment: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any] | None]:
    """File the claim in-process; waiting costs no time. The error object, None when it was submitted."""
    passed, monotonic, wall = [0.0], time.monotonic, time.time
    monkeypatch.setattr(straight.time, "monotonic", lambda: monotonic() + passed[0])
    monkeypatch.setattr(straight.time, "time", lambda: wall() + passed[0])

    def wait(seconds: float) -> None:
        passed[0] += seconds

    original = straight.Straight.__init__
    monkeypatch.setattr(
        straight.Straight, "__init__", lambda self, *args, **more: original(self, *args, **more | {"wait": wait})
    )

    def file(**more: Any) -> dict[str, Any] | None:
        client = TravelPay(Credentials.from_env("pci"), time_budget=3_000)
        try:
            visit = {"dateTime": AT, "stationNumber": STATION}
            client.submit_claim(icn=ICN, appointment=visit, correlation_id="corr-1", **more)
        except ClaimError as error:
            return error.as_dict()
        return None

    return file


STORIES: dict[str, tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]] = {
    "all is well": ([], {}),
    "a lost create": ([("create-claim", {"fault": "drop-after", "times": 1})], {}),
    "a lost expense": ([("add-expense", {"fault": "drop-before", "times": 1})], {}),
    "a refused expense": (
        [("add-expense", {"fault": "status", "status": 422, "match": {"expenseType": "parking"}})],
        {"expenses": [MILEAGE, GARAGE]},
    ),
    "a refused submission, undone": (
        [("submit-claim", {"fault": "status", "status": 400, "message": "No."})],
        {"rollback": True, "expenses": [MILEAGE, GARAGE]},
    ),
    "a delete that is refused": (
        [
            ("submit-claim", {"fault": "status", "status": 400}),
            ("delete-expense", {"fault": "status", "status": 403, "times": 1}),
        ],
        {"rollback": True, "expenses": [MILEAGE, GARAGE]},
    ),
    "an empty list": ([("find-or-add", {"fault": "empty-list"})], {}),
    "filed elsewhere": ([("find-or-add", {"fault": "foreign-claim"})], {}),
    "a duplicate told by create": ([("create-claim", {"fault": "foreign-claim"})], {}),
    "tokens refused twice": ([("create-claim", {"fault": "contact-409"})], {}),
    "a refused authorization": ([("system-token", {"fault": "status", "status": 403})], {}),
    "a server in trouble": ([("submit-claim", {"fault": "status", "status": 503})], {}),
    "a server in trouble, undone": ([("submit-claim", {"fault": "status", "status": 503})], {"rollback": True}),
    "nonsense": ([("find-or-add", {"fault": "wrong-shape"})], {}),
    "a gateway that is late": ([("add-expense", {"fault": "status", "status": 504})], {}),
    "a limit that stays": ([("create-claim", {"fault": "rate-limit", "seconds": 3_600})], {}),
    "no way to tell": (
        [("submit-claim", {"fault": "drop-before"}), ("read-claim", {"fault": "status", "status": 500})],
        {},
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_python_interface_api_and_ledger_tell_the_same_story(
    *, quick: None, upstreams: Sandbox, set_settings: Set, shown: Shown, from_python: Callable[..., Any], story: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=3, TRAVEL_CLAIMS_DEADLINE_SECONDS=3_000)
    faults, members = STORIES[story]
    told, standing = [], []
    for way in ("engine", "python"):
        upstreams.reset()
        for call, fault in faults:
            upstreams.fault(call, **fault)
        if way == "engine":
            claim_id = file_claim(phone=None, **members)
            carry(claim_id)
            told.append(shown(claim_id)["error"])
        else:
            told.append(from_python(**{"expenses": [MILEAGE], **members}))
        kinds = ("appointments", "claims", "expenses", "submissions", "deletions")
        standing.append({kind: effects(upstreams)[kind] for kind in kinds})
    for error in told:
        if error and error["claim"]["id"]:
            error["claim"]["id"] = "some id"
    assert told[0] == told[1]
    assert standing[0] == standing[1]


def test_the_sixth_example_from_python(quick: None, upstreams: Sandbox, from_python: Callable[..., Any]) -> None:
    assert from_python(rollback=True) is None
    upstreams.reset()
    said = "Validation failed: The claim does not have any expenses."
    upstreams.fault("submit-claim", "status", status=400, message=said)
    error = from_python(rollback=True)
    assert (error["step"], error["httpStatus"], error["message"]) == ("submit_claim", 400, said)
    assert (error["claim"]["state"], error["rollback"]["result"]) == ("Incomplete", "partial")


# 9: pitfalls that no row above covers


def test_a_text_is_sent_although_its_number_is_missing_and_never_quotes_an_id(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("read-claim", "status", status=404)
    claim_id = file_claim()
    done = carry(claim_id)
    (text,) = texts_of(claim_id)
    carry(text.id)
    (body,) = bodies(upstreams, "send-sms")
    assert (done.state, body["personalisation"]["claim_number"]) == (S.SUBMITTED, "unknown")


def test_every_call_leaves_a_row_in_the_timeline(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("create-claim", "drop-before", times=1)
    claim_id = file_claim()
    carry(claim_id)
    with db.transaction() as session:
        details = [entry["detail"] for entry in workflows.timeline(session, claim_id) if " ms" in entry["detail"]]
    assert len(details) == len(upstreams.calls())
    assert [detail for detail in details if "no answer, unknown" in detail]


def test_the_breakers_of_the_hosts_are_separate(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=50, TRAVEL_PAY_BACKOFF_SECONDS=0.01, TRAVEL_PAY_BACKOFF_MAX_SECONDS=0.01)
    told = file_claim()
    carry(told)
    upstreams.fault("find-or-add", "status", status=500)
    claim_id = file_claim(appointment={"dateTime": "2026-03-02T12:00:00"})
    for _ in range(14):
        engine.run(claim_id)
        shift(claim_id, 10)
    assert len(upstreams.calls(call="find-or-add")) < 14
    (text,) = texts_of(told)
    engine.run(text.id)
    assert row(text.id).state == "sent"
