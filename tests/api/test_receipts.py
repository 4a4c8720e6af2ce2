"""Delivery receipts of Notify: contract 2.8, 3.2, 7 and 10.1."""

import hmac
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy import text as sql

from app import db, metrics
from app.models.claim import Claim
from app.models.workflow import Move
from app.store import clients
from tests.api.factories import add_text
from tests.api.texts import NOTIFY_ID, SECOND, TOKEN, Counts, receipts, state, text_of

pytestmark = pytest.mark.usefixtures("tokens")
ANY_ID = "01920000-0000-7000-8000-000000000000"
FAILURES = ["permanent-failure", "temporary-failure", "technical-failure"]
ON_THE_WAY = ["created", "sending", "sent", "pending"]


# Who may


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x",
     f"Bearer {TOKEN}, {SECOND}", f"Bearer {TOKEN},{SECOND}", "Bearer ÿ", f"Bearer {TOKEN.upper()}"],
)  # fmt: skip
def test_without_the_token_nothing_is_told(http, header):
    headers = {} if header is None else {"Authorization": header}
    answer = http.post("/callbacks/notify", data=b"{" * 200_000, headers=headers)
    assert (answer.status_code, answer.json["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_key_of_ours_is_no_token(http, key):
    for headers in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}, {"x-api-key": TOKEN}):
        assert http.post("/callbacks/notify", json={"id": "x", "status": "y"}, headers=headers).status_code == 401


@pytest.mark.parametrize("token", [TOKEN, SECOND])
def test_both_tokens_do_during_a_rotation(send, token):
    answer = send(token=token)
    assert (answer.status_code, answer.data) == (204, b"")


def test_both_tokens_are_compared_whichever_fits(send, monkeypatch):
    compared: list[bytes] = []
    real = hmac.compare_digest

    def watch(one: Any, other: Any) -> bool:
        compared.append(one)
        return bool(real(one, other))

    monkeypatch.setattr("hmac.compare_digest", watch)
    for token in (TOKEN, SECOND, "neither"):
        compared.clear()
        send(token=token)
        assert len(compared) == 2, token
        assert {len(one) for one in compared} == {32}


def test_without_texts_there_is_no_token(send, set_settings):
    set_settings(NOTIFY_URL="")
    assert send().status_code == 401
    assert send(token="").status_code == 401


def test_the_word_bearer_may_be_written_anyhow(http):
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert http.post("/callbacks/notify", json={"id": "x", "status": "y"}, headers=headers).status_code == 204


def test_the_toggles_of_the_client_do_not_matter(send, ended):
    text = add_text(ended)
    with db.transaction() as session:
        for toggle in ("claims", "claims-texts"):
            clients.set_toggle(session, "check-in", toggle, on=False)
    assert send(reference=text).status_code == 204
    assert state(text) == "delivered"


# Bodies


@pytest.mark.parametrize("data", [b"", b"{", b'{"status": NaN}', b'{"id": "\xff"}', b'{"id": "1", "id": "2"}'])
def test_what_is_no_json_is_400(http, data):
    answer = http.post("/callbacks/notify", data=data, headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.json["type"]) == (400, "/problems/malformed-json")


@pytest.mark.parametrize(
    ("members", "faults"),
    [
        ({"status": ...}, [("/status", "required")]),
        ({"status": None}, [("/status", "required")]),
        ({"status": ""}, [("/status", "too-short")]),
        ({"status": 5}, [("/status", "type")]),
        ({"id": ..., "reference": ...}, [("/reference", "required")]),
        ({"id": None, "reference": None}, [("/reference", "required")]),
        ({"id": ..., "status": ...}, [("/status", "required"), ("/reference", "required")]),
        ({"id": 5}, [("/id", "type")]),
        ({"reference": ["x"]}, [("/reference", "type")]),
    ],
)
def test_a_body_without_what_is_needed_is_422(send, members, faults):
    answer = send(**{"status": "delivered", **members})
    assert (answer.status_code, answer.json["type"]) == (422, "/problems/validation-failed")
    assert [(one["pointer"], one["code"]) for one in answer.json["errors"]] == faults


def test_a_body_that_is_no_object_is_422(http):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert http.post("/callbacks/notify", json=["delivered"], headers=headers).status_code == 422


def test_a_body_may_have_100_kib(send, http):
    assert send(padding="x" * 100_000).status_code == 204
    assert send(padding="x" * 102_400).status_code == 413
    answer = http.post(
        "/callbacks/notify", data=b"{}", headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/xml"}
    )
    assert answer.status_code == 415


def test_the_contracts_example_is_taken_and_the_number_is_not_kept(http, ended):
    text = add_text(ended)
    body = {
        "id": NOTIFY_ID, "reference": text, "to": "+12025550143", "status": "delivered", "status_reason": None,
        "notification_type": "sms", "completed_at": "2026-03-02T15:05:31.000000Z", "provider": "sns", "new": {"a": [1]},
    }  # fmt: skip
    answer = http.post("/callbacks/notify", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.data) == (204, b"")
    assert state(text) == "delivered"
    with db.transaction() as session:
        for table in ("notifications", "workflows", "moves"):
            rows = session.execute(sql(f"SELECT string_agg(t::text, '') FROM {table} t")).scalar()  # noqa: S608
            assert "2025550143" not in (rows or "")


# Effects


def test_delivered_is_shown_with_the_claim_and_counted(http, key, send, ended):
    text = add_text(ended)
    counts, before = Counts(), receipts("delivered")
    assert send("delivered", reference=text).status_code == 204
    shown = http.get(f"/travel-claims/{ended}", headers={"x-api-key": key}).json
    assert shown["text"] == {"state": "delivered", "template": "error", "reason": None}
    assert counts.gained() == {"delivered": 1}
    assert receipts("delivered") == before + 1


@pytest.mark.parametrize("status", [*FAILURES, "returned", "Delivered", "x" * 50_000, "1012667122V019349"])
def test_a_failure_and_any_unknown_word_is_undelivered(http, key, send, ended, status):
    text = add_text(ended)
    counts = Counts()
    assert send(status, reference=text).status_code == 204
    assert state(text) == "undelivered"
    assert counts.gained() == {"error": 1, "silent": 1}
    assert http.get(f"/travel-claims/{ended}", headers={"x-api-key": key}).json["text"]["state"] == "undelivered"


@pytest.mark.parametrize(("template", "silent"), [("success", 0), ("duplicate", 0), ("failure", 1), ("timeout", 1)])
def test_only_bad_news_that_did_not_arrive_is_a_silent_failure(send, ended, template, silent):
    text = add_text(ended, template=template)
    counts = Counts(template)
    send("permanent-failure", reference=text)
    assert counts.gained() == {"error": 1} | ({"silent": 1} if silent else {})


def test_counts_are_those_of_the_texts_product(send, ended):
    text = add_text(ended, product="oh")
    counts, before = Counts(product="oh"), receipts("technical-failure", product="oh")
    send("technical-failure", reference=text)
    assert counts.gained() == {"error": 1, "silent": 1}
    assert receipts("technical-failure", product="oh") == before + 1


def test_delivered_wins_over_an_earlier_failure_and_a_later_one_is_ignored(send, ended):
    text = add_text(ended)
    counts = Counts()
    for status, becomes in [("temporary-failure", "undelivered"), ("delivered", "delivered"),
                            ("permanent-failure", "delivered"), ("what", "delivered")]:  # fmt: skip
        assert send(status, reference=text).status_code == 204
        assert state(text) == becomes
    assert counts.gained() == {"error": 1, "silent": 1, "delivered": 1}


@pytest.mark.parametrize("status", ON_THE_WAY)
def test_a_text_on_its_way_stays_as_it_is(send, ended, status):
    for known in ("sent", "delivered", "undelivered"):
        text = add_text(ended, known)
        counts, before = Counts(), receipts(status)
        assert send(status, reference=text).status_code == 204
        assert state(text) == known
        assert counts.gained() == {}
        assert receipts(status) == before + 1


@pytest.mark.parametrize("status", ["delivered", "permanent-failure", "sending", "what"])
def test_a_repeat_is_not_counted_again(send, ended, status):
    text = add_text(ended)
    label = status if status != "what" else "other"
    counts, before = Counts(), receipts(label)
    send(status, reference=text)
    once = counts.gained()
    for _ in range(3):
        assert send(status, reference=text).status_code == 204
    assert counts.gained() == once
    assert receipts(label) == before + 1


def test_another_failure_of_the_same_text_is_another_receipt_but_no_other_failure(send, ended):
    text = add_text(ended)
    counts, before = Counts(), receipts("permanent-failure")
    send("temporary-failure", reference=text)
    send("permanent-failure", reference=text)
    assert receipts("permanent-failure") == before + 1
    assert counts.gained() == {"error": 1, "silent": 1}


def test_unknown_words_are_one_label(send, ended):
    before = receipts("other")
    for number in range(5):
        send(f"word-{number}", reference=add_text(ended))
    assert receipts("other") == before + 5
    labels = [labels["status"] for labels in _labels(metrics.claims_notify_receipts)]
    assert not any("word" in label for label in labels)


def _labels(metric: Any) -> list[dict[str, str]]:
    return [sample.labels for family in metric.collect() for sample in family.samples]


@pytest.mark.parametrize(
    "members", [{"reference": ANY_ID}, {"reference": "nonsense"}, {"reference": ""}, {"id": NOTIFY_ID}, {"id": "é"}]
)
def test_what_is_not_ours_is_counted_and_answered_204(send, members):
    before = receipts("delivered", known=False, product="unknown")
    answer = send(**{"id": ..., **members})
    assert (answer.status_code, answer.data) == (204, b"")
    assert receipts("delivered", known=False, product="unknown") == before + 1


def test_a_claims_id_is_no_reference(send, ended):
    assert send(reference=ended).status_code == 204
    with db.transaction() as session:
        assert session.get_one(Claim, UUID(ended)).state == "failed"


def test_a_text_is_also_found_by_notifys_id(send, ended):
    text, other = add_text(ended, notify_id=NOTIFY_ID), add_text(ended, notify_id="another")
    assert send(reference=...).status_code == 204
    assert (state(text), state(other)) == ("delivered", "sent")


def test_a_reference_that_is_not_ours_is_not_made_up_for_by_an_id(send, ended):
    text = add_text(ended, notify_id=NOTIFY_ID)
    send(reference=ANY_ID)
    assert state(text) == "sent"


@pytest.mark.parametrize("status", ["delivered", "permanent-failure", "sending"])
def test_notifys_id_is_kept_if_unknown(send, ended, status):
    known, unknown = add_text(ended, notify_id="known"), add_text(ended)
    for text in (known, unknown):
        send(status, reference=text)
    assert (text_of(known).notify_id, text_of(unknown).notify_id) == ("known", NOTIFY_ID)


def test_an_id_beyond_measure_is_not_kept(send, ended):
    text = add_text(ended)
    assert send("delivered", reference=text, id="x" * 10_000).status_code == 204
    assert (state(text), text_of(text).notify_id) == ("delivered", None)


@pytest.mark.parametrize("known", ["failed", "skipped"])
def test_what_was_given_up_stays_so(send, ended, known):
    text = add_text(ended, known)
    counts, before = Counts(), receipts("delivered")
    assert send(reference=text).status_code == 204
    assert state(text) == known
    assert counts.gained() == {}
    assert receipts("delivered") == before + 1


def test_the_history_tells_what_notify_said(send, ended):
    text = add_text(ended)
    for status in ("sending", "temporary-failure", "delivered", "sent"):
        send(status, reference=text)
    with db.transaction() as session:
        moves = session.scalars(select(Move).where(Move.workflow_id == UUID(text)).order_by(Move.id))
        said = [(move.of, move.to, move.actor, move.reason) for move in moves]
    assert said == [
        (None, None, "notify", "sending"),
        ("sent", "undelivered", "notify", "temporary-failure"),
        ("undelivered", "delivered", "notify", "delivered"),
        (None, None, "notify", "sent"),
    ]


# Records


def test_the_record_names_the_claim_and_nothing_personal(send, ended, caplog):
    text = add_text(ended)
    send("permanent-failure", reference=text, to="+12025550143", status_reason="1012667122V019349 is off")
    records = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    (record,) = [one for one in records if one["event"] == "notifications.receipt"]
    expected = {
        "line": "claims", "claim": ended, "workflow": text, "product": "pci", "correlation_id": "of-the-claim",
        "outcome": "permanent-failure",
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected
    assert not any(word in str(records) for word in ("2025550143", "1012667122", TOKEN))


def test_the_history_of_a_word_that_is_new_to_us_is_short_and_holds_nothing_personal(send, ended):
    text = add_text(ended)
    send("1012667122V019349 " + "word " * 100, reference=text)
    with db.transaction() as session:
        reason = session.scalars(select(Move.reason).where(Move.workflow_id == UUID(text))).one()
    assert reason.startswith("[removed] word")
    assert len(reason) == 50
