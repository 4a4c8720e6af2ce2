"""The rules of the travel-claims contract that no other test holds, row by row, against the sandbox."""

import base64
import email.utils
import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import select

from app import api, clock, config, db, expenses, states
from app.flows import claim_intake, claim_requests, engine, sweep
from app.flows import claims as claims_flow
from app.models.orm import new_id
from app.models.workflow import Call
from app.store import claims, clients, workflows
from app.upstreams import travel_pay_access
from sandbox import Sandbox
from sandbox.upstreams import travel_pay_book, travel_pay_shapes
from tests.flows.conftest import IMPATIENT, moves, row, shift, take
from tests.flows.test_claim_requests import advance
from tests.flows.test_claims import ICN, carry, effects, texts_of

S = states.Claim
AT = "2026-03-02T10:00:00"
STATION = "983GC"
DELETE_PATH = "api/v3/claims/{claimId}"
GARAGE = {"type": "parking", "costRequested": 12.5, "description": "Garage"}
MILEAGE = {"type": "mileage"}
Set = Callable[..., None]
Shown = Callable[[UUID], dict[str, Any]]


# What the tests begin with


def client_of(product: str) -> str:
    """The name of a client of this product, which is there afterwards."""
    name = f"client-{product}"
    with db.transaction() as session:
        try:
            clients.named(session, name)
        except LookupError:
            clients.add(session, name, ["claims"], product)
    return name


def intake(**members: Any) -> claim_intake.Intake:
    """A body as the API takes it."""
    visit = {"dateTime": AT, "stationNumber": STATION, **members.pop("appointment", {})}
    return claim_intake.Intake.model_validate(
        {"icn": ICN, "phone": "+12025550143", "appointment": visit, "expenses": [MILEAGE], **members}
    )


def file_claim(*, product: str = "pci", corr: str = "corr-1", **members: Any) -> UUID:
    """A claim as the API stores it."""
    name, body = client_of(product), intake(**members)
    with db.transaction() as session:
        client = clients.named(session, name)
        return claims.accept(session, client, body.as_new_claim(), correlation_id=corr, waiting=False)[0]


@pytest.fixture
def shown(database: None) -> Shown:
    """A claim as an operator sees it over HTTP."""
    with db.transaction() as session:
        key = clients.add(session, "operator", ["operator"])
    http = api.create_app().test_client()

    def get(claim_id: UUID) -> dict[str, Any]:
        answer = http.get(f"/travel-claims/{claim_id}", headers={"x-api-key": key})
        assert answer.status_code == 200
        found: dict[str, Any] = answer.get_json()
        return found

    return get


def plant(
    sandbox: Sandbox, *, number: int = 1, status: str = "Incomplete", seen: bool = True, station: str = STATION
) -> list[str]:
    """Claims that nobody here made, for the visit; `seen`: find-or-add shows the last one. Their ids."""
    book: travel_pay_book.Book = sandbox.upstreams["travel-pay"].book  # type: ignore[attr-defined]
    with sandbox.world.lock:
        appointment, _ = book.find_or_add(ICN, station, AT)
        planted = [book.add_claim(appointment, status=status).id for _ in range(number)]
        if not seen:
            appointment.claim = None
    return planted


def hide(sandbox: Sandbox) -> None:
    """From now on find-or-add shows no claim of the visit; the claims themselves stay."""
    with sandbox.world.lock:
        for appointment in sandbox.upstreams["travel-pay"].book._appointments.values():  # type: ignore[attr-defined]
            appointment.claim = None


def remove(sandbox: Sandbox, claim_id: str) -> None:
    book = sandbox.upstreams["travel-pay"].book  # type: ignore[attr-defined]
    with sandbox.world.lock:
        book.remove_claim(book.claim(claim_id))


def rename(sandbox: Sandbox, claim_id: str, status: str) -> None:
    """The upstream claim has another status from now on."""
    with sandbox.world.lock:
        sandbox.upstreams["travel-pay"].book.claim(claim_id).status = status  # type: ignore[attr-defined]


def listed(*entries: dict[str, Any], total: int | None = None) -> dict[str, Any]:
    """The parameters of a fault that answers with this list."""
    body = {"success": True, "statusCode": 200, "data": list(entries), "totalRecordCount": total or len(entries)}
    return {"fault": "status", "status": 200, "body": body}


def bodies(sandbox: Sandbox, call: str) -> list[Any]:
    return [one["body"] for one in sandbox.calls(call=call)]


def header(call: dict[str, Any], name: str) -> str | None:
    return {key.lower(): value for key, value in call["headers"].items()}.get(name.lower())


def due_in(workflow_id: UUID) -> float:
    """Seconds until the row is due."""
    with db.transaction() as session:
        return float((row(workflow_id).due_at - workflows.now(session)).total_seconds())


def pass_the_time(workflow_id: UUID) -> None:
    """What the row waits for comes at once; breakers and limiters are forgotten."""
    shift(workflow_id, max(due_in(workflow_id), 0) + 0.01)
    forget_upstreams()


