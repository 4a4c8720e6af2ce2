"""Listing claims: contract 2.5."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from app import db
from app.models.workflow import Workflow
from tests.api.factories import add_text, claim, put_into, visit

Ask = Callable[..., TestResponse]


@pytest.fixture
def ask(http, key) -> Ask:
    """GET /travel-claims with this query."""

    def send(query: Any = "", *, api_key: str = key) -> TestResponse:
        return http.get("/travel-claims", query_string=query, headers={"x-api-key": api_key})

    return send


@pytest.fixture
def file(post) -> Callable[..., list[str]]:
    """File so many claims; their ids, oldest first."""

    def send(count: int, first: int = 0) -> list[str]:
        return [post(visit(number)).json["id"] for number in range(first, first + count)]

    return send


def made_at(id: str, moment: datetime) -> None:
    with db.transaction() as session:
        session.execute(update(Workflow).where(Workflow.id == UUID(id)).values(created_at=moment))


def ids(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json["items"]]


def fault(answer: TestResponse) -> tuple[str, str]:
    assert (answer.status_code, answer.json["type"]) == (400, "/problems/invalid-parameter"), answer.text
    (found,) = answer.json["errors"]
    return found["pointer"], found["code"]


def test_a_client_without_claims_has_an_empty_list(ask):
    answer = ask()
    assert (answer.status_code, answer.json) == (200, {"items": [], "next": None})
    assert answer.content_type == "application/json"


def test_claims_are_listed_newest_first_and_as_they_are_shown_by_id(http, key, ask, file):
    filed = file(3)
    put_into(
        filed[1],
        "failed",
        error={"step": "authorize", "httpStatus": 502, "code": "x", "message": "y", "retryable": True},
    )
    add_text(filed[1], "skipped", reason="no-phone")
    answer = ask()
    assert ids(answer) == filed[::-1]
    assert answer.json["next"] is None
    one_by_one = [http.get(f"/travel-claims/{one}", headers={"x-api-key": key}).json for one in filed[::-1]]
    assert answer.json["items"] == one_by_one
    assert answer.json["items"][1]["text"] == {"state": "skipped", "template": "error", "reason": "no-phone"}


def test_a_claim_is_listed_with_the_newest_text_of_its_run(ask, file):
    (filed,) = file(1)
    put_into(filed, "failed")
    add_text(filed, "sent", template="error", run=1)
    for state in ("skipped", "pending"):
        add_text(filed, state, template="timeout", run=1)
    assert ask().json["items"][0]["text"]["state"] == "pending"


def test_claims_made_in_the_same_moment_are_listed_by_id(ask, file):
    filed = file(5)
    for one in filed:
        made_at(one, datetime(2026, 3, 2, tzinfo=UTC))
    listed, cursor = [], None
    while True:
        answer = ask({"limit": 2} | ({"cursor": cursor} if cursor else {}))
        listed += ids(answer)
        cursor = answer.json["next"]
        if cursor is None:
            break
    assert listed == sorted(filed, reverse=True)


def test_pages_neither_shift_nor_repeat_when_claims_are_added(ask, file):
    filed = file(5)
    first = ask({"limit": 2})
    file(3, first=20)
    second = ask({"limit": 2, "cursor": first.json["next"]})
    third = ask({"limit": 2, "cursor": second.json["next"]})
    assert ids(first) + ids(second) + ids(third) == filed[::-1]
    assert third.json["next"] is None


def test_a_page_that_just_holds_the_rest_is_the_last(ask, file):
    file(2)
    assert ask({"limit": 2}).json["next"] is None
    assert ask({"limit": 1}).json["next"] is not None


def test_a_page_has_25_claims_unless_asked_otherwise(ask, file):
    file(26)
    assert len(ask().json["items"]) == 25
    assert len(ask({"limit": 100}).json["items"]) == 26


# Whose


def test_a_client_sees_its_own_claims_only_and_an_operator_all(http, key, ask, file, add_client):
    mine = file(1)
    other = add_client("other", product="oh")
    theirs = [http.post("/travel-claims", json=claim(), headers={"x-api-key": other}).json["id"]]
    operator = add_client("operator", scopes=["operator"], product=None)
    assert ids(ask()) == mine
    assert ids(ask(api_key=other)) == theirs
    assert ids(ask(api_key=operator)) == theirs + mine
    first = ask({"limit": 1}, api_key=operator)
    assert ids(ask({"limit": 1, "cursor": first.json["next"]}, api_key=operator)) == mine
    assert ids(ask({"state": "submitted"}, api_key=operator)) == []


def test_only_claims_are_listed(ask, file):
    (filed,) = file(1)
    for _ in range(3):  # newer than the claim, and on no page
        add_text(filed)
    assert ids(ask({"limit": 1})) == [filed]
    assert ask({"limit": 1}).json["next"] is None


# Filters


@pytest.mark.parametrize("query", ["state=failed&state=submitted", "state=failed,submitted", "state=submitted,failed"])
def test_states_may_be_repeated_or_separated_by_commas(ask, file, query):
    filed = file(4)
    put_into(filed[0], "failed")
    put_into(filed[2], "submitted")
    assert ids(ask(query)) == [filed[2], filed[0]]
    assert ids(ask("state=accepted&state=failed,failed")) == [filed[3], filed[1], filed[0]]


@pytest.mark.parametrize("state", ["done", "", "failed,", "Failed", "pending", " failed", "failed%00"])
def test_an_unknown_state_is_refused(ask, state):
    assert fault(ask(f"state={state}")) == ("?state", "enum")


@pytest.fixture
def three_days(file) -> list[str]:
    filed = file(3)
    for one, moment in zip(
        filed,
        (
            datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 3, 2, 12, 0, 0, 120_456, tzinfo=UTC),
            datetime(2026, 3, 3, tzinfo=UTC),
        ),
        strict=True,
    ):
        made_at(one, moment)
    return filed


@pytest.mark.parametrize(
    ("query", "which"),
    [
        ({"from": "2026-03-02"}, [2, 1]),
        ({"to": "2026-03-02"}, [1, 0]),
        ({"to": "2026-03-01"}, [0]),
        ({"from": "2026-03-02", "to": "2026-03-02"}, [1]),
        ({"from": "2026-03-01T23:59:59.999Z", "to": "2026-03-02T12:00:00.120Z"}, [1, 0]),  # as shown
        ({"from": "2026-03-02T12:00:00.121Z"}, [2]),
        ({"to": "2026-03-02T12:00:00.119Z"}, [0]),
        ({"to": "2026-03-02T12:00:00Z"}, [0]),
        ({"from": "2026-03-03T00:00:00Z", "to": "2026-03-03T00:00:00Z"}, [2]),
        ({"from": "2026-03-03T02:00:00+02:00"}, [2]),
        ({"from": "2026-03-02T19:00:00-05:00"}, [2]),
        ({"to": "2026-03-02t12:00:00.120456789z"}, [1, 0]),
        ({"from": "2026-03-02t12:00:00.120456789z"}, [2]),
        ({"from": "0001-01-01", "to": "9999-12-31"}, [2, 1, 0]),
    ],
)
def test_both_ends_of_a_span_are_inclusive(ask, three_days, query, which):
    assert ids(ask(query)) == [three_days[one] for one in which]


def test_a_plus_that_was_not_escaped_is_understood(ask, three_days):
    assert ids(ask("from=2026-03-03T02:00:00+02:00")) == [three_days[2]]


@pytest.mark.parametrize(
    "moment",
    [
        "", "yesterday", "2026-02-30", "2026-3-2", "20260302", "2026-W10-1", "2026-03-02T10:00:00", "2026-03-02T10:00Z",
        "2026-03-02 10:00:00Z", "2026-03-02T24:00:00Z", "2026-03-02T10:00:00+25:00", "0001-01-01T00:00:00+14:00",
        "2026-03-02T10:00:00.Z", "٢٠٢٦-03-02",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_moment_that_cannot_be_read_is_refused(ask, name, moment):
    assert fault(ask({name: moment})) == (f"?{name}", "invalid-date-time")


@pytest.mark.parametrize(
    ("start", "end"), [("2026-03-03", "2026-03-02"), ("2026-03-02T10:00:00.002Z", "2026-03-02T10:00:00.001Z")]
)
def test_a_span_that_ends_before_it_begins_is_refused(ask, start, end):
    assert fault(ask({"from": start, "to": end})) == ("?from", "after-to")


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "", "ten", "1e1", "²", "1000000000000000000000", "+5"])
def test_a_limit_out_of_range_is_refused(ask, limit):
    assert fault(ask({"limit": limit})) == ("?limit", "out-of-range")


@pytest.mark.parametrize("query", ["stat=failed", "page=2", "icn=1012667122V019349", "=1", "FROM=2026-03-02"])
def test_an_unknown_parameter_is_refused(ask, query):
    assert fault(ask(query)) == (f"?{query.partition('=')[0]}", "unknown-parameter")


@pytest.mark.parametrize("name", ["from", "to", "limit", "cursor"])
def test_a_parameter_given_twice_is_refused(ask, name):
    assert fault(ask(f"{name}=1&{name}=2")) == (f"?{name}", "repeated")


def test_all_faults_of_a_query_are_told_together(ask):
    answer = ask("state=a&state=failed,b&limit=0&from=x&to=y&cursor=z&foo=1&bar=2")
    assert [one["pointer"] for one in answer.json["errors"]] == [
        "?foo", "?bar", "?state", "?from", "?to", "?limit", "?cursor",
    ]  # fmt: skip


# Cursors


def test_a_cursor_may_be_used_with_another_limit(ask, file):
    filed = file(4)
    cursor = ask({"limit": 1}).json["next"]
    assert ids(ask({"limit": 2, "cursor": cursor})) == [filed[2], filed[1]]


def test_a_cursor_belongs_to_its_query(ask, file):
    file(2)
    cursor = ask({"limit": 1, "state": "accepted,failed", "from": "2026-01-01"}).json["next"]
    assert ask({"cursor": cursor, "state": "failed,accepted", "from": "2026-01-01"}).status_code == 200
    for changed in ({}, {"state": "accepted", "from": "2026-01-01"}, {"state": "accepted,failed"},
                    {"state": "accepted,failed", "from": "2026-01-02"},
                    {"state": "accepted,failed", "from": "2026-01-01", "to": "2099-01-01"}):  # fmt: skip
        assert fault(ask({"cursor": cursor, **changed})) == ("?cursor", "invalid-cursor")


def test_a_cursor_of_another_client_is_refused(ask, file, add_client):
    file(2)
    cursor = ask({"limit": 1}).json["next"]
    others = (add_client("other"), add_client("operator", scopes=["operator"], product=None))
    for other in others:
        assert fault(ask({"cursor": cursor}, api_key=other)) == ("?cursor", "invalid-cursor")


def test_a_damaged_cursor_is_refused(ask, file):
    file(2)
    cursor = ask({"limit": 1}).json["next"]
    assert ask({"cursor": cursor}).status_code == 200
    damaged = [cursor[:-1], cursor + "A", "", "a", "é", "====", "A" * 10_000, cursor.swapcase()]
    places = (0, 10, len(cursor) // 2, len(cursor) - 3)
    damaged += [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in places]
    forged = base64.urlsafe_b64encode(b"2026-03-02T00:00:00+00:00|01920000-0000-7000-8000-000000000000|" + b"0" * 64)
    for text in [*damaged, forged.decode()]:
        assert fault(ask({"cursor": text})) == ("?cursor", "invalid-cursor"), text


def test_a_cursor_tells_nothing_of_whose_it_is(ask, file):
    file(2)
    cursor = ask({"limit": 1}).json["next"]
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_list_needs_key_scope_and_toggle_like_every_route(http, ask, add_client):
    assert http.get("/travel-claims").status_code == 401
    assert ask(api_key=add_client("vouchers", scopes=["vouchers"])).status_code == 403
    assert ask(api_key=add_client("raw", product=None)).json["type"] == "/problems/client-not-set-up"
