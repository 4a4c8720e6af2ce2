"""Idempotency-Key: contract 2.1, and what becomes of requests that die half-way."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update

from app import db, errors
from app.api import waiting
from app.models.client import IdempotencyKey
from app.models.workflow import Workflow
from app.store import claims, clients, idempotency
from app.store.idempotency import Answer, Running
from tests.api.factories import claim, put_into

KEY = {"Idempotency-Key": "chk-20260302-0001"}


def count(table) -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def age(seconds: int) -> None:
    with db.transaction() as session:
        session.execute(
            update(IdempotencyKey).values(created_at=IdempotencyKey.created_at - timedelta(seconds=seconds))
        )


def test_a_repeat_gets_the_first_answer_also_when_the_claim_has_gone_on(post, dispatched):
    first = post(claim(), headers=KEY)
    put_into(first.json["id"], "failed")
    again = post(claim(), headers={**KEY, "X-Correlation-ID": "second"})
    assert (again.status_code, again.data) == (202, first.data)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["X-Correlation-ID"] == "second"
    assert again.content_type == "application/json"
    assert count(Workflow) == len(dispatched) == 1


def test_a_refusal_of_the_body_is_repeated_word_for_word(post):
    first = post(claim(icn="x"), headers=KEY)
    again = post(claim(icn="x"), headers=KEY)
    assert (first.status_code, again.status_code, again.data) == (422, 422, first.data)
    assert again.content_type == "application/problem+json"


def test_the_same_key_with_another_body_is_a_mismatch(post):
    post(claim(), headers=KEY)
    answer = post(claim(rollback=True), headers=KEY)
    assert (answer.status_code, answer.json["type"]) == (422, "/problems/idempotency-mismatch")
    assert post(claim(), headers=KEY).status_code == 202
    assert count(Workflow) == 1


def test_keys_of_different_clients_do_not_meet(http, add_client):
    for name in ("one", "two"):
        headers = {**KEY, "x-api-key": add_client(name)}
        assert http.post("/travel-claims", json=claim(), headers=headers).status_code == 202
    assert count(Workflow) == 2


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": NaN}'])
def test_what_is_no_json_leaves_the_key_free(post, data):
    assert post(data=data, headers=KEY).status_code == 400
    assert count(IdempotencyKey) == 0
    assert post(claim(), headers=KEY).status_code == 202


def test_a_crash_leaves_the_key_free(post, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(claims, "accept", lambda *args, **rest: 1 / 0)
        assert post(claim(), headers=KEY).status_code == 500
    assert count(IdempotencyKey) == 0
    assert post(claim(), headers=KEY).status_code == 202


def test_after_a_day_a_key_is_new(post):
    first = post(claim(), headers=KEY)
    put_into(first.json["id"], "failed")
    age(24 * 3600 + 1)
    assert post(claim(rollback=True), headers=KEY).json["id"] != first.json["id"]


def test_who_waits_stores_the_final_answer(post, monkeypatch):
    def finished(reached, *, seconds: float) -> None:
        with db.transaction() as session:
            claim_id = session.scalar(select(Workflow.id))
        put_into(str(claim_id), "submitted")

    with monkeypatch.context() as quick:
        quick.setattr(waiting, "until", finished)
        first = post(claim(), headers={**KEY, "Prefer": "wait=5"})
    assert (first.status_code, first.json["state"]) == (201, "submitted")
    again = post(claim(), headers=KEY)
    assert (again.status_code, again.data) == (201, first.data)


def test_while_the_first_waits_a_repeat_is_in_progress(post, monkeypatch):
    def repeat(reached, *, seconds: float) -> None:
        with ThreadPoolExecutor(1) as other:
            answers.append(other.submit(post, claim(), headers=KEY).result())

    answers: list = []
    monkeypatch.setattr(waiting, "until", repeat)
    first = post(claim(), headers={**KEY, "Prefer": "wait=5"})
    assert first.status_code == 202
    assert [(one.status_code, one.json["type"]) for one in answers] == [(409, "/problems/idempotency-in-progress")]
    assert post(claim(), headers=KEY).data == first.data


def test_dying_while_it_waits_does_not_make_a_second_claim(post, monkeypatch):
    """The promise stored with the claim is redeemed once the dead request is stale, even if the claim has failed."""
    with monkeypatch.context() as dying:
        dying.setattr(idempotency, "finish", lambda *args: False)
        first = post(claim(), headers={**KEY, "Prefer": "wait=0"})
    put_into(first.json["id"], "failed")
    assert post(claim(), headers=KEY).status_code == 409
    age(61)
    again = post(claim(), headers=KEY)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    assert post(claim(), headers=KEY).data == again.data
    assert count(Workflow) == 1


def test_an_error_while_waiting_keeps_the_promise(post, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(waiting, "until", lambda *args, **rest: 1 / 0)
        assert post(claim(), headers={**KEY, "Prefer": "wait=5"}).status_code == 500
    assert post(claim(), headers=KEY).status_code == 202
    assert count(Workflow) == 1


def test_stored_answers_are_sealed(post):
    post(claim(appointment={**claim()["appointment"], "name": "Dr Example"}), headers=KEY)
    with db.transaction() as session:
        row = session.execute(text("SELECT k::text FROM idempotency_keys k")).scalar_one()
    assert "Example" not in row
    assert post(claim(appointment={**claim()["appointment"], "name": "Dr Example"}), headers=KEY).status_code == 202


def test_twenty_identical_posts_with_a_key_make_one_claim(app, key, dispatched):
    barrier = threading.Barrier(20)

    def send(_: int) -> tuple[int, str]:
        barrier.wait()
        answer = app.test_client().post("/travel-claims", json=claim(), headers={"x-api-key": key, **KEY})
        return answer.status_code, answer.json.get("id") or answer.json["type"]

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(send, range(20)))
    accepted = {answer for answer in answers if answer[0] == 202}
    assert len(accepted) == 1
    assert answers - accepted <= {(409, "/problems/idempotency-in-progress")}
    assert count(Workflow) == len(dispatched) == 1


# The store


@pytest.fixture
def client_id(key):
    with db.transaction() as session:
        return clients.named(session, "check-in").id


def begin(client_id, request: str = "r") -> Running | Answer:
    with db.transaction() as session:
        return idempotency.begin(session, client_id, "k", request)


def test_a_dead_request_that_did_nothing_is_run_anew_by_one_only(client_id):
    first = begin(client_id)
    with pytest.raises(errors.Refused, match="still being accepted"):
        begin(client_id)
    age(61)
    barrier = threading.Barrier(8)

    def again(_: int) -> str:
        barrier.wait()
        try:
            return type(begin(client_id)).__name__
        except errors.Refused as refused:
            return refused.kind

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(again, range(8)))
    assert outcomes == ["Running"] + ["idempotency-in-progress"] * 7
    answer = Answer(status=202, headers={}, body="late")
    with db.transaction() as session:
        assert not idempotency.finish(session, first, answer)
        assert not idempotency.promise(session, first, answer)


def test_a_stale_request_is_not_taken_over_by_another_body(client_id):
    begin(client_id)
    age(61)
    with pytest.raises(errors.Refused) as refused:
        begin(client_id, "other")
    assert refused.value.kind == "idempotency-mismatch"


def test_who_was_taken_over_accepts_nothing(post, monkeypatch):
    accept = claims.accept

    def slow(session, *args, **rest):
        age(61)
        return accept(session, *args, **rest)

    monkeypatch.setattr(claims, "accept", slow)
    answer = post(claim(), headers=KEY)
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/idempotency-in-progress")
    assert count(Workflow) == 0