def forget_upstreams() -> None:
    redis.Redis.from_url(config.settings().redis_url).flushall()
    travel_pay_access._gateways.clear()


def lose_create(sandbox: Sandbox, *, effect: bool = False, **members: Any) -> UUID:
    """A claim whose create has just been lost."""
    sandbox.fault("create-claim", "drop-after" if effect else "drop-before", times=1)
    claim_id = file_claim(**members)
    advance(claim_id, to=S.APPOINTMENT_FOUND)
    engine.perform("claim", "create_claim", claim_id)
    assert row(claim_id).in_doubt
    return claim_id


# 2.3: expenses


RECEIPT = {
    "contentType": "application/pdf",
    "fileName": "receipt.pdf",
    "fileData": base64.b64encode(b"%PDF-1.7").decode(),
}
COMMON = {"dateIncurred": "2026-03-01", "costRequested": 12.35, "receipt": RECEIPT}
GIVEN: dict[str, dict[str, Any]] = {
    "mileage": {"tripType": "OneWay", "dateIncurred": "2026-03-01", "description": "there"},
    "parking": COMMON | {"description": "Garage"},
    "toll": COMMON | {"description": "Bridge"},
    "other": COMMON | {"description": "Ferry"},
    "meal": COMMON | {"vendorName": "Diner"},
    "lodging": COMMON | {"vendor": "Inn", "checkInDate": "2026-03-01", "checkOutDate": "2026-03-02"},
    "commoncarrier": COMMON | {"carrierType": "Bus", "reasonNotUsingPOV": "medically_indicated"},
    "airtravel": COMMON
    | {
        "vendorName": "Air", "tripType": "RoundTrip", "departedFrom": "Denver", "arrivedTo": "Cheyenne",
        "departureDate": "2026-03-01", "returnDate": "2026-03-03",
    },
}  # fmt: skip
CHANGED = {"reasonNotUsingPOV": "Medically Indicated"}


@pytest.mark.parametrize("word", GIVEN)
def test_an_expense_of_every_type_goes_its_whole_way_with_the_body_of_the_contract(
    quick: None, upstreams: Sandbox, word: str
) -> None:
    done = carry(file_claim(expenses=[{"type": word, **GIVEN[word]}]))
    assert (done.state, [one["state"] for one in done.expenses]) == (S.SUBMITTED, ["added"])
    (call,) = upstreams.calls(call="add-expense")
    wanted = {"claimId": done.claim_id, "description": word, **GIVEN[word]}
    if word != "mileage":
        del wanted["receipt"]
        wanted |= {"expenseType": word, "expenseReceipt": {**RECEIPT, "length": 8}}
    assert call["body"] == wanted | {name: value for name, value in CHANGED.items() if name in wanted}
    version = "v3" if word == "mileage" else "v1"
    assert call["path"].endswith(f"/api/{version}/expenses/{word}")
    assert call["status"] == 200


@pytest.mark.parametrize("word", GIVEN)
def test_a_lost_expense_of_every_type_is_recognised_in_the_read_back(
    quick: None, upstreams: Sandbox, word: str
) -> None:
    upstreams.fault("add-expense", "drop-after", times=1)
    done = carry(file_claim(expenses=[{"type": word, **GIVEN[word]}]))
    assert (done.state, [one["state"] for one in done.expenses]) == (S.SUBMITTED, ["adopted"])
    assert effects(upstreams)["expenses"] == 1


def test_an_expense_without_receipt_has_no_such_member(quick: None, upstreams: Sandbox) -> None:
    carry(file_claim(expenses=[GARAGE]))
    assert "expenseReceipt" not in bodies(upstreams, "add-expense")[0]


def test_expenses_are_sent_one_after_the_other_in_order(quick: None, upstreams: Sandbox) -> None:
    asked = [{"type": "toll", "costRequested": 1, "description": str(number)} for number in range(5)]
    carry(file_claim(expenses=asked))
    assert [body["description"] for body in bodies(upstreams, "add-expense")] == ["0", "1", "2", "3", "4"]


def test_parking_and_an_expense_of_type_other_are_told_apart_when_adopted(quick: None, upstreams: Sandbox) -> None:
    other, parking = ({"type": word, "costRequested": 9, "description": "Lot"} for word in ("other", "parking"))
    fault = upstreams.fault("submit-claim", "status", status=422)
    first = carry(file_claim(expenses=[parking, other]))
    upstreams.clear_faults(fault)
    second = carry(file_claim(expenses=[other, parking]))
    ids = [one["expenseId"] for one in first.expenses]
    assert [one["expenseId"] for one in second.expenses] == ids[::-1]
    assert effects(upstreams)["expenses"] == 2


