"""POST /bc-passengers-declarations/submit: contract 2.1, 2.2, 2.10, 8 and 10."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app import db, metrics
from app.models.client import IdempotencyKey
from app.models.declaration import Declaration
from app.store import clients, declarations
from tests.api.declaration_factories import LINE, Passengers, count, events, last_number, row, start_numbers_at
from tests.declaration_payloads import R, at, mutated, payload

KEY = {"Idempotency_Key": "pax-0001"}
NOT_JSON = {"errors": ["request body is not valid JSON"], "details": [{"pointer": "", "code": "json"}]}
HEADER, ALCOHOL = f"{R}/declarationHeader", f"{R}/declarationAlcohol/declarationItemAlcohol/0"


def test_the_example_of_the_contract(passengers: Passengers, dispatched) -> None:
    start_numbers_at(123)
    answer = passengers.submit(X_Correlation_ID="d-7f6b2d1e")
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{LINE}/XFPR0000000123"
    assert answer.headers["X-Correlation-ID"] == "d-7f6b2d1e"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.content_type == "application/json"
    told = answer.json
    assert list(told) == ["_id", "data", "lastUpdated", "state"]
    assert (told["_id"], told["state"]) == ("XFPR0000000123", "pending-payment")
    expected = payload()
    request = expected["simpleDeclarationRequest"]
    request["requestCommon"]["acknowledgementReference"] = "XFPR00000001230"
    request["requestDetail"]["declarationHeader"]["chargeReference"] = "XFPR0000000123"
    assert json.dumps(told["data"]) == json.dumps(expected)  # the order of the keys too
    assert events("XFPR0000000123") == [(None, "pending-payment", "client", "accepted", None)]
    assert dispatched == []
    stored = row("XFPR0000000123")
    assert (stored.number, stored.correlation_id, stored.payload) == (0, "d-7f6b2d1e", expected)
    assert stored.due_at.year == stored.wake_at.year == 9999


def test_the_times_of_an_answer_have_three_decimals_and_agree(passengers: Passengers) -> None:
    answer = passengers.submit()
    shown = passengers.show(answer.json["_id"]).json
    assert shown["createdAt"] == shown["lastUpdated"] == answer.json["lastUpdated"] == shown["timeline"][0]["at"]
    assert len(answer.json["lastUpdated"]) == len("2026-11-20T18:05:07.412Z")


def test_references_of_the_client_are_replaced_in_their_place(passengers: Passengers) -> None:
    document = payload()
    detail = document["simpleDeclarationRequest"]["requestDetail"]
    detail["declarationHeader"] = {"chargeReference": {"any": ["thing", 1.5]}, **detail["declarationHeader"]}
    told = passengers.submit(document).json
    header = at(told["data"], HEADER)
    assert next(iter(header.items())) == ("chargeReference", told["_id"])


def test_two_requests_without_a_key_are_two_declarations(passengers: Passengers) -> None:
    one, two = (passengers.made(X_Correlation_ID="same") for _ in range(2))
    assert one != two


VARIATIONS: list[tuple[Any, list[str], list[tuple[str, str]]]] = [
    ({},
     ["object has too few properties (found 0 but schema requires at least 1)",
      'object has missing required properties (["simpleDeclarationRequest"])'],
     [("", "too-few-properties"), ("", "missing")]),
    (payload(**{f"{R}/liabilityDetails": ..., f"{R}/contactDetails": ...}),
     ['object has missing required properties (["contactDetails","liabilityDetails"])'], [(R, "missing")]),
    (payload(**{f"{R}/discount": "x"}),
     ['object instance has properties which are not allowed by the schema: ["discount"]'], [(R, "not-allowed")]),
    (payload(**{"/journeyData": {}}),
     ['object instance has properties which are not allowed by the schema: ["journeyData"]'], [("", "not-allowed")]),
    (payload(**{f"{R}/liabilityDetails/grandTotalGBP": 277.1}),
     ['instance type (number) does not match any allowed primitive type (allowed: ["string"])'],
     [(f"{R}/liabilityDetails/grandTotalGBP", "type")]),
    (payload(**{f"{R}/liabilityDetails/grandTotalGBP": "277"}),
     ['ECMA 262 regex "^-?[0-9]{1,11}[.][0-9]{1,2}$" does not match input string'],
     [(f"{R}/liabilityDetails/grandTotalGBP", "pattern")]),
    (payload(**{f"{R}/liabilityDetails/totalVATGBP": "-12345678901.12"}),
     ["string is too long (length: 15, maximum allowed: 14)"], [(f"{R}/liabilityDetails/totalVATGBP", "too-long")]),
    (payload(**{f"{HEADER}/onwardTravelGBNI": "IE"}),
     ['instance value not found in enum (possible values: ["GB","NI"])'], [(f"{HEADER}/onwardTravelGBNI", "enum")]),
    (payload(**{f"{HEADER}/expectedDateOfArrival": "2026-02-30"}),
     ["string is invalid against requested date format(s) yyyy-MM-dd"],
     [(f"{HEADER}/expectedDateOfArrival", "format")]),
    (payload(**{f"{R}/customerReference/idValue": ""}),
     ["string is too short (length: 0, required minimum: 1)"], [(f"{R}/customerReference/idValue", "too-short")]),
    (payload(**{f"{ALCOHOL}/quantity": "1"}),
     ['object instance has properties which are not allowed by the schema: ["quantity"]'],
     [(ALCOHOL, "not-allowed")]),
    (payload(**{f"{R}/liabilityDetails": {}, f"{HEADER}/uccRelief": ...}),
     ['object has missing required properties (["uccRelief"])',
      "object has too few properties (found 0 but schema requires at least 1)",
      'object has missing required properties (["grandTotalGBP"])'],
     [(HEADER, "missing"), (f"{R}/liabilityDetails", "too-few-properties"), (f"{R}/liabilityDetails", "missing")]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "texts", "details"), VARIATIONS)
def test_the_twelve_variations_of_the_contract(passengers: Passengers, document, texts, details) -> None:
    start_numbers_at(1)
    answer = passengers.submit(document)
    assert answer.status_code == 400
    assert answer.content_type == "application/json"
    assert answer.json == {"errors": texts, "details": [{"pointer": where, "code": code} for where, code in details]}
    assert (count(Declaration), last_number()) == (0, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b'{"a": "\\u0000"}',
     b'{"\\ud800": 1}', b"[" * 65 + b"]" * 65, b"[" * 50_000, b"{} x", b'"'],
)  # fmt: skip
def test_what_is_no_json(passengers: Passengers, data: bytes) -> None:
    answer = passengers.submit(data=data)
    assert (answer.status_code, answer.json) == (400, NOT_JSON)


@pytest.mark.parametrize(
    ("data", "name"), [(b"[1]", "array"), (b'"x"', "string"), (b"5", "integer"), (b"null", "null")]
)
def test_what_is_no_object(passengers: Passengers, data: bytes, name: str) -> None:
    answer = passengers.submit(data=data)
    text = f'instance type ({name}) does not match any allowed primitive type (allowed: ["object"])'
    told = {"errors": [text], "details": [{"pointer": "", "code": "type"}]}
    assert (answer.status_code, answer.json) == (400, told)


def test_more_than_a_hundred_faults_are_cut_off(passengers: Passengers) -> None:
    def told(items: int) -> Any:
        path = f"{R}/declarationOther/declarationItemOther"
        return passengers.submit(payload(**{path: [{"quantity": 1}] * items})).json

    assert (len(told(100)["errors"]), told(100).get("truncated")) == (100, None)
    many = told(101)
    assert (len(many["errors"]), len(many["details"]), many["truncated"]) == (100, 100, True)


# The checks before


def test_headers_that_cannot_be_used(passengers: Passengers) -> None:
    told = passengers.submit(X_Correlation_ID="a b")
    text = "X-Correlation-ID must be 1 to 64 characters of A-Z a-z 0-9 . _ -"
    assert (told.status_code, told.json) == (400, {"errors": [text], "details": [{"pointer": "", "code": "header"}]})
    assert told.headers["X-Correlation-ID"] != "a b"
    told = passengers.submit(Idempotency_Key="a b")
    text = "Idempotency-Key must be 1 to 255 visible ASCII characters"
    assert (told.status_code, told.json["errors"]) == (400, [text])


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.x+json; charset=utf-8", ""])
def test_types_that_are_taken(passengers: Passengers, kind: str) -> None:
    assert passengers.submit(Content_Type=kind).status_code == 202


def test_a_body_without_a_type_is_taken(passengers: Passengers) -> None:
    answer = passengers.http.post(f"{LINE}/submit", data=json.dumps(payload()), headers={"x-api-key": passengers.key})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Content_Type": "text/plain"}, 415, "unsupported-media-type"),
        ({"Content_Encoding": "gzip"}, 415, "unsupported-media-type"),
        ({"x_api_key": "wrong"}, 401, "unauthorized"),
    ],
)
def test_refusals_before_the_body_are_problems(passengers: Passengers, headers, status: int, kind: str) -> None:
    answer = passengers.submit({}, **headers)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.json["type"] == f"/problems/{kind}"


def test_another_scope_is_not_enough(http, add_client) -> None:
    other = Passengers(http, add_client("other", scopes=["claims", "operator"]))
    assert other.submit().status_code == 403


def test_a_hundred_kibibytes_are_the_limit(passengers: Passengers) -> None:
    whole = json.dumps(payload()).encode()
    exactly = whole + b" " * (100 * 1024 - len(whole))
    assert passengers.submit(data=exactly).status_code == 202
    answer = passengers.submit(data=exactly + b" ")
    assert (answer.status_code, answer.json["type"]) == (413, "/problems/too-large")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/submit", 405, {"POST"}), ("GET", "/replay", 405, {"POST"}), ("DELETE", "/submit", 405, {"POST"}),
        ("PUT", "/XFPR0000000123", 405, {"GET", "HEAD"}), ("GET", "/update/XFPR0000000123", 405, {"POST"}),
        ("POST", "/submit/", 404, None), ("POST", "/update/XFPR0000000123/", 404, None), ("GET", "/X/", 404, None),
        ("GET", "", 404, None), ("POST", "/update", 404, None), ("GET", "//submit", 404, None),
    ],
)  # fmt: skip
def test_unknown_routes_and_methods_come_before_the_key(http, method: str, path: str, status: int, allow) -> None:
    answer = http.open(f"{LINE}{path}", method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert set(answer.headers.get("Allow", "").replace(" ", "").split(",")) == (allow or {""})


def test_a_client_whose_toggle_is_off_finds_nothing(passengers: Passengers) -> None:
    with db.transaction() as session:
        clients.set_toggle(session, "passengers", "declarations", on=False)
    answer = passengers.submit()
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/feature-disabled")


# Idempotency-Key


def test_a_repeat_gets_the_first_answer_and_uses_no_number(passengers: Passengers) -> None:
    first = passengers.submit(**KEY)
    number = last_number()
    again = passengers.submit(**KEY)
    assert (again.status_code, again.data) == (202, first.data)
    assert again.headers["Location"] == first.headers["Location"]
    assert (count(Declaration), last_number()) == (1, number)


@pytest.mark.parametrize("data", [b"{", b"{}", b"5"])
def test_a_refusal_of_the_body_is_stored(passengers: Passengers, data: bytes) -> None:
    first, again = (passengers.submit(data=data, **KEY) for _ in range(2))
    assert (first.status_code, again.status_code, again.data) == (400, 400, first.data)
    assert again.content_type == "application/json"
    other = passengers.submit(**KEY)
    assert (other.status_code, other.json["type"]) == (422, "/problems/idempotency-mismatch")


def test_a_failed_request_may_be_repeated_with_its_key(passengers: Passengers, monkeypatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(declarations, "accept", lambda *args: 1 / 0)
        answer = passengers.submit(**KEY)
    assert (answer.status_code, answer.json["type"]) == (500, "/problems/internal-error")
    assert "ZeroDivision" not in answer.text
    assert count(IdempotencyKey) == 0
    assert passengers.submit(**KEY).status_code == 202


def test_of_simultaneous_requests_with_one_key_one_is_accepted(app, passengers: Passengers) -> None:
    gate = threading.Barrier(5)

    def send(_: int) -> int:
        gate.wait()
        return Passengers(app.test_client(), passengers.key).submit(**KEY).status_code

    with ThreadPoolExecutor(5) as pool:
        statuses = [*pool.map(send, range(5))]
    assert set(statuses) <= {202, 409}
    assert count(Declaration) == 1


# Numbers


def test_a_hundred_simultaneous_requests_get_a_hundred_numbers(app, passengers: Passengers) -> None:
    start_numbers_at(2_147_483_600)

    def send(_: int) -> str:
        return Passengers(app.test_client(), passengers.key).made()

    with ThreadPoolExecutor(8) as pool:
        made = {*pool.map(send, range(100))}
    assert len(made) == 100
    assert last_number() == 2_147_483_699


def test_the_last_number_is_given_and_then_none(passengers: Passengers) -> None:
    start_numbers_at(9_999_999_999)
    assert passengers.made() == "XHPR9999999999"
    assert passengers.submit().status_code == 500
    start_numbers_at(1)


def test_three_hundred_mutated_payloads_are_accepted_or_refused_with_a_list(passengers: Passengers) -> None:
    start_numbers_at(1)
    chance, accepted = random.Random(11), 0
    for _ in range(300):
        answer = passengers.submit(mutated(chance))
        assert answer.status_code in {202, 400}, answer.text
        accepted += answer.status_code == 202
        if answer.status_code == 400:
            assert len(answer.json["errors"]) == len(answer.json["details"]) > 0
    assert count(Declaration) == accepted == (last_number() or 0) > 0


def test_postgres_away_is_500_here_with_a_time_to_come_back(passengers: Passengers, monkeypatch) -> None:
    def away(*args: Any) -> None:
        with db.transaction() as session:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(declarations, "accept", away)
    answer = passengers.submit()
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert answer.headers["Retry-After"] == "5"


def test_what_is_accepted_and_refused_is_counted(passengers: Passengers) -> None:
    def counted(metric: Any, *labels: str) -> float:
        return float(metric.labels(*labels)._value.get())

    accepted = counted(metrics.declarations_accepted, "submit")
    missing = counted(metrics.declarations_refused, "missing")
    json_faults = counted(metrics.declarations_refused, "json")
    passengers.submit()
    passengers.submit({})
    passengers.submit(data=b"{")
    assert counted(metrics.declarations_accepted, "submit") == accepted + 1
    assert counted(metrics.declarations_refused, "missing") == missing + 1
    assert counted(metrics.declarations_refused, "json") == json_faults + 1
