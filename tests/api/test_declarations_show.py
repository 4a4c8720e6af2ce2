"""GET /bc-passengers-declarations/{chargeReference}: contract 2.4 and the events of 3.1."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app import db
from app.flows import declaration_view
from app.models.orm import new_id
from app.models.replay import Audit
from app.models.workflow import Move
from app.store import clients
from tests.api.declaration_factories import (
    ALL_STATES,
    Passengers,
    add_call,
    add_move,
    count,
    put,
    put_into,
    row,
)

KEYS = [
    "chargeReference", "state", "correlationId", "acknowledgementReference", "createdAt", "lastUpdated", "paidAt",
    "finishedAt", "paymentDueAt", "paymentTimedOut", "erasedAt", "submission", "timeline", "amendments",
]  # fmt: skip
SUBMISSION = ["attempts", "nextAttemptAt", "error", "uncertain", "release"]
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
START = datetime(2026, 11, 20, 18, 5, 7, 412_999, UTC)
UNKNOWN = "XHPR9999999999"


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def declared(passengers: Passengers) -> str:
    """Accepted at START."""
    reference = passengers.made(X_Correlation_ID="d-7f6b2d1e")
    put_into(reference, "pending-payment", created_at=START, updated_at=START)
    with db.transaction() as session:
        session.execute(update(Move).values(at=START))
    return reference


@pytest.fixture
def paid(declared: str) -> str:
    """Paid 10 s later."""
    put_into(declared, "paid", updated_at=after(10))
    put(declared, paid_at=after(10))
    detail = {"correlationId": "p-91"}
    add_move(declared, "pending-payment", "paid", "client", "payment-successful", detail=detail, at=after(10))
    return declared


@pytest.fixture
def operator(http, add_client) -> Passengers:
    return Passengers(http, add_client("operator", scopes=["operator"], product=None))


def shown(passengers: Passengers, reference: str, query: str = "") -> Any:
    answer = passengers.show(reference, query)
    assert answer.status_code == 200, answer.text
    return answer.json


def attempts(document: Any) -> list[Any]:
    return [entry["detail"] for entry in document["timeline"] if entry["event"] == "attempt"]


def test_an_unpaid_declaration(passengers: Passengers, declared) -> None:
    told = shown(passengers, declared)
    assert list(told) == KEYS
    assert told == {
        "chargeReference": declared, "state": "pending-payment", "correlationId": "d-7f6b2d1e",
        "acknowledgementReference": f"{declared}0", "createdAt": "2026-11-20T18:05:07.412Z",
        "lastUpdated": "2026-11-20T18:05:07.412Z", "paidAt": None, "finishedAt": None,
        "paymentDueAt": "2026-12-04T18:05:07.412Z", "paymentTimedOut": False, "erasedAt": None,
        "submission": {"attempts": 0, "nextAttemptAt": None, "error": None, "uncertain": False, "release": None},
        "timeline": [{"at": "2026-11-20T18:05:07.412Z", "event": "accepted", "from": None, "to": "pending-payment",
                      "by": "client", "detail": {}}],
        "amendments": [],
    }  # fmt: skip


@pytest.mark.parametrize("state", ALL_STATES)
def test_every_key_is_there_in_every_state_and_every_time_has_its_form(passengers: Passengers, paid, state) -> None:
    put_into(paid, state, error={"code": "mdg-400"}, release="2026.11.1")
    told = shown(passengers, paid)
    assert (list(told), list(told["submission"]), told["state"]) == (KEYS, SUBMISSION, state)
    times = [told[key] for key in KEYS if key.endswith("At") or key == "lastUpdated"]
    times += [entry["at"] for entry in told["timeline"]] + [told["submission"]["nextAttemptAt"]]
    assert all(time is None or TIME.fullmatch(time) for time in times)
    failed = state == "failed"
    assert told["submission"]["release"] == ("2026.11.1" if failed else None)
    assert told["submission"]["error"] == ("mdg-400" if failed else None)
    assert (told["paymentDueAt"] is None) == (state not in {"pending-payment", "payment-failed", "payment-cancelled"})
    assert (told["finishedAt"] is None) == (state not in {"submitted", "failed", "expired"})
    assert (told["submission"]["nextAttemptAt"] is None) == (state != "paid")


def test_a_paid_declaration_between_two_attempts(passengers: Passengers, paid) -> None:
    """As in the example of the contract."""
    put_into(paid, "paid", updated_at=after(10), due_at=after(13.3))
    put(paid, attempts=1)
    add_call(paid, "unknown", 500, "mdg-500", ms=212, at=after(10.25))
    told = shown(passengers, paid)
    assert told["paidAt"] == told["lastUpdated"] == "2026-11-20T18:05:17.412Z"
    assert told["submission"] == {
        "attempts": 1, "nextAttemptAt": "2026-11-20T18:05:20.712Z", "error": "mdg-500", "uncertain": False,
        "release": None,
    }  # fmt: skip
    assert [entry["event"] for entry in told["timeline"]] == ["accepted", "payment-successful", "attempt"]
    assert told["timeline"][1] == {
        "at": "2026-11-20T18:05:17.412Z", "event": "payment-successful", "from": "pending-payment", "to": "paid",
        "by": "client", "detail": {"correlationId": "p-91"},
    }  # fmt: skip
    assert told["timeline"][2] == {
        "at": "2026-11-20T18:05:17.450Z", "event": "attempt", "from": None, "to": None, "by": "worker",
        "detail": {"attempt": 1, "outcome": "unknown", "status": 500, "error": "mdg-500", "durationMs": 212},
    }  # fmt: skip


def test_moves_and_events_have_the_names_of_the_contract(passengers: Passengers, paid) -> None:
    for of, to, actor, reason in [
        (None, None, "client", "payment-repeated"), (None, None, "worker", "overdue"),
        (None, None, "sweep", "holder died"), (None, None, "sweep", "lease ran out"), (None, None, "worker", "inner"),
        ("paid", "failed", "sweep", "crashed"), ("failed", "paid", "operator", "mdg fixed"),
        ("paid", "submitted", "worker", "submit"), (None, None, "timer", "erased"),
    ]:  # fmt: skip
        add_move(paid, of, to, actor, reason, detail={"n": 1})
    told = [(entry["event"], entry["by"], entry["detail"]) for entry in shown(passengers, paid)["timeline"][2:]]
    assert told == [
        ("payment-repeated", "client", {"n": 1}), ("overdue", "worker", {"n": 1}), ("failed", "worker", {"n": 1}),
        ("replayed", "operator", {"n": 1}), ("submitted", "worker", {"n": 1}), ("erased", "timer", {"n": 1}),
    ]  # fmt: skip


@pytest.mark.parametrize("to", ["payment-failed", "payment-cancelled", "expired"])
def test_other_moves_are_named_for_where_they_lead(passengers: Passengers, declared, to: str) -> None:
    add_move(declared, "pending-payment", to, "timer", "whatever")
    assert shown(passengers, declared)["timeline"][-1]["event"] == to


# Attempts


def intent(at: datetime) -> dict[str, Any]:
    return {"step": "submit", "index": 0, "verb": "do", "at": at.isoformat()}


def test_an_attempt_under_way_has_no_outcome(passengers: Passengers, paid) -> None:
    add_call(paid, "unknown", 500, "mdg-500", at=after(11))
    put(paid, attempts=2)
    put_into(paid, "paid", in_doubt=True, intent=intent(after(14)), worker=new_id())
    told = shown(passengers, paid)
    assert [(one["attempt"], one["outcome"]) for one in attempts(told)] == [(1, "unknown"), (2, None)]
    assert attempts(told)[1] == {"attempt": 2, "outcome": None, "status": None, "error": None, "durationMs": None}
    assert (told["submission"]["attempts"], told["submission"]["nextAttemptAt"]) == (2, None)
    assert told["submission"]["error"] == "mdg-500"


def test_a_doubt_whose_call_was_answered_for_is_no_attempt_of_its_own(passengers: Passengers, paid) -> None:
    add_call(paid, "unknown", None, "mdg-timeout", at=after(31))
    put(paid, attempts=1)
    put_into(paid, "paid", in_doubt=True, intent=intent(after(11)), worker=new_id())
    assert [one["error"] for one in attempts(shown(passengers, paid))] == ["mdg-timeout"]


def test_a_call_that_was_lost_with_its_worker(passengers: Passengers, paid) -> None:
    """First while nobody holds it, then with the next call made."""
    put(paid, attempts=1)
    put_into(paid, "paid", in_doubt=True, intent=intent(after(11)))
    add_move(paid, None, None, "sweep", "holder died", at=after(15))
    lost = {"attempt": 1, "outcome": "unknown", "status": None, "error": "worker-lost", "durationMs": None}
    told = shown(passengers, paid)
    assert (attempts(told), told["submission"]["error"]) == ([lost], "worker-lost")
    add_call(paid, "ok", 204, at=after(16))
    put(paid, attempts=2)
    put_into(paid, "submitted", in_doubt=False, intent=None)
    told = shown(passengers, paid)
    assert attempts(told)[0] == lost
    assert [(one["attempt"], one["outcome"]) for one in attempts(told)] == [(1, "unknown"), (2, "ok")]
    assert (told["submission"]["attempts"], told["submission"]["error"]) == (2, None)


def test_a_worker_that_died_before_its_call_makes_no_attempt(passengers: Passengers, paid) -> None:
    add_move(paid, None, None, "sweep", "holder died", at=after(11))
    add_call(paid, "ok", 204, at=after(16))
    put(paid, attempts=1)
    assert [one["outcome"] for one in attempts(shown(passengers, paid))] == ["ok"]


def test_after_the_third_death_the_outcome_is_uncertain(passengers: Passengers, paid) -> None:
    for seconds in (15, 25, 35):
        add_move(paid, None, None, "sweep", "holder died", at=after(seconds))
    put(paid, attempts=3)
    add_move(paid, "paid", "failed", "sweep", "crashed", at=after(35))
    put_into(paid, "failed", in_doubt=True, intent=intent(after(31)), error={"code": "crashed"}, release="2026.11.1")
    told = shown(passengers, paid)
    assert told["submission"] == {
        "attempts": 3, "nextAttemptAt": None, "error": "crashed", "uncertain": True, "release": "2026.11.1",
    }  # fmt: skip
    assert [(one["attempt"], one["error"]) for one in attempts(told)] == [(n, "worker-lost") for n in (1, 2, 3)]
    times = [entry["at"] for entry in told["timeline"] if entry["event"] == "attempt"]
    assert times == [declaration_view.time(after(seconds)) for seconds in (15, 25, 31)]


def test_a_connection_that_failed_counts_as_an_attempt_too(passengers: Passengers, paid) -> None:
    """It had no intent, so the row's own counter does not know of it."""
    add_call(paid, "retry", None, "mdg-refused", at=after(11))
    add_call(paid, "ok", 204, at=after(16))
    put(paid, attempts=1)
    told = shown(passengers, paid)
    assert [one["attempt"] for one in attempts(told)] == [1, 2]
    assert told["submission"]["attempts"] == 2