@pytest.fixture
def ferry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new expense type: one entry in our table, and Travel Pay knows it."""
    entry = expenses.Type(path="ferry", shown_as="Ferry", fields={"vesselName": expenses.Field(kind=expenses.Filled)})
    monkeypatch.setattr(expenses, "TYPES", {**expenses.TYPES, "ferry": entry})
    theirs = {**travel_pay_shapes.EXPENSE_FIELDS, "ferry": travel_pay_shapes.PRICED | {"vesselName"}}
    monkeypatch.setattr(travel_pay_shapes, "EXPENSE_FIELDS", theirs)
    rebuild_bodies()  # they were built from the table when they were imported
    yield
    monkeypatch.undo()
    rebuild_bodies()


def rebuild_bodies() -> None:
    for body in (claim_intake.Intake, *claim_intake.Intake.__subclasses__()):
        body.model_rebuild(force=True)


def test_a_new_expense_type_is_one_entry(quick: None, upstreams: Sandbox, ferry: None, shown: Shown) -> None:
    """From the request to the submission: intake with its checks, sending, look-up of a lost call, adoption, undo."""
    with db.transaction() as session:
        key = clients.add(session, "ferries", ["claims"], "pci")
    http = api.create_app().test_client()

    def post(*asked: dict[str, Any], **more: Any) -> Any:
        visit = {"dateTime": AT, "stationNumber": STATION}
        body = {"icn": ICN, "appointment": visit, "expenses": list(asked), **more}
        return http.post("/travel-claims", json=body, headers={"x-api-key": key})

    crossing = {"type": "ferry", "costRequested": 7.25, "vesselName": " Columbia "}
    refused = post({"type": "ferry", "costRequested": 7.25}).get_json()
    assert [(one["pointer"], one["code"]) for one in refused["errors"]] == [("/expenses/0/vesselName", "required")]
    accepted = post(crossing, rollback=True)
    assert accepted.status_code == 202
    upstreams.fault("add-expense", "drop-after", times=1)
    refusal = upstreams.fault("submit-claim", "status", status=422)
    claim_id = UUID(accepted.get_json()["id"])
    assert carry(claim_id).state == S.ROLLED_BACK
    assert [one["type"] for one in upstreams.ledger()["deletions"]] == ["ferry"]
    upstreams.clear_faults(refusal)
    again = UUID(post(crossing).get_json()["id"])
    assert carry(again).state == S.SUBMITTED
    wire = {"expenseType": "ferry", "vesselName": "Columbia", "costRequested": 7.25}
    assert wire.items() <= bodies(upstreams, "add-expense")[-1].items()
    assert shown(again)["expenses"][0]["type"] == "ferry"


# 2.4: what went wrong, and what is told


CODES: dict[str, tuple[list[tuple[str, dict[str, Any]]], tuple[str, int, bool, str]]] = {
    "a token endpoint refuses": (
        [("veis-token", {"fault": "status", "status": 400})],
        ("authorization-failed", 502, True, "error"),
    ),
    "the system token is refused again after its one renewal": (
        [("system-token", {"fault": "refuse-401"})],
        ("authorization-failed", 502, True, "error"),
    ),
    "no appointment": ([("find-or-add", {"fault": "empty-list"})], ("appointment-not-found", 404, True, "error")),
    "401 twice": ([("create-claim", {"fault": "refuse-401"})], ("token-refused", 401, True, "error")),
    "409 twice": ([("add-expense", {"fault": "contact-409"})], ("token-refused", 409, True, "error")),
    "400": ([("submit-claim", {"fault": "status", "status": 400})], ("rejected", 400, False, "error")),
    "403": ([("find-or-add", {"fault": "status", "status": 403})], ("rejected", 403, False, "error")),
    "404": ([("create-claim", {"fault": "status", "status": 404})], ("rejected", 404, False, "error")),
    "422": ([("add-expense", {"fault": "status", "status": 422})], ("rejected", 422, False, "error")),
    "any other 4xx": ([("submit-claim", {"fault": "status", "status": 410})], ("rejected", 502, False, "error")),
    "429 until the deadline": (
        [("find-or-add", {"fault": "rate-limit", "seconds": 1800})],
        ("rate-limited", 429, True, "timeout"),
    ),
    "5xx": ([("submit-claim", {"fault": "status", "status": 503})], ("upstream-unavailable", 502, True, "error")),
    "dropped": ([("create-claim", {"fault": "drop-before"})], ("upstream-unavailable", 502, True, "error")),
    "not understood": ([("find-or-add", {"fault": "wrong-shape"})], ("malformed-answer", 502, True, "error")),
    "408": ([("find-or-add", {"fault": "status", "status": 408})], ("upstream-timeout", 504, True, "timeout")),
    "504": ([("submit-claim", {"fault": "status", "status": 504})], ("upstream-timeout", 504, True, "timeout")),
    "no answer in time": (
        [("find-or-add", {"fault": "hang-before"})],
        ("upstream-timeout", 504, True, "timeout"),
    ),
    "find could not tell": (
        [("submit-claim", {"fault": "drop-before"}), ("read-claim", {"fault": "status", "status": 500})],
        ("outcome-unknown", 504, True, "timeout"),
    ),
    "filed elsewhere": ([("find-or-add", {"fault": "foreign-claim"})], ("duplicate-claim", 409, False, "duplicate")),
}


@pytest.mark.parametrize("case", CODES)
def test_each_thing_that_goes_wrong_has_the_code_status_and_text_of_the_table(
    quick: None, upstreams: Sandbox, set_settings: Set, shown: Shown, case: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=2, TRAVEL_CLAIMS_DEADLINE_SECONDS=7_200)
    faults, (code, status, retryable, template) = CODES[case]
    set_settings(**(IMPATIENT if case == "no answer in time" else {}))
    for call, fault in faults:
        upstreams.fault(call, **fault)
    claim_id = file_claim()
    carry(claim_id)
    claim = shown(claim_id)
    error = claim["error"]
    assert (error["code"], error["httpStatus"], error["retryable"]) == (code, status, retryable)
    assert (claim["text"]["template"], claim["state"]) == (
        template,
        "duplicate" if status == 409 and not retryable else "failed",
    )
    assert ("expenseIndex" in error) == (error["step"] == "add_expenses")
    assert error["correlationId"] == "corr-1"


def test_a_deadline_that_passes_while_the_breaker_is_open_is_deadline_exceeded(
    quick: None, upstreams: Sandbox, set_settings: Set, shown: Shown
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=50, TRAVEL_PAY_BACKOFF_SECONDS=0.01, TRAVEL_PAY_BACKOFF_MAX_SECONDS=0.01)
    upstreams.fault("find-or-add", "status", status=500)
    claim_id = file_claim()
    for _ in range(14):
        engine.run(claim_id)
        shift(claim_id, max(due_in(claim_id), 0) + 0.01)
    before = row(claim_id)
    shift(claim_id, 90_000)
    for _ in range(3):
        engine.run(claim_id)
    done = shown(claim_id)
    assert (before.state, done["state"]) == (S.AUTHORIZED, "failed")
    assert (done["error"]["code"], done["error"]["httpStatus"]) == ("deadline-exceeded", 504)
    assert done["text"]["template"] == "timeout"
    assert len(upstreams.calls(call="find-or-add")) < 14


def test_the_third_death_in_one_step_is_told_as_crashed(quick: None, upstreams: Sandbox, shown: Shown) -> None:
    claim_id = file_claim(expenses=[GARAGE])
    advance(claim_id, to=S.CREATED)
    for _ in range(3):
        assert take(claim_id, by=new_id(), state=S.CREATED)
        sweep.sweep()
    error = shown(claim_id)["error"]
    assert (error["step"], error["code"], error["httpStatus"], error["retryable"]) == (
        "add_expenses", "crashed", 502, True,
    )  # fmt: skip
    assert error["expenseIndex"] == 0
    assert shown(claim_id)["text"]["template"] == "error"


def test_several_unfinished_claims_that_fit_are_ambiguous_and_untouched(
    quick: None, upstreams: Sandbox, shown: Shown
) -> None:
    claim_id = lose_create(upstreams)
    plant(upstreams, number=2, seen=False)
    carry(claim_id)
    error = shown(claim_id)["error"]
    assert (error["code"], error["httpStatus"], error["retryable"]) == ("ambiguous-match", 409, False)
    assert shown(claim_id)["text"]["template"] == "error"
    assert effects(upstreams) | {"appointments": 0} == dict.fromkeys(effects(upstreams), 0)


# 3.1: moves


ROAD = [None, S.ACCEPTED, S.AUTHORIZED, S.APPOINTMENT_FOUND, S.CREATED, S.EXPENSED, S.SUBMITTED]


def test_a_claim_moves_state_by_state_each_once(quick: None, upstreams: Sandbox) -> None:
    claim_id = file_claim()
    carry(claim_id)
    assert moves(claim_id) == list(itertools.pairwise(ROAD))


WHERE = {
    S.ACCEPTED: "system-token",
    S.AUTHORIZED: "find-or-add",
    S.APPOINTMENT_FOUND: "create-claim",
    S.CREATED: "add-expense",
    S.EXPENSED: "submit-claim",
}


@pytest.mark.parametrize("rollback", [False, True])
@pytest.mark.parametrize("state", WHERE)
def test_a_claim_fails_where_it_stands_and_is_undone_only_where_something_was_made(
    quick: None, upstreams: Sandbox, state: S, rollback: bool
) -> None:
    upstreams.fault(WHERE[state], "status", status=403)
    claim_id = file_claim(rollback=rollback)
    done = carry(claim_id)
    undone = rollback and state in {S.CREATED, S.EXPENSED}
    ends = [(state, S.ROLLING_BACK), (S.ROLLING_BACK, S.ROLLED_BACK)] if undone else [(state, S.FAILED)]
    assert moves(claim_id)[-len(ends) :] == ends
    assert (done.failed_in, done.run) == (state, 1)


@pytest.mark.parametrize("state", WHERE)
def test_a_failed_claim_goes_back_to_where_it_failed(quick: None, upstreams: Sandbox, state: S) -> None:
    fault = upstreams.fault(WHERE[state], "status", status=403)
    claim_id = file_claim()
    carry(claim_id)
    upstreams.clear_faults(fault)
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "done"
    assert moves(claim_id)[-1] == (S.FAILED, state)
    assert carry(claim_id).state == S.SUBMITTED


def test_a_create_in_doubt_is_undone_by_looking_first(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    """Rollback asked for, and the find of a lost create is refused: the claim is looked for again before it ends."""
    set_settings(TRAVEL_PAY_DELETE_CLAIM_PATH=DELETE_PATH)
    upstreams.change({"claim_delete": True})
    claim_id = lose_create(upstreams, effect=True, rollback=True)
    upstreams.fault("find-or-add", "status", status=403, times=1)
    done = carry(claim_id)
    assert (S.APPOINTMENT_FOUND, S.ROLLING_BACK) in moves(claim_id)
    assert (done.state, done.rollback_result, done.undo.get("claim")) == (S.ROLLED_BACK, "succeeded", "deleted")


# 3.3: timers


def test_back_off_triples_up_to_its_cap_with_a_fifth_of_jitter(environment: None, set_settings: Set) -> None:
    policy = claims_flow.policy()
    for tries in range(1, 9):
        base = min(5 * 3 ** (tries - 1), 900)
        waits = [policy.wait(tries) for _ in range(300)]
        assert 0.8 * base <= min(waits) < 0.9 * base
        assert 1.1 * base < max(waits) <= 1.2 * base
    assert (policy.attempts, policy.find_after, policy.settle) == (8, 5, 60)


def test_a_row_waits_as_its_attempts_say_and_fails_after_the_eighth(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", "status", status=500)
    claim_id = file_claim()
    for tries in range(1, 8):
        engine.run(claim_id)
        base = min(5 * 3 ** (tries - 1), 900)
        assert row(claim_id).attempt == tries
        assert 0.8 * base - 3 < due_in(claim_id) < 1.2 * base
        pass_the_time(claim_id)
    engine.run(claim_id)
    assert (row(claim_id).state, len(upstreams.calls(call="find-or-add"))) == (S.FAILED, 8)


LIMITED: dict[str, tuple[dict[str, Any], float]] = {
    "Ratelimit-Reset": ({"seconds": 90}, 90),
    "the larger of both is Retry-After": ({"seconds": 10, "retry_after": "120"}, 120),
    "the larger of both is Ratelimit-Reset": ({"seconds": 300, "retry_after": "120"}, 300),
    "an hour at most": ({"seconds": 9000}, 3600),
}


@pytest.mark.parametrize("case", LIMITED)
@pytest.mark.parametrize("call", ["find-or-add", "create-claim"])
def test_after_a_429_the_row_waits_as_told_and_uses_no_attempt(
    quick: None, upstreams: Sandbox, call: str, case: str
) -> None:
    told, seconds = LIMITED[case]
    upstreams.fault(call, "rate-limit", **told, times=1)
    claim_id = file_claim()
    engine.run(claim_id)
    found = row(claim_id)
    assert (found.attempt, found.in_doubt) == (0, False)
    assert 0.8 * seconds < due_in(claim_id) <= seconds


def test_a_429_may_name_a_date_or_nothing(quick: None, upstreams: Sandbox) -> None:
    then = email.utils.format_datetime(clock.now() + timedelta(seconds=200), usegmt=False)
    for headers, seconds in (({"Retry-After": then}, 200), ({}, 60)):
        upstreams.fault("find-or-add", "status", status=429, headers=headers, times=1)
        claim_id = file_claim(appointment={"dateTime": f"2026-03-02T11:{seconds % 60:02}:00"})
        engine.run(claim_id)
        assert 0.7 * seconds < due_in(claim_id) <= seconds
        forget_upstreams()


def test_a_429_stops_the_calls_of_all_claims(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("find-or-add", "rate-limit", seconds=50, times=1)
    engine.run(file_claim())
    other = file_claim(appointment={"dateTime": "2026-03-02T12:00:00"})
    calls = len(upstreams.calls())
    engine.run(other)
    assert len(upstreams.calls()) == calls
    assert (row(other).attempt, 30 < due_in(other) < 52) == (0, True)


@pytest.mark.parametrize("call", ["create-claim", "add-expense", "submit-claim"])
def test_a_lost_call_is_looked_up_after_five_seconds_and_again_at_the_settle_time(
    quick: None, upstreams: Sandbox, call: str
) -> None:
    upstreams.fault(call, "drop-before", times=1)
    claim_id = file_claim()
    engine.run(claim_id)
    assert (row(claim_id).in_doubt, 1 < due_in(claim_id) <= 5) == (True, True)
    pass_the_time(claim_id)
    engine.run(claim_id)
    assert (row(claim_id).in_doubt, 40 < due_in(claim_id) < 56) == (True, True)
    assert len(upstreams.calls(call=call)) == 1
    pass_the_time(claim_id)
    engine.run(claim_id)
    assert (row(claim_id).state, len(upstreams.calls(call=call))) == (S.SUBMITTED, 2)


def test_a_find_that_fails_itself_is_repeated_by_back_off_and_uses_no_attempt(quick: None, upstreams: Sandbox) -> None:
    claim_id = lose_create(upstreams)
    upstreams.fault("find-or-add", "status", status=500, times=2)
    for base in (5, 15):
        pass_the_time(claim_id)
        engine.run(claim_id)
        assert 0.8 * base - 3 < due_in(claim_id) < 1.2 * base
        assert row(claim_id).attempt == 1
    assert carry(claim_id).state == S.SUBMITTED


def seconds_left(claim_id: UUID) -> float:
    with db.transaction() as session:
        return float((row(claim_id).deadline_at - workflows.now(session)).total_seconds())


def test_the_deadline_is_a_day_from_acceptance_and_anew_for_retry_and_rollback(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=403)
    first = file_claim()
    assert 86_300 < seconds_left(first) <= 86_400
    shift(first, 50_000)
    carry(first)
    claim_requests.retry(first, notify=False, actor="client")
    assert 86_300 < seconds_left(first) <= 86_400
    claim_requests.cancel(first)
    second = file_claim(rollback=True, appointment={"dateTime": "2026-03-02T12:00:00"})
    advance(second, to=S.EXPENSED)
    shift(second, 50_000)
    engine.perform("claim", "submit_claim", second)
    assert row(second).state == S.ROLLING_BACK
    assert 86_300 < seconds_left(second) <= 86_400


def test_a_text_is_tried_after_30_s_doubling_to_an_hour_for_a_day(quick: None, upstreams: Sandbox) -> None:
    claim_id = file_claim()
    carry(claim_id)
    (text,) = texts_of(claim_id)
    upstreams.listen("notify", open=False)
    try:
        waits = []
        for _ in range(9):
            engine.run(text.id)
            waits.append(due_in(text.id))
            pass_the_time(text.id)
    finally:
        upstreams.listen("notify", open=True)
    for place, wait in enumerate(waits):
        base = min(30 * 2**place, 3600)
        assert 0.8 * base - 9 < wait <= 1.2 * base
    assert row(text.id).state == "pending"


# 4.1: headers


@pytest.mark.parametrize("product", ["pci", "oh"])
@pytest.mark.parametrize("keys", ["one", "two"])
def test_every_call_of_a_claim_carries_the_headers_of_its_product(
    quick: None, upstreams: Sandbox, set_settings: Set, product: str, keys: str
) -> None:
    known = upstreams.credentials
    if keys == "two":
        set_settings(
            TRAVEL_PAY_SUBSCRIPTION_KEY_E=known.subscription_key_e,
            TRAVEL_PAY_SUBSCRIPTION_KEY_S=known.subscription_key_s,
        )
    assert carry(file_claim(product=product, corr="mine")).state == S.SUBMITTED
    two = (None, known.subscription_key_e, known.subscription_key_s)
    wanted = two if keys == "two" else (known.subscription_key, None, None)
    for call in upstreams.calls():
        name = call["call"]
        given = tuple(header(call, f"Ocp-Apim-Subscription-Key{end}") for end in ("", "-E", "-S"))
        assert given == (wanted if name != "veis-token" else (None, None, None))
        assert header(call, "X-Correlation-ID") == "mine"
        assert (header(call, "Authorization") is None) == (name == "veis-token")
        number = f"{product}-client-number" if name == "system-token" else None
        assert header(call, "BTSSS-API-Client-Number") == number
        assert (header(call, "BTSSS-Access-Token") is None) == (name in {"veis-token", "system-token"})
        if name == "system-token":
            assert call["body"] == {"secret": f"{product}-secret", "icn": ICN}


def test_a_base_path_is_joined_whatever_its_slashes(quick: None, upstreams: Sandbox, set_settings: Set) -> None:
    base = upstreams.environment()["TRAVEL_PAY_URL"]
    origin = base[: base.index("/", 8)]
    for number, url in enumerate((origin, f"{origin}/", f"{origin}/some/base/")):
        set_settings(TRAVEL_PAY_URL=url)
        assert carry(file_claim(appointment={"dateTime": f"2026-03-02T10:0{number}:00"})).state == S.SUBMITTED
    assert {call["path"].split("/api/")[0] for call in upstreams.calls(upstream="travel-pay")} == {"", "/some/base"}


# 5.6: what each product's veteran is told


TOLD: dict[str, tuple[list[tuple[str, dict[str, Any]]], str]] = {
    "success": ([], "success"),
    "decided against the veteran": ([("read-claim", {"fault": "claim-status", "claim_status": "Denied"})], "failure"),
    "duplicate": ([("find-or-add", {"fault": "foreign-claim"})], "duplicate"),
    "rejected": ([("submit-claim", {"fault": "status", "status": 400})], "error"),
    "silence": ([("find-or-add", {"fault": "status", "status": 504})], "timeout"),
}


@pytest.mark.parametrize("product", ["pci", "oh"])
@pytest.mark.parametrize("case", TOLD)
def test_each_outcome_is_told_once_with_the_sender_and_template_of_the_product(
    quick: None, upstreams: Sandbox, set_settings: Set, product: str, case: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=2)
    faults, template = TOLD[case]
    for call, fault in faults:
        upstreams.fault(call, **fault)
    claim_id = file_claim(product=product)
    done = carry(claim_id)
    (text,) = texts_of(claim_id)
    assert carry(text.id).state == "sent"
    own = next(one for one in upstreams.credentials.products if one.name == product)
    (body,) = bodies(upstreams, "send-sms")
    assert body == {
        "phone_number": "+12025550143",
        "template_id": own.templates[template],
        "sms_sender_id": own.sms_sender_id,
        "reference": str(text.id),
        "personalisation": {
            "claim_number": done.claim_number[-4:] if done.claim_number else "unknown",
            "appt_date": "Mar 02",
        },
    }


@pytest.mark.parametrize("result", ["rolled-back", "rollback-failed"])
@pytest.mark.parametrize(("status", "template"), [(403, "error"), (504, "timeout")])
def test_what_was_rolled_back_is_told_as_the_first_error_says(
    *, quick: None, upstreams: Sandbox, set_settings: Set, result: str, status: int, template: str
) -> None:
    set_settings(TRAVEL_PAY_MAX_ATTEMPTS=2)
    upstreams.fault("submit-claim", "status", status=status)
    if result == "rollback-failed":
        upstreams.fault("delete-expense", "status", status=403)
    claim_id = file_claim(rollback=True)
    assert carry(claim_id).state == result
    assert [one.template for one in texts_of(claim_id)] == [template]


def test_a_cancelled_claim_is_told_nothing(quick: None, upstreams: Sandbox) -> None:
    claim_id = file_claim(rollback=True)
    advance(claim_id, to=S.EXPENSED)
    claim_requests.cancel(claim_id)
    assert carry(claim_id).state == S.CANCELLED
    assert texts_of(claim_id) == []


NOTIFY: dict[str, tuple[dict[str, Any], str, int]] = {
    "400": ({"fault": "status", "status": 400}, "failed", 1),
    "404": ({"fault": "status", "status": 404}, "failed", 1),
    "another 4xx": ({"fault": "status", "status": 418}, "failed", 1),
    "401": ({"fault": "status", "status": 401}, "failed", 3),
    "403": ({"fault": "status", "status": 403}, "failed", 3),
}


@pytest.mark.parametrize("case", NOTIFY)
def test_a_text_that_notify_refuses_fails_and_never_changes_the_claim(
    quick: None, upstreams: Sandbox, case: str
) -> None:
    fault, state, tries = NOTIFY[case]
    upstreams.fault("send-sms", **fault)
    claim_id = file_claim()
    carry(claim_id)
    (text,) = texts_of(claim_id)
    assert carry(text.id).state == state
    assert len(upstreams.calls(call="send-sms")) == tries
    assert row(claim_id).state == S.SUBMITTED


def test_a_refused_key_is_tried_again_after_ten_minutes(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("send-sms", "status", status=403)
    claim_id = file_claim()
    carry(claim_id)
    (text,) = texts_of(claim_id)
    engine.run(text.id)
    assert 570 < due_in(text.id) <= 600


def test_a_text_that_notify_never_got_is_sent_again_with_the_same_reference(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("send-sms", "drop-before", times=1)
    claim_id = file_claim()
    carry(claim_id)
    (text,) = texts_of(claim_id)
    assert carry(text.id).state == "sent"
    assert {body["reference"] for body in bodies(upstreams, "send-sms")} == {str(text.id)}
    assert (len(upstreams.calls(call="send-sms")), effects(upstreams)["texts"]) == (2, 1)


# 4.4: status words


GROUPS = {
    "success": (
        "ClaimSubmitted", "InProcess", "In-Process", "InProgress", "InManualReview", "OnHold", "Appealed", "Appeal",
        "PartialPayment", "PreApprovedForPayment", "ApprovedForPayment", "SubmittedForPayment", "ClaimPaid",
        "Brand New",
    ),
    "failure": ("Denied", "ClosedWithNoPayment", "PaymentCanceled", "FiscalRescinded"),
}  # fmt: skip


@pytest.mark.parametrize(("word", "template"), [(word, told) for told, words in GROUPS.items() for word in words])
def test_the_status_read_after_submission_is_shown_as_is_and_told_by_its_group(
    quick: None, upstreams: Sandbox, word: str, template: str
) -> None:
    upstreams.fault("read-claim", "claim-status", claim_status=word)
    claim_id = file_claim()
    done = carry(claim_id)
    assert (done.state, done.status, texts_of(claim_id)[0].template) == (S.SUBMITTED, word, template)


@pytest.mark.parametrize("word", ["Incomplete", "Saved"])
def test_a_read_that_still_says_unfinished_changes_nothing(quick: None, upstreams: Sandbox, word: str) -> None:
    upstreams.fault("read-claim", "claim-status", claim_status=word)
    done = carry(file_claim())
    assert (done.state, done.status) == (S.SUBMITTED, "ClaimSubmitted")
    assert (done.claim_number or "").startswith("TC")
    assert len(upstreams.calls(call="read-claim")) == 2


@pytest.mark.parametrize(("word", "submits"), [("Brand New", 2), ("OnHold", 1), ("Denied", 1), ("Saved", 2)])
def test_a_lost_submit_is_judged_by_the_word_that_is_read(
    quick: None, upstreams: Sandbox, word: str, submits: int
) -> None:
    upstreams.fault("submit-claim", "drop-before", times=1)
    upstreams.fault("read-claim", "claim-status", claim_status=word)
    assert carry(file_claim()).state == S.SUBMITTED
    assert len(upstreams.calls(call="submit-claim")) == submits


def test_any_2xx_with_the_data_and_one_object_for_a_list_is_a_success(quick: None, upstreams: Sandbox) -> None:
    (claim,) = plant(upstreams)
    hide(upstreams)
    appointment = upstreams.upstreams["travel-pay"].book.claim(claim).appointment  # type: ignore[attr-defined]
    remove(upstreams, claim)
    body = {"success": True, "data": appointment.shown() | {"unknownField": 1}}
    upstreams.fault("find-or-add", "status", status=203, body=body)
    upstreams.fault("create-claim", "status", status=201, body={"data": {"claimId": "c-1"}, "success": True})
    claim_id = file_claim()
    advance(claim_id, to=S.CREATED)
    assert (row(claim_id).appointment_id, row(claim_id).claim_id) == (appointment.id, "c-1")


# 4.5: errors


SAID: dict[str, tuple[Any, str]] = {
    "the envelope": ({"success": False, "statusCode": 422, "message": "No way.", "data": None}, "No way."),
    "with sentences": (
        {"success": False, "message": "Bad Request", "data": ["One is wrong.", "Two is wrong."]},
        "Bad Request: One is wrong.; Two is wrong.",
    ),
    "OAuth": ({"error": "invalid_request", "error_description": "No such thing."}, "No such thing."),
    "nested": ({"error": {"code": "X1", "message": "Nested no."}}, "Nested no."),
    "nested in a list": ({"errors": [{"error": {"code": "X1", "message": "Listed no."}}]}, "Listed no."),
    "text": ("  Plain   no.  ", "Plain no."),
    "nothing": ("", "Unprocessable"),
}


@pytest.mark.parametrize("case", SAID)
def test_each_shape_of_an_error_gives_its_sentence(quick: None, upstreams: Sandbox, shown: Shown, case: str) -> None:
    body, sentence = SAID[case]
    upstreams.fault("create-claim", "status", status=422, body=body)
    claim_id = file_claim()
    carry(claim_id)
    assert shown(claim_id)["error"]["message"].startswith(sentence)
    assert sentence == "Unprocessable" or shown(claim_id)["error"]["message"] == sentence


def test_a_message_is_scrubbed_and_cut_for_callers_and_longer_in_the_timeline(
    quick: None, upstreams: Sandbox, shown: Shown
) -> None:
    said = f"No for {ICN} at +12025550143 with eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln. " + "word " * 500
    upstreams.fault("create-claim", "status", status=422, message=said)
    claim_id = file_claim()
    carry(claim_id)
    message = shown(claim_id)["error"]["message"]
    with db.transaction() as session:
        kept = session.scalar(select(Call.message).where(Call.workflow_id == claim_id, Call.status == 422)) or ""
    assert (len(message), len(kept)) == (200, 2000)
    assert message.startswith("No for [removed] at [removed] with [removed]")
    assert not any(secret in text for secret in (ICN, "2025550143", "eyJ") for text in (message, kept))


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize(
    "said",
    [
        {"error": {"code": "CLM_002_CLAIM_EXISTS", "message": "No."}},
        {"message": "A claim has ALREADY BEEN CREATED."},
        {"message": "Bad Request", "data": ["The visit already has a claim."]},
        {"message": "It already exists."},
        {"error": "x", "error_description": "Duplicate entry"},
    ],
)
def test_a_duplicate_is_told_by_one_classifier_whatever_its_shape(
    quick: None, upstreams: Sandbox, shown: Shown, status: int, said: dict[str, Any]
) -> None:
    upstreams.fault("create-claim", "status", status=status, body=said)
    claim_id = file_claim()
    carry(claim_id)
    found = shown(claim_id)
    assert (found["state"], found["error"]["code"], found["claimId"]) == ("duplicate", "duplicate-claim", None)


def test_words_of_a_duplicate_mean_nothing_in_other_steps_or_under_other_statuses(
    quick: None, upstreams: Sandbox
) -> None:
    for number, (call, status) in enumerate((("add-expense", 400), ("create-claim", 403))):
        upstreams.fault(call, "status", status=status, message="Duplicate: already exists", times=1)
        done = carry(file_claim(appointment={"dateTime": f"2026-03-02T10:0{number}:00"}))
        assert (done.state, done.error["code"]) == (S.FAILED, "rejected")
