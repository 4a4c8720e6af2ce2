"""Replays over HTTP: contract 2.5."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import jsonschema_rs
import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from app import db, queue
from app.api import waiting
from app.flows import replays
from app.models.client import IdempotencyKey
from app.models.replay import Audit, Replay
from tests.flows.declared import S, declared, failed, got

PATH = "/bc-passengers-declarations/replay"
ALL: dict[str, Any] = {"filter": {}, "reason": "port list corrected"}
Ask = Callable[..., TestResponse]


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], UUID]]:
    """The messages that were sent."""
    sent: list[tuple[list[str], UUID]] = []
    monkeypatch.setattr(queue, "send", lambda to, names, about, rank: sent.append((names, about)))
    return sent


@pytest.fixture
def operator(add_client: Callable[..., str]) -> str:
    return add_client("demo-operator", scopes=["operator"], product=None)


@pytest.fixture
def ask(http: FlaskClient, operator: str, kicked: Any) -> Ask:
    def post(body: Any = ALL, *, key: str = operator, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post(PATH, json=body, headers={"x-api-key": key, **named})

    return post


@pytest.fixture
def show(http: FlaskClient, operator: str) -> Ask:
    return lambda place, key=operator: http.get(place, headers={"x-api-key": key})


def rows(table: Any) -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_replay_is_begun_and_can_be_looked_at(ask: Ask, show: Ask, kicked: Any) -> None:
    one, other = failed(), failed()
    answer = ask()
    replay_id = answer.json["replayId"]
    running = {
        "replayId": replay_id, "state": "running", "matched": 2, "waiting": 2, "submitted": 0, "failedAgain": 0,
        "skipped": 0,
    }  # fmt: skip
    assert (answer.status_code, answer.json, answer.headers["Location"]) == (202, running, f"{PATH}/{replay_id}")
    assert answer.headers["Cache-Control"] == "no-store"
    assert kicked == [(["sweeps.declaration_replays"], UUID(replay_id))]
    assert (show(answer.headers["Location"]).status_code, show(answer.headers["Location"]).json) == (200, running)
    replays.carry(UUID(replay_id))
    assert (got(one).state, got(other).state) == (S.PAID, S.PAID)


def test_the_operators_name_and_reason_are_kept(ask: Ask) -> None:
    ask({"filter": {"references": ["XFPR0000000123"], "failedTo": "2026-11-20T00:00:00+01:00"}, "reason": "why"})
    with db.transaction() as session:
        replay, audit = session.scalars(select(Replay)).one(), session.scalars(select(Audit)).one()
    assert (replay.asked_by, replay.reason, audit.actor) == ("demo-operator", "why", "demo-operator")
    assert replay.filter == {"references": ["XFPR0000000123"], "failedTo": "2026-11-20T00:00:00+01:00"}


def test_a_replay_of_nothing_is_done_at_once(ask: Ask) -> None:
    answer = ask({"filter": {"error": "mdg-413"}, "reason": "why"})
    assert (answer.status_code, answer.json["state"], answer.json["matched"]) == (202, "done", 0)


def test_a_dry_run_tells_and_changes_nothing(ask: Ask, kicked: Any) -> None:
    ids = [failed(age=age) for age in (10, 30, 20)]
    answer = ask({"filter": {}, "dryRun": True})
    oldest_first = [got(ids[place]).charge_reference for place in (1, 2, 0)]
    assert (answer.status_code, answer.json) == (200, {"dryRun": True, "matched": 3, "sample": oldest_first})
    assert (rows(Replay), rows(Audit), kicked) == (0, 0, [])
    assert {got(one).state for one in ids} == {S.FAILED}


def test_a_sample_has_ten(ask: Ask) -> None:
    for _ in range(11):
        failed()
    told = ask({"filter": {}, "dryRun": True}).json
    assert (told["matched"], len(told["sample"])) == (11, 10)


# Waiting


def test_who_waits_gets_the_end_when_it_comes_in_time(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    declared(S.SUBMITTED)
    failed()
    begun: list[UUID] = []

    def move(reached: Callable[[], bool], *, seconds: float) -> None:
        assert not reached()
        with db.transaction() as session:
            (replay_id,) = session.scalars(select(Replay.id))
            begun.append(replay_id)
        replays.carry(replay_id)
        with db.transaction() as session:
            for item in session.scalars(select(replays.replays.ReplayItem.workflow_id)):
                replays.replays.close(session, item, "submitted")
        assert reached()

    monkeypatch.setattr(waiting, "until", move)
    answer = ask(Prefer="wait=5", Idempotency_Key="k-1")
    assert (answer.status_code, answer.json["state"], answer.json["submitted"]) == (200, "done", 1)
    assert answer.headers["Preference-Applied"] == "wait=5"
    assert answer.headers["Location"].endswith(str(begun[0]))
    again = ask(Prefer="wait=5", Idempotency_Key="k-1")
    assert (again.status_code, again.json) == (200, answer.json)


def test_who_waits_in_vain_gets_the_first_answer(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    failed()
    monkeypatch.setattr(waiting, "until", lambda reached, *, seconds: None)
    answer = ask(Prefer="wait=99999")
    assert (answer.status_code, answer.json["state"]) == (202, "running")
    assert answer.headers["Preference-Applied"] == "wait=25"


def test_the_same_key_is_the_same_replay(ask: Ask) -> None:
    failed()
    first, second = ask(Idempotency_Key="k-1"), ask(Idempotency_Key="k-1")
    assert (first.json, rows(Replay)) == (second.json, 1)
    assert ask({**ALL, "reason": "another"}, Idempotency_Key="k-1").status_code == 422
    assert ask(Idempotency_Key="k-2").json["replayId"] != first.json["replayId"]


def test_the_answer_is_stored_with_what_it_tells_of(
    ask: Ask, kicked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int | None] = []

    def look(*_: Any, **__: Any) -> None:
        with db.transaction() as session:
            stored.extend(session.scalars(select(IdempotencyKey.status)))

    monkeypatch.setattr(queue, "send", look)
    ask(Idempotency_Key="k-1")
    assert stored == [202]


# What is refused


REF = "XFPR0000000123"
BAD: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "no filter": ({"reason": "why"}, [("/filter", "required")]),
    "null filter": ({"filter": None, "reason": "why"}, [("/filter", "type")]),
    "null dryRun": ({**ALL, "dryRun": None}, [("/dryRun", "type")]),
    "null error": ({**ALL, "filter": {"error": None}}, [("/filter/error", "type")]),
    "null references": ({**ALL, "filter": {"references": None}}, [("/filter/references", "type")]),
    "no object": ([1], [("", "type")]),
    "unknown field": ({**ALL, "force": True}, [("/force", "unknown-field")]),
    "unknown filter": ({**ALL, "filter": {"state": "failed"}}, [("/filter/state", "unknown-field")]),
    "filter of a wrong type": ({**ALL, "filter": []}, [("/filter", "type")]),
    "no reason": ({"filter": {}}, [("/reason", "required")]),
    "no reason, expressly no dry run": ({"filter": {}, "dryRun": False}, [("/reason", "required")]),
    "empty reason": ({"filter": {}, "reason": ""}, [("/reason", "too-short")]),
    "long reason": ({"filter": {}, "reason": "x" * 201}, [("/reason", "too-long")]),
    "reason of a wrong type": ({"filter": {}, "reason": 5}, [("/reason", "type")]),
    "dryRun of a wrong type": ({**ALL, "dryRun": "yes"}, [("/dryRun", "type")]),
    "release of a wrong type": ({**ALL, "filter": {"release": 5}}, [("/filter/release", "type")]),
    "time without zone": (
        {**ALL, "filter": {"failedFrom": "2026-11-20T00:00:00"}}, [("/filter/failedFrom", "invalid-date-time")]
    ),
    "a day": ({**ALL, "filter": {"failedFrom": "2026-11-20"}}, [("/filter/failedFrom", "invalid-date-time")]),
    "no real time": (
        {**ALL, "filter": {"failedTo": "2026-02-30T00:00:00Z"}}, [("/filter/failedTo", "invalid-date-time")]
    ),
    "time of a wrong type": ({**ALL, "filter": {"failedTo": 5}}, [("/filter/failedTo", "type")]),
    "failedTo not after failedFrom": (
        {**ALL, "filter": {"failedFrom": "2026-11-20T00:00:00Z", "failedTo": "2026-11-20T01:00:00+01:00"}},
        [("/filter/failedTo", "not-after")],
    ),
    "no references": ({**ALL, "filter": {"references": []}}, [("/filter/references", "min-items")]),
    "1001 references": ({**ALL, "filter": {"references": [REF] * 1001}}, [("/filter/references", "max-items")]),
    "wrong check letter": (
        {**ALL, "filter": {"references": [REF, "XAPR0000000123"]}}, [("/filter/references/1", "pattern")]
    ),
    "reference of a wrong type": ({**ALL, "filter": {"references": [123]}}, [("/filter/references/0", "type")]),
    "references of a wrong type": ({**ALL, "filter": {"references": REF}}, [("/filter/references", "type")]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "faults"), BAD.values(), ids=BAD)
def test_a_bad_question_is_a_problem_that_names_every_fault(ask: Ask, body: Any, faults: list[tuple[str, str]]) -> None:
    failed()
    answer = ask(body)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert [(fault["pointer"], fault["code"]) for fault in answer.json["errors"]] == faults
    assert rows(Replay) == 0


def test_a_thousand_references_are_taken(ask: Ask) -> None:
    assert ask({**ALL, "filter": {"references": [REF] * 1000}}).status_code == 202


@pytest.mark.parametrize("body", [b"", b"{", b'{"filter": {}, "filter": {}}'])
def test_what_is_no_json_is_400(http: FlaskClient, operator: str, body: bytes) -> None:
    answer = http.post(PATH, data=body, headers={"x-api-key": operator, "Content-Type": "application/json"})
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")


@pytest.mark.parametrize("place", ["5ae20694-ead2-4e53-8314-7237db4b6e4b", "nothing", "0" * 32, "%00"])
def test_an_unknown_replay_is_404(show: Ask, place: str) -> None:
    answer = show(f"{PATH}/{place}")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_both_routes_are_for_operators_whatever_the_toggle(ask: Ask, show: Ask, add_client: Callable[..., str]) -> None:
    """The operator of these tests has no toggle of the line on."""
    key = add_client("passengers-2", scopes=["declarations"], product=None)
    assert ask(key=key).status_code == 403
    assert show(f"{PATH}/{uuid4()}", key).status_code == 403
    assert ask().status_code == 202


def test_without_mdg_the_line_is_off(ask: Ask, set_settings: Callable[..., None]) -> None:
    set_settings(MDG_URL="")
    answer = ask()
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/feature-disabled")


def test_other_methods_are_405(http: FlaskClient, operator: str) -> None:
    answer = http.get(PATH, headers={"x-api-key": operator})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_the_routes_are_described_with_examples_that_fit(http: FlaskClient) -> None:
    described = http.get("/openapi.json").json
    found = {path: item for path, item in described["paths"].items() if path.startswith(PATH)}
    assert {path: list(item) for path, item in found.items()} == {PATH: ["post"], f"{PATH}/{{replay_id}}": ["get"]}
    statuses = " ".join(sorted(found[PATH]["post"]["responses"]))
    assert statuses == "200 202 400 401 403 404 409 413 415 422 500 503"
    for operation in (found[PATH]["post"], found[f"{PATH}/{{replay_id}}"]["get"]):
        for part in (operation.get("requestBody", {"content": {}}), *operation["responses"].values()):
            for content in part["content"].values():
                assert content["examples"]
                for example in content["examples"].values():
                    schema = {**content["schema"], "components": described["components"]}
                    jsonschema_rs.validate(schema, example["value"])
