"""What holds for every answer: headers, error shape, the order of checks, and a description made from the code."""

import json
import logging
import re

import pytest
from flask import Flask

from app import api, db, expenses, queue
from app.store import claims
from tests.api.factories import claim

ANY_ID = "01920000-0000-7000-8000-000000000000"


def test_every_answer_has_its_correlation_id_and_is_not_cached(app, http, key):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/nowhere", f"/travel-claims/{ANY_ID}"):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = http.open(path, method=method, headers={"X-Correlation-ID": "mine", "x-api-key": key})
            assert answer.headers["X-Correlation-ID"] == "mine", (method, path)
            assert answer.headers["Cache-Control"] == "no-store", (method, path)
            assert answer.status_code < 500, (method, path)


def test_a_correlation_id_is_made_up_when_absent(http):
    assert re.fullmatch(r"[0-9a-f-]{36}", http.get("/healthz").headers["X-Correlation-ID"])


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_another_method_is_answered_with_those_there_are(http, method):
    answer = http.open("/travel-claims", method=method)
    assert (answer.status_code, answer.json["type"]) == (405, "/problems/method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_head_is_get_without_the_body(http, post, key):
    place = post(claim()).headers["Location"]
    head = http.head(place, headers={"x-api-key": key})
    assert (head.status_code, head.data) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/travel-claims/", f"/travel-claims/{ANY_ID}/", "/travel-claims/a/b", "//travel-claims", "/"]
)
def test_an_unknown_path_is_not_found_and_leads_nowhere(http, path):
    answer = http.post(path, json=claim())
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/not-found")


def test_the_checks_come_in_the_order_of_the_contract(http, post, key, add_client):
    """Everything is wrong at first; each fault that is put right uncovers the next."""
    wrong = {"Content-Type": "text/plain", "X-Correlation-ID": "a b", "Idempotency-Key": "a b"}
    wild = add_client("wild", scopes=["vouchers"])
    raw = add_client("raw", product=None)

    def send(headers: dict[str, str], data: bytes) -> str:
        answer = http.post("/travel-claims", data=data, headers=headers)
        return str(answer.json["type"]).rpartition("/")[2] if answer.status_code > 299 else str(answer.status_code)

    huge, broken = b"{" * (8 * 1024 * 1024 + 1), b"{"
    told = [send(wrong, huge)]
    told += [send({**wrong, "x-api-key": which}, huge) for which in (wild, raw, key)]
    wrong["x-api-key"] = key
    told.append(send(wrong, broken))
    wrong["Content-Type"] = "application/json"
    told.append(send(wrong, broken))
    wrong["X-Correlation-ID"] = "fine"
    told.append(send(wrong, broken))
    wrong["Idempotency-Key"] = "used"
    assert send(wrong, json.dumps(claim()).encode()) == "202"
    told.append(send(wrong, broken))
    wrong["Idempotency-Key"] = "new"
    told += [send(wrong, broken), send(wrong, b"{}")]
    assert told == [
        "unauthorized", "forbidden", "client-not-set-up", "too-large", "unsupported-media-type", "invalid-request",
        "invalid-request", "idempotency-mismatch", "malformed-json", "validation-failed",
    ]  # fmt: skip


def test_an_error_of_ours_is_told_without_details(app, key, monkeypatch, caplog):
    def broken(*args: object, **rest: object) -> None:
        raise RuntimeError("the secret of 1012667122V019349")

    monkeypatch.setattr(claims, "accept", broken)
    answer = app.test_client().post("/travel-claims", json=claim(), headers={"x-api-key": key})
    assert (answer.status_code, answer.json["type"]) == (500, "/problems/internal-error")
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "secret" not in answer.text
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_postgres_away_is_503_and_come_again(http, key, postgres, set_settings):
    set_settings(DATABASE_URL="postgresql://throughline:x@127.0.0.1:1/throughline")
    db.engine().dispose()
    db.engine.cache_clear()
    try:
        for answer in (
            http.post("/travel-claims", json=claim(), headers={"x-api-key": key, "Idempotency-Key": "k"}),
            http.get(f"/travel-claims/{ANY_ID}", headers={"x-api-key": key}),
        ):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json["type"] == "/problems/unavailable"
            assert "127.0.0.1" not in answer.text
        assert http.get("/healthz").status_code == 200
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json["database"]) == (503, "unreachable")
        assert http.get("/metrics").status_code == 200
        assert http.get("/openapi.json").status_code == 200
    finally:
        db.engine().dispose()
        db.engine.cache_clear()