def test_the_newest_two_hundred_entries_are_shown_oldest_first(passengers: Passengers, paid) -> None:
    for number in range(210):
        add_call(paid, "unknown", 500, "mdg-500", at=after(20 + number))
    put(paid, attempts=210)
    add_move(paid, None, None, "worker", "overdue", at=after(225))
    told = shown(passengers, paid)
    assert len(told["timeline"]) == 200
    times = [entry["at"] for entry in told["timeline"]]
    assert times == sorted(times)
    assert [one["attempt"] for one in attempts(told)] == list(range(12, 211))
    assert told["submission"]["attempts"] == 210


# Who may see what


def test_what_is_no_declaration_of_the_client_is_not_found(http, add_client, passengers: Passengers, declared) -> None:
    other = Passengers(http, add_client("other", scopes=["declarations"], product=None))
    for one, reference in [
        (other, declared),
        *((passengers, text) for text in (UNKNOWN, "x", "XAPR0000000001", "%00", "%25")),
    ]:
        answer = one.show(reference)
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
        assert answer.json["type"] == "/problems/not-found"
    assert other.show(declared, "?include=data").status_code == 404
    assert count(Audit) == 0


def test_an_operator_reads_every_clients_without_data(operator: Passengers, declared) -> None:
    assert list(shown(operator, declared)) == KEYS
    for reference in (declared, UNKNOWN):
        answer = operator.show(reference, "?include=data")
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/forbidden")
    assert operator.show(UNKNOWN).status_code == 404


