"""Filing and showing claims: contract 2.2, 2.4, 2.5 and 10.1."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from app import db
from app.api import waiting
from app.flows import dispatch
from app.models.claim import Claim
from app.models.workflow import Move
from tests.api.factories import claim, everything, put_into

CORRELATION = "6f1d2c9e-4b7a-4e0d-9a35-2f8c7b1e0d44"


def stored() -> list[Claim]:
    with db.transaction() as session:
        return list(session.scalars(select(Claim)))


def test_a_claim_is_accepted_as_in_the_contracts_example(post, dispatched):
    answer = post(
        {
            "icn": "1012667122V019349",
            "appointment": {"dateTime": "2026-03-02T10:00:00-05:00", "stationNumber": "983GC"},
            "phone": "+12025550143",
        },
        headers={"X-Correlation-ID": CORRELATION, "Idempotency-Key": "chk-20260302-0001"},
    )
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/travel-claims/{answer.json['id']}"
    assert answer.headers["X-Correlation-ID"] == CORRELATION
    moment = answer.json["createdAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    expected = {
        "id": answer.json["id"], "state": "accepted", "final": False, "product": "pci",
        "correlationId": CORRELATION, "run": 1, "createdAt": moment, "updatedAt": moment, "dueAt": moment,
        "appointment": {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"},
        "appointmentId": None, "claimId": None, "claimNumber": None, "status": None, "step": "authorize", "attempt": 0,
        "expenses": [{"index": 0, "type": "mileage", "state": "pending", "expenseId": None}],
        "rollback": {"requested": False, "result": "none", "detail": None}, "cancelRequested": False, "error": None,
        "text": {"state": "none", "template": None, "reason": None}, "callback": None,
    }  # fmt: skip
    assert list(answer.json.items()) == list(expected.items())
    assert dispatched == [UUID(answer.json["id"])]


def test_the_row_holds_what_the_steps_need(post):
    answer = post(claim(**everything(), rollback=True, phone="+12025550143", edipi="1234567890"))
    assert answer.status_code == 202, answer.text
    (row,) = stored()
    assert (row.icn, row.phone, row.rollback, row.product) == ("1012667122V019349", "+12025550143", True, "pci")
    assert [one["type"] for one in row.expenses] == [one["type"] for one in row.expense_details or []]
    assert (row.expense_details or [])[1] == {
        "type": "parking", "dateIncurred": "2026-03-02", "description": "Garage", "costRequested": "12.5",
    }  # fmt: skip
    assert (row.state, row.priority, row.fence, row.worker) == ("accepted", 1, 0, None)
    assert row.deadline_at is not None
    assert (row.deadline_at - row.created_at).total_seconds() == 86_400
    with db.transaction() as session:
        (move,) = session.scalars(select(Move))
    assert (move.workflow_id, move.of, move.to, move.actor) == (row.id, None, "accepted", "client")


def test_personal_data_is_sealed_at_rest(post):
    post(claim(phone="+12025550143", appointment={**claim()["appointment"], "name": "Dr Example"}))
    with db.transaction() as session:
        rows = session.execute(text("SELECT c::text || w::text FROM claims c JOIN workflows w USING (id)")).scalars()
        shown = "".join(rows)
    for secret in ("1012667122", "2025550143", "Example", b"Example".hex(), b"1012667122".hex()):
        assert secret not in shown


@pytest.mark.parametrize(
    ("typed", "wall_clock"),
    [
        ("2026-03-02T10:00", "2026-03-02T10:00:00"),
        ("2026-03-02T10:00:30", "2026-03-02T10:00:30"),
        ("2026-03-02T10:00:30.999999999", "2026-03-02T10:00:30"),
        ("2026-03-02T10:00Z", "2026-03-02T10:00:00"),
        ("2026-03-02T23:59:59+14:00", "2026-03-02T23:59:59"),
        ("1999-12-31T00:00:00-11:30", "1999-12-31T00:00:00"),
        ("2024-02-29T08:15", "2024-02-29T08:15:00"),
    ],
)
def test_wall_clock_time_is_never_converted(post, typed, wall_clock):
    answer = post(claim(appointment={"dateTime": typed, "stationNumber": "983"}))
    assert answer.json["appointment"]["dateTime"] == wall_clock


def test_the_appointment_is_shown_as_accepted_and_a_blank_name_is_absent(post):
    given = {
        "dateTime": "2026-03-02T10:00:00",
        "stationNumber": "983",
        "type": "Other",
        "complete": False,
        "name": "Eyes",
    }
    assert post(claim(appointment=given)).json["appointment"] == given
    blank = post(claim(appointment={**given, "stationNumber": "984", "name": "  "}))
    assert "name" not in blank.json["appointment"]


def test_null_counts_as_absent(post):
    nulls = dict.fromkeys(("edipi", "expenses", "rollback", "phone", "callbackUrl"))
    answer = post({**claim(), **nulls, "appointment": {**claim()["appointment"], "type": None, "name": None}})
    assert answer.status_code == 202
    assert answer.json["expenses"] == [{"index": 0, "type": "mileage", "state": "pending", "expenseId": None}]


def test_a_second_post_for_the_visit_is_the_same_claim_and_applies_nothing(post, dispatched):
    first = post(claim())
    second = post(claim(rollback=True, appointment={"dateTime": "2026-03-02T10:00:00Z", "stationNumber": "983GC"}))
    assert (second.status_code, second.json) == (200, first.json)
    assert second.headers["Location"] == first.headers["Location"]
    assert len(dispatched) == 1


@pytest.mark.parametrize("state", ["failed", "rolled-back", "cancelled"])
def test_a_claim_that_came_to_nothing_does_not_block_its_visit(post, state):
    first = post(claim())
    put_into(first.json["id"], state)
    second = post(claim())
    assert second.status_code == 202
    assert second.json["id"] != first.json["id"]


@pytest.mark.parametrize("state", ["submitted", "duplicate", "rollback-failed", "rolling-back", "created"])
def test_a_claim_that_stands_blocks_its_visit(post, state):
    first = post(claim())
    put_into(first.json["id"], state)
    second = post(claim())
    assert (second.status_code, second.json["id"], second.json["state"]) == (200, first.json["id"], state)


def test_visits_of_different_clients_do_not_meet(http, add_client):
    ids = set()
    for name in ("one", "two"):
        answer = http.post("/travel-claims", json=claim(), headers={"x-api-key": add_client(name)})
        assert answer.status_code == 202
        ids.add(answer.json["id"])
    assert len(ids) == 2


def test_of_twenty_posts_at_once_one_makes_the_claim(app, key, dispatched):
    barrier = threading.Barrier(20)

    def send(_: int) -> tuple[int, str]:
        barrier.wait()
        answer = app.test_client().post("/travel-claims", json=claim(), headers={"x-api-key": key})
        return answer.status_code, answer.json["id"]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert sorted(status for status, _ in answers) == [200] * 19 + [202]
    assert len({claim_id for _, claim_id in answers}) == 1
    assert len(stored()) == len(dispatched) == 1


def test_a_claim_can_be_read_by_its_owner_and_by_operators_only(http, post, key, add_client):
    made = post(claim())
    place = made.headers["Location"]
    assert http.get(place, headers={"x-api-key": key}).json == made.json
    assert http.get(place, headers={"x-api-key": add_client("other")}).status_code == 404
    operator = add_client("operator", scopes=["operator"], product=None)
    assert http.get(place, headers={"x-api-key": operator}).json == made.json


@pytest.mark.parametrize(
    "id", ["01920000-0000-7000-8000-000000000000", "nonsense", "%00", "0" * 32, "%F0%9F%92%A9", "{}", "..", "a" * 4000]
)
def test_what_is_no_claim_is_not_found(http, key, id):
    answer = http.get(f"/travel-claims/{id}", headers={"x-api-key": key})
    assert answer.status_code == 404
    assert answer.json["type"] == "/problems/not-found"


def test_other_spellings_of_an_id_are_no_ids(http, post, key):
    claim_id = post(claim()).json["id"]
    for spelling in (claim_id.replace("-", ""), f"urn:uuid:{claim_id}", f"{{{claim_id}}}"):
        assert http.get(f"/travel-claims/{spelling}", headers={"x-api-key": key}).status_code == 404
    assert http.get(f"/travel-claims/{claim_id.upper()}", headers={"x-api-key": key}).status_code == 200


# Waiting


def finish_soon(state: str, after: float = 0.3) -> threading.Thread:
    def work() -> None:
        while not (found := stored()):
            time.sleep(0.02)
        time.sleep(after)
        put_into(str(found[0].id), state)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("state", ["submitted", "failed"])
def test_who_waits_gets_201_with_the_final_claim_whatever_it_is(post, state):
    worker = finish_soon(state)
    answer = post(claim(), headers={"Prefer": "wait=20"})
    worker.join()
    assert (answer.status_code, answer.json["state"], answer.json["final"]) == (201, state, True)
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.headers["Location"] == f"/travel-claims/{answer.json['id']}"
    assert stored()[0].priority == 0


def test_waiting_ends_with_202_and_holds_no_connection_meanwhile(post, monkeypatch):
    held: list[int] = []

    def pause(seconds: float) -> None:
        held.append(db.engine().pool.checkedout())  # type: ignore[attr-defined]
        time.sleep(seconds)

    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
    answer = post(claim(), headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=1")
    assert set(held) == {0}


def test_waiting_for_a_claim_that_is_there_already_answers_200(post):
    post(claim())
    worker = finish_soon("submitted")
    answer = post(claim(), headers={"Prefer": "handling=strict, wait=20"})
    worker.join()
    assert (answer.status_code, answer.json["state"]) == (200, "submitted")


def test_a_claim_can_be_waited_for_by_its_id(http, post, key):
    place = post(claim()).headers["Location"]
    worker = finish_soon("duplicate")
    answer = http.get(place, headers={"x-api-key": key, "Prefer": "wait=20"})
    worker.join()
    assert (answer.status_code, answer.json["state"]) == (200, "duplicate")


@pytest.mark.parametrize(
    "prefer", ["respond-async", "wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "=;,", "wait=ₓ"]
)
def test_a_prefer_that_asks_for_no_wait_or_cannot_be_read_is_ignored(post, prefer):
    answer = post(claim(), headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_postgres_going_away_while_waiting_leaves_the_claim_accepted(post, monkeypatch):
    def gone(*args: object, **rest: object) -> None:
        raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(waiting, "until", gone)
    answer = post(claim(), headers={"Prefer": "wait=5"})
    assert (answer.status_code, answer.json["state"]) == (202, "accepted")


def test_a_broker_or_engine_in_trouble_changes_no_answer(post, monkeypatch):
    def broken(workflow_id: UUID) -> None:
        raise RuntimeError("no broker")

    monkeypatch.setattr(dispatch, "enqueue", broken)
    assert post(claim()).status_code == 202