def test_redis_away_changes_no_answer(http, post, set_settings):
    set_settings(REDIS_URL="redis://127.0.0.1:1/0")
    queue._counter.cache_clear()
    try:
        assert post(claim()).status_code == 202
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json["broker"]) == (200, "unreachable")
    finally:
        queue._counter.cache_clear()


def test_one_record_per_request_and_nothing_personal_in_it(post, caplog):
    post(claim(phone="+12025550143"), headers={"X-Correlation-ID": "mine"})
    told = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    (record,) = [one for one in told if one["event"] == "http.request"]
    assert {name: record[name] for name in ("method", "route", "status", "client", "correlation_id")} == {
        "method": "POST", "route": "/travel-claims", "status": 202, "client": "check-in", "correlation_id": "mine",
    }  # fmt: skip
    assert record["seconds"] > 0
    assert not re.search("1012667122|2025550143|983GC", str(told))


def test_the_route_of_a_record_is_a_template(http, key, caplog):
    http.get(f"/travel-claims/{ANY_ID}?icn=1012667122V019349", headers={"x-api-key": key})
    told = str([one.msg for one in caplog.records])
    assert "/travel-claims/<id>" in told
    assert ANY_ID not in told
    assert "1012667122" not in told


# The description


def test_the_description_is_openapi_3_1_and_holds_every_route(app: Flask, http):
    described = http.get("/openapi.json").json
    assert described["openapi"].startswith("3.1")
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/travel-claims"):
            path = described["paths"][re.sub(r"<(\w+)>", r"{\1}", rule.rule)]
            for method in rule.methods - {"HEAD"}:
                operation = path[method.lower()]
                assert operation["security"] == [{"key": []}]
                assert operation["summary"]


def test_every_refusal_is_described_as_a_problem(http):
    """But where a contract has bodies of its own for them."""
    described = http.get("/openapi.json").json
    for name, path in described["paths"].items():
        for operation in path.values() if name.startswith(("/travel-claims", "/callbacks")) else ():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    schema = answer["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
    assert described["components"]["schemas"]["Problem"]["required"] == [
        "type", "title", "status", "detail", "instance", "correlationId",
    ]  # fmt: skip


def test_the_description_follows_the_table_of_expense_types(http):
    items = json.dumps(http.get("/openapi.json").json["components"]["schemas"]["Intake"]["properties"]["expenses"])
    for word in expenses.TYPES:
        assert f'"{word}"' in items


def test_every_reference_of_the_description_leads_somewhere(http):
    text = http.get("/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    assert {name.rpartition("/")[2] for name in re.findall(r'"#/components/schemas/[^"]+', text)} <= set(schemas)


def test_two_apps_describe_the_same(database):
    first, second = api.create_app(), api.create_app()
    assert first.test_client().get("/openapi.json").json == second.test_client().get("/openapi.json").json


def test_the_pages_need_nothing_from_elsewhere(http):
    page = http.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 3
    assert all(link.startswith(("/docs/", "data:")) for link in links)


def test_the_pages_parts_are_served_from_the_package(http):
    for link in re.findall(r'"(/docs/[^"]+)"', http.get("/docs").text):
        with http.get(link) as part:
            assert part.status_code == 200, link
    assert http.get("/docs/../../../etc/passwd").status_code == 404
    assert http.get("/docs/nothing.js").status_code == 404