def test_an_operator_with_the_scope_reads_the_data_of_its_own_alone(http, add_client, declared) -> None:
    both = Passengers(http, add_client("both", scopes=["declarations", "operator"], product=None))
    assert both.show(declared).status_code == 200
    assert both.show(declared, "?include=data").status_code == 403
    assert both.show(both.made(), "?include=data").status_code == 200


def test_the_owner_reads_the_data_and_leaves_a_trace(passengers: Passengers, declared) -> None:
    told = shown(passengers, declared, "?include=data")
    assert list(told) == [*KEYS, "data", "journeyData", "faults"]
    assert (told["data"], told["journeyData"], told["faults"]) == (row(declared).payload, None, [])
    put(declared, faults=["Invalid portOfEntry"], journey_data={"a": 1})
    told = shown(passengers, declared, "?include=data")
    assert (told["journeyData"], told["faults"]) == ({"a": 1}, ["Invalid portOfEntry"])
    with db.transaction() as session:
        entries = session.execute(select(Audit.actor, Audit.subject, Audit.action)).all()
    assert [tuple(entry) for entry in entries] == [("passengers", declared, "declaration-data-read")] * 2
    shown(passengers, declared)
    assert count(Audit) == 2


def test_after_the_erasure_the_data_are_gone(passengers: Passengers, paid) -> None:
    put_into(paid, "submitted", erased_at=after(99))
    put(paid, payload=None, faults=None)
    told = shown(passengers, paid, "?include=data")
    assert (told["data"], told["journeyData"], told["faults"]) == (None, None, [])
    assert told["erasedAt"] == "2026-11-20T18:06:46.412Z"


@pytest.mark.parametrize(
    ("query", "codes"),
    [("?include=all", ["enum"]), ("?include=", ["enum"]), ("?include=data&include=data", ["enum"]),
     ("?x=1", ["unknown-parameter"]), ("?y=1&include=DATA", ["unknown-parameter", "enum"])],
)  # fmt: skip
def test_other_queries_are_refused(passengers: Passengers, declared, query: str, codes: list[str]) -> None:
    answer = passengers.show(declared, query)
    assert (answer.status_code, answer.json["type"]) == (400, "/problems/invalid-parameter")
    assert [fault["code"] for fault in answer.json["errors"]] == codes


def test_a_toggle_that_is_off_hides_it_from_its_owner_only(
    passengers: Passengers, operator: Passengers, declared
) -> None:
    with db.transaction() as session:
        clients.set_toggle(session, "passengers", "declarations", on=False)
    answer = passengers.show(declared)
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/feature-disabled")
    assert operator.show(declared).status_code == 200
