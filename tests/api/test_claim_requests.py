"""Cancelling and retrying claims over HTTP: contract 2.6 and 2.7. What they do to the row: tests/flows."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from app import db, metrics
from app.api import waiting
from app.flows import claim_requests, dispatch
from app.models.client import IdempotencyKey
from app.models.workflow import Move
from app.store import clients
from tests.api.factories import add_text, claim, put_into

ANY_ID = "01920000-0000-7000-8000-000000000000"
FAILURE = {"step": "authorize", "httpStatus": 502, "code": "authorization-failed", "message": "no", "retryable": True}
Send = Callable[..., TestResponse]


@pytest.fixture
def filed(post, dispatched) -> str:
    made = str(post(claim()).json["id"])
    dispatched.clear()
    return made


@pytest.fixture
def failed(filed) -> str:
    put_into(filed, "failed", error=FAILURE)
    with db.transaction() as session:
        session.execute(_CLAIMS.update().values(failed_in="accepted"))
    return filed


@pytest.fixture
def send(http, key) -> Send:
    """`send("cancel", id)`: POST without a body unless told otherwise."""

    def post(verb: str, id: str, *, api_key: str = key, headers: dict[str, str] | None = None, **rest: Any) -> Any:
        return http.post(f"/travel-claims/{id}/{verb}", headers={"x-api-key": api_key, **(headers or {})}, **rest)

    return post


_CLAIMS = claim_requests.Claim.__table__


def told(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


def counted(metric: Any, *labels: str) -> float:
    return float(metric.labels(*labels)._value.get())


# Cancel


def test_a_claim_with_nothing_in_flight_is_cancelled_at_once(send, filed):
    answer = send("cancel", filed)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    found = answer.json
    assert (found["id"], found["state"], found["final"]) == (filed, "cancelled", True)
    assert (found["cancelRequested"], found["text"]["state"], found["error"]) == (True, "none", None)
    again = send("cancel", filed)
    assert (again.status_code, again.json) == (200, answer.json)


def test_with_rollback_it_is_undone(send, post):
    filed = post(claim(rollback=True)).json["id"]
    put_into(filed, "created")
    with db.transaction() as session:
        session.execute(_CLAIMS.update().values(claim_made=True, claim_id="x"))
    answer = send("cancel", filed)
    assert (answer.status_code, answer.json["state"], answer.json["cancelRequested"]) == (200, "rolling-back", True)
    assert (answer.json["error"], answer.json["step"]) == (None, None)


def test_with_a_call_in_flight_it_is_asked_for(send, filed):
    put_into(filed, "created", in_doubt=True, intent={"step": "add_expenses", "index": 0, "at": "2026-03-02T10:00:00Z"})
    for _ in range(2):
        answer = send("cancel", filed)
        assert (answer.status_code, answer.json["state"], answer.json["cancelRequested"]) == (202, "created", True)


@pytest.mark.parametrize(
    "state", ["submitted", "duplicate", "failed", "rolled-back", "rollback-failed", "rolling-back"]
)
def test_what_has_come_to_its_end_cannot_be_cancelled(send, filed, state):
    put_into(filed, state, error=FAILURE)
    assert told(send("cancel", filed)) == (409, "not-cancellable")


def test_a_submission_in_flight_cannot_be_cancelled(send, filed):
    put_into(filed, "expensed", in_doubt=True, intent={"step": "submit_claim", "at": "2026-03-02T10:00:00Z"})
    assert told(send("cancel", filed)) == (409, "not-cancellable")


def test_only_the_owner_cancels(http, send, filed, add_client):
    assert told(send("cancel", filed, api_key=add_client("other"))) == (404, "not-found")
    operator = add_client("operator", scopes=["operator"], product=None)
    assert told(send("cancel", filed, api_key=operator)) == (403, "forbidden")
    both = add_client("both", scopes=["claims", "operator"])
    assert told(send("cancel", filed, api_key=both)) == (404, "not-found")
    assert http.post(f"/travel-claims/{filed}/cancel").status_code == 401


def test_who_waits_for_a_cancel_sees_it_final(send, filed, monkeypatch):
    put_into(filed, "created", in_doubt=True, intent={"step": "add_expenses", "index": 0, "at": "2026-03-02T10:00:00Z"})
    monkeypatch.setattr(waiting, "until", lambda *args, **rest: put_into(filed, "cancelled"))
    answer = send("cancel", filed, headers={"Prefer": "wait=5", "Idempotency-Key": "k"})
    assert (answer.status_code, answer.json["state"]) == (200, "cancelled")
    assert answer.headers["Preference-Applied"] == "wait=5"
    again = send("cancel", filed, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.data) == (200, answer.data)


# Retry


def test_a_failed_claim_begins_another_run(send, failed, dispatched):
    answer = send("retry", failed)
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/travel-claims/{failed}")
    found = answer.json
    assert (found["id"], found["state"], found["run"], found["attempt"]) == (failed, "accepted", 2, 0)
    assert (found["error"], found["final"], found["text"]["state"]) == (None, False, "none")
    assert [str(one) for one in dispatched] == [failed]


def test_a_retry_that_is_seen_final_is_200(send, failed, monkeypatch):
    monkeypatch.setattr(waiting, "until", lambda *args, **rest: put_into(failed, "submitted"))
    answer = send("retry", failed, headers={"Prefer": "wait=5"})
    assert (answer.status_code, answer.json["state"], answer.json["run"]) == (200, "submitted", 2)
    assert answer.headers["Location"] == f"/travel-claims/{failed}"
    assert answer.headers["Preference-Applied"] == "wait=5"


@pytest.mark.parametrize(
    "state",
    ["accepted", "created", "submitted", "duplicate", "rolled-back", "rollback-failed", "rolling-back", "cancelled"],
)
def test_only_what_failed_is_retried(send, filed, state):
    put_into(filed, state, error=FAILURE)
    assert told(send("retry", filed)) == (409, "not-retryable")


def test_a_claim_whose_visit_has_a_newer_one_is_superseded(send, failed, post):
    newer = post(claim()).json["id"]
    assert told(send("retry", failed)) == (409, "superseded")
    put_into(newer, "cancelled")
    assert send("retry", failed).status_code == 202


def test_a_claim_whose_data_are_erased_is_not_retried(send, failed):
    with db.transaction() as session:
        session.execute(_CLAIMS.update().values(icn=None))
    assert told(send("retry", failed)) == (409, "data-erased")


def test_owners_and_operators_retry(send, failed, add_client):
    assert told(send("retry", failed, api_key=add_client("other"))) == (404, "not-found")
    operator = add_client("operator", scopes=["operator"], product=None)
    assert send("retry", failed, api_key=operator).status_code == 202
    with db.transaction() as session:
        newest = session.scalars(select(Move).order_by(Move.id.desc())).first()
    assert (newest.of, newest.to, newest.actor) == ("failed", "accepted", "operator")


def test_operators_retry_also_while_the_line_is_off_for_the_owner(send, failed, add_client):
    with db.transaction() as session:
        clients.set_toggle(session, "check-in", "claims", on=False)
    assert told(send("retry", failed)) == (404, "feature-disabled")
    assert told(send("cancel", failed)) == (404, "feature-disabled")
    operator = add_client("operator", scopes=["operator"], product=None)
    assert send("retry", failed, api_key=operator).status_code == 202


@pytest.mark.parametrize(
    ("body", "notify"), [(None, False), ({}, False), ({"notify": True}, True), ({"notify": None}, False)]
)
def test_notify_is_handed_on(send, failed, monkeypatch, body, notify):
    calls: list[dict[str, Any]] = []
    carry_out = claim_requests.retry

    def retry(claim_id: Any, *, keep: Any, **rest: Any) -> str:
        calls.append({"id": str(claim_id), **rest})
        return carry_out(claim_id, keep=keep, **rest)

    monkeypatch.setattr(claim_requests, "retry", retry)
    assert send("retry", failed, **({} if body is None else {"json": body})).status_code == 202
    assert calls == [{"id": failed, "notify": notify, "actor": "client"}]


def test_a_text_that_has_gone_out_is_shown_only_for_its_run(send, failed):
    add_text(failed, "sent", template="error")
    assert send("retry", failed).json["text"] == {"state": "none", "template": None, "reason": None}


# Bodies


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (b"{", 400, "malformed-json"), (b" ", 400, "malformed-json"), (b'{"a": 1, "a": 1}', 400, "malformed-json"),
        (b"[]", 422, "validation-failed"), (b"null", 422, "validation-failed"), (b"{}x", 400, "malformed-json"),
        (b'{"reason": "x"}', 422, "validation-failed"), (b'{"x": "' + b"x" * 102_400 + b'"}', 413, "too-large"),
    ],
)  # fmt: skip
def test_another_body_is_refused_before_the_claim_is_looked_for(send, verb, data, status, kind):
    assert told(send(verb, ANY_ID, data=data)) == (status, kind)


@pytest.mark.parametrize(
    ("verb", "body", "fault"),
    [
        ("cancel", {"notify": True}, ("/notify", "unknown-field")),
        ("retry", {"notify": "true"}, ("/notify", "type")),
        ("retry", {"notify": 1}, ("/notify", "type")),
        ("retry", {"Notify": True}, ("/Notify", "unknown-field")),
    ],
)
def test_each_fault_of_a_body_is_told_and_counted(send, filed, verb, body, fault):
    pointer, code = fault
    before = counted(metrics.claims_refused, "pci", code)
    answer = send(verb, filed, json=body)
    assert told(answer) == (422, "validation-failed")
    assert [(one["pointer"], one["code"]) for one in answer.json["errors"]] == [(pointer, code)]
    assert counted(metrics.claims_refused, "pci", code) == before + 1


def test_a_fault_of_an_operators_body_belongs_to_no_product(send, filed, add_client):
    operator = add_client("operator", scopes=["operator"], product=None)
    before = counted(metrics.claims_refused, "none", "unknown-field")
    assert send("retry", filed, json={"x": 1}, api_key=operator).status_code == 422
    assert counted(metrics.claims_refused, "none", "unknown-field") == before + 1


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_no_body_needs_no_content_type_but_a_wrong_one_is_refused(send, filed, verb):
    assert told(send(verb, filed, headers={"Content-Type": "text/plain"})) == (415, "unsupported-media-type")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("id", [ANY_ID, "nonsense"])
def test_a_claim_that_is_not_there_is_not_found(send, verb, id):
    assert told(send(verb, id)) == (404, "not-found")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_another_method_is_answered_with_post(http, filed, verb):
    answer = http.get(f"/travel-claims/{filed}/{verb}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


# Idempotency


def test_a_repeated_retry_with_its_key_begins_no_third_run(send, failed, dispatched):
    first = send("retry", failed, headers={"Idempotency-Key": "k"})
    put_into(failed, "failed", error=FAILURE)
    again = send("retry", failed, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.data, again.headers["Location"]) == (202, first.data, first.headers["Location"])
    assert len(dispatched) == 1


@pytest.mark.parametrize(("verb", "kind"), [("cancel", "not-cancellable"), ("retry", "not-retryable")])
def test_these_conflicts_are_stored(send, filed, verb, kind):
    put_into(filed, "submitted")
    first = send(verb, filed, headers={"Idempotency-Key": "k"})
    assert told(first) == (409, kind)
    put_into(filed, "accepted", due_at=func.now(), wake_at=func.now())
    again = send(verb, filed, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.data) == (409, first.data)
    assert send(verb, filed, headers={"Idempotency-Key": "other"}).data != first.data


def test_what_was_not_found_is_not_stored(send, failed):
    assert send("retry", ANY_ID, headers={"Idempotency-Key": "k"}).status_code == 404
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 0


def test_a_key_belongs_to_one_path(send, failed):
    assert send("retry", failed, headers={"Idempotency-Key": "k"}).status_code == 202
    assert told(send("cancel", failed, headers={"Idempotency-Key": "k"})) == (422, "idempotency-mismatch")


def test_dying_while_a_retry_is_waited_for_begins_no_third_run(send, failed, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(waiting, "until", lambda *args, **rest: 1 / 0)
        headers = {"Idempotency-Key": "k", "Prefer": "wait=5"}
        assert send("retry", failed, headers=headers).status_code == 500
    put_into(failed, "failed", error=FAILURE)
    again = send("retry", failed, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json["run"]) == (202, 2)


class Died(BaseException):
    """The process is killed: nothing of ours handles it, and no answer is given."""


@pytest.fixture
def dying(send, monkeypatch) -> Callable[..., None]:
    """As `send`, but the process dies as soon as the request has committed."""

    def request(*what: str, **more: Any) -> None:
        def die(id: object) -> None:
            raise Died

        with monkeypatch.context() as committed:
            committed.setattr(dispatch, "enqueue", die)
            with pytest.raises(Died):
                send(*what, **more)

    return request


def age(seconds: int) -> None:
    with db.transaction() as session:
        earlier = IdempotencyKey.created_at - timedelta(seconds=seconds)
        session.execute(update(IdempotencyKey).values(created_at=earlier))


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "wait=5"}])
@pytest.mark.parametrize("meanwhile", ["accepted", "failed", "submitted"])
def test_dying_after_a_retry_answers_its_repeat_and_begins_no_third_run(send, failed, dying, prefer, meanwhile):
    key = {"Idempotency-Key": "k"}
    dying("retry", failed, headers={**key, **prefer})
    put_into(failed, meanwhile, **({"error": FAILURE} if meanwhile == "failed" else {}))
    age(41)
    again = send("retry", failed, headers=key)
    assert (again.status_code, again.json["id"], again.json["state"], again.json["run"]) == (202, failed, "accepted", 2)
    assert (again.headers["Location"], "Status" in again.headers) == (f"/travel-claims/{failed}", False)
    assert send("retry", failed, headers=key).data == again.data
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Move).where(Move.reason == "retry")) == 1


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "wait=5"}])
def test_dying_after_a_cancel_answers_its_repeat(send, post, dying, prefer):
    filed = post(claim(rollback=True)).json["id"]
    put_into(filed, "created")
    with db.transaction() as session:
        session.execute(_CLAIMS.update().values(claim_made=True, claim_id="x"))
    key = {"Idempotency-Key": "k"}
    dying("cancel", filed, headers={**key, **prefer})
    put_into(filed, "rollback-failed", error=FAILURE)
    age(41)
    for _ in range(2):
        again = send("cancel", filed, headers=key)
        assert (again.status_code, again.json["state"], again.json["cancelRequested"]) == (200, "rolling-back", True)


def test_a_cancel_that_was_asked_for_is_told_again_though_its_first_request_died(send, filed, monkeypatch):
    put_into(filed, "created", in_doubt=True, intent={"step": "add_expenses", "index": 0, "at": "2026-03-02T10:00:00Z"})
    ask, key = claim_requests.cancel, {"Idempotency-Key": "k"}

    def die(*args: Any, **rest: Any) -> str:
        ask(*args, **rest)
        raise Died

    with monkeypatch.context() as committed:
        committed.setattr(claim_requests, "cancel", die)
        with pytest.raises(Died):
            send("cancel", filed, headers=key)
    put_into(filed, "submitted", in_doubt=False, intent=None)
    age(41)
    again = send("cancel", filed, headers=key)
    assert (again.status_code, again.json["state"], again.json["cancelRequested"]) == (202, "created", True)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_request_that_was_taken_over_does_nothing(send, failed, monkeypatch, dispatched, verb):
    if verb == "cancel":
        put_into(failed, "accepted", due_at=func.now(), wake_at=func.now())
    done = getattr(claim_requests, verb)

    def slow(*args: Any, **rest: Any) -> str:
        age(41)
        return done(*args, **rest)

    monkeypatch.setattr(claim_requests, verb, slow)
    answer = send(verb, failed, headers={"Idempotency-Key": "k"})
    assert told(answer) == (409, "idempotency-in-progress")
    with db.transaction() as session:
        found = session.scalar(select(func.count()).select_from(Move).where(Move.reason == verb))
    assert (found, dispatched) == (0, [])


# Records


def test_records_say_which_claim_line_and_product(send, filed, caplog):
    send("cancel", filed, headers={"X-Correlation-ID": "mine"})
    records = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    (record,) = [one for one in records if one["event"] == "http.request"]
    expected = {
        "line": "claims", "claim": filed, "client": "check-in", "product": "pci", "correlation_id": "mine",
        "route": "/travel-claims/<id>/cancel", "status": 200,
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected
