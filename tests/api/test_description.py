"""The description at /openapi.json against the running API, and its examples."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.parameters import ParameterLocation
from sqlalchemy import update

from app import config, db
from app.api import auth, waiting
from app.models.claim import Claim
from tests.api.factories import add_text, put_into, visit

LINE = ("/travel-claims", "/callbacks")
OPERATIONS = {
    "POST /travel-claims": "200 201 202 400 401 403 404 409 413 415 422 500 503",
    "GET /travel-claims": "200 400 401 403 404 500 503",
    "GET /travel-claims/{id}": "200 400 401 403 404 500 503",
    "POST /travel-claims/{id}/cancel": "200 202 400 401 403 404 409 413 415 422 500 503",
    "POST /travel-claims/{id}/retry": "200 202 400 401 403 404 409 413 415 422 500 503",
    "POST /callbacks/notify": "204 400 401 413 415 422 500 503",
}


@pytest.fixture
def described(http) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json
    return found


def operations(document: dict[str, Any], line: tuple[str, ...] = LINE) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operations whose paths begin so."""
    for path, item in document["paths"].items():
        if not path.startswith(line):
            continue
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_of_the_line_is_described_with_what_it_needs(app: Flask, described):
    """The statuses follow from what a route asks for; those of its own are in the contract."""
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith(LINE):
            continue
        for method in (rule.methods or set()) - {"HEAD"}:
            operation = described["paths"][re.sub(r"<(\w+)>", r"{\1}", rule.rule)][method.lower()]
            needed = {"400", "401", "500", "503"}
            if auth.access_to(app, rule.endpoint) is not auth.NOTIFY:
                needed |= {"403", "404"}
            needed |= {"413", "415", "422"} if method == "POST" else set()
            assert needed <= set(operation["responses"]), rule.rule
            assert operation["summary"]
            assert operation["description"]
            assert operation["operationId"]


def test_the_statuses_are_those_of_the_contract(described):
    found = {name: " ".join(sorted(one["responses"])) for name, one in operations(described)}
    assert found == {name: " ".join(sorted(statuses.split())) for name, statuses in OPERATIONS.items()}


def test_every_documented_status_has_an_example_that_fits_its_schema(described):
    for name, operation in operations(described):
        for status, answer in operation["responses"].items():
            if status == "204":
                assert "content" not in answer
                continue
            ((media_type, content),) = answer["content"].items()
            assert content["examples"], (name, status)
            schema = {**content["schema"], "components": described["components"]}
            for title, example in content["examples"].items():
                jsonschema_rs.validate(schema, example["value"])
                if media_type == "application/problem+json":
                    assert example["value"]["type"] == f"/problems/{title}"
                    assert str(example["value"]["status"]) == status


def test_every_body_has_an_example_that_the_api_takes(http, described, key, monkeypatch):
    token = config.settings().notify.callback_token.get_secret_value()
    headers = {"x-api-key": key, "Authorization": f"Bearer {token}"}
    for name, operation in operations(described):
        for example in (operation.get("requestBody") or {"content": {}})["content"].values():
            for shown in example["examples"].values():
                _, path = name.split()
                answer = http.post(path.replace("{id}", str(UUID(int=0))), json=shown["value"], headers=headers)
                assert answer.status_code in {202, 200, 204, 404}, (name, answer.text)


@pytest.mark.parametrize(
    "kind",
    ["not-cancellable", "not-retryable", "superseded", "data-erased", "invalid-parameter", "feature-disabled",
     "client-not-set-up", "idempotency-mismatch", "idempotency-in-progress", "malformed-json", "not-found"],
)  # fmt: skip
def test_every_kind_of_problem_is_shown_somewhere(described, kind):
    assert f"/problems/{kind}" in json.dumps(described)


def test_bodies_that_may_be_absent_are_described_so(described):
    found = dict(operations(described))
    needed = {name: one["requestBody"]["required"] for name, one in found.items() if "requestBody" in one}
    assert needed == {
        "POST /travel-claims": True, "POST /travel-claims/{id}/cancel": False, "POST /travel-claims/{id}/retry": False,
        "POST /callbacks/notify": True,
    }  # fmt: skip


def test_notify_shows_a_token_and_everybody_else_a_key(described):
    assert described["components"]["securitySchemes"] == {
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "notify": {"type": "http", "scheme": "bearer"},
    }
    for name, operation in operations(described):
        assert operation["security"] == [{"notify": []}] if "/callbacks/" in name else [{"key": []}]


# Made-up requests


@pytest.fixture
def lively(app: Flask, post, monkeypatch, set_settings) -> list[str]:
    """Claims in several states, and nobody who waits for long."""
    monkeypatch.setattr(waiting, "until", lambda *args, **rest: None)
    ids = [post(visit(number)).json["id"] for number in range(6)]
    put_into(ids[0], "submitted")
    error = {"step": "authorize", "httpStatus": 502, "code": "x", "message": "y", "retryable": True}
    for failed in ids[1:3]:
        put_into(failed, "failed", error=error)
    with db.transaction() as session:
        session.execute(update(Claim.__table__).values(failed_in="accepted"))
    put_into(ids[3], "created", in_doubt=True, intent={"step": "add_expenses", "index": 0, "at": "2026-03-02T10:00Z"})
    add_text(ids[0], template="success")
    return ids


BOUNDED = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
AS_DESCRIBED = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "positive_data_acceptance",
    "negative_data_rejection",
]
UNSAYABLE = {
    "invalid-cursor", "after-to", "not-https", "callback-url-not-allowed", "not-after", "not-different",
    "invalid-date-time",  # 31 November
    "too-many-decimals", "receipt-kind", "not-base64", "blank",
}  # fmt: skip
UNSAYABLE_AT = ("/receipt/fileName", "/returnDate")  # no control characters; needed for a round trip only


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_made_up_requests_are_answered_as_described(app, lively, key, name, mode):
    """Good requests and bad ones, always the same; half of those about one claim are about one that is there."""
    method, path = name.split()
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    schema.config.generation.update(allow_x00=False)  # refused everywhere, which no schema can say
    operation = schema[path][method]
    token = config.settings().notify.callback_token.get_secret_value()
    shown = {"x-api-key": key, "Authorization": f"Bearer {token}"}
    checks = CHECKS.get_by_names(AS_DESCRIBED)
    statuses: Counter[int] = Counter()

    @BOUNDED
    @given(case=operation.as_strategy(mode))
    def send(case: schemathesis.Case) -> None:
        if "{id}" in path and statuses.total() % 2:
            case.path_parameters["id"] = lively[statuses.total() // 2 % len(lively)]
        if mode is GenerationMode.POSITIVE and "Idempotency-Key" in (case.headers or {}):
            case.headers["Idempotency-Key"] = str(statuses.total())
        response = case.call(headers=shown)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks, excluded_checks=_not_of(case, response))

    send()
    assert 30 <= statuses.total() <= 120, statuses
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] + statuses[202] + statuses[204], statuses


def _not_of(case: schemathesis.Case, response: schemathesis.Response) -> list[schemathesis.CheckFunction]:
    """Checks that expect too much: of a good request with a fault that no schema can say, and of one whose only fault
    is a key or an id, which were put right above.
    """
    problem = response.json() if response.status_code in {400, 422} else {}
    codes = {fault["code"] for fault in problem.get("errors", []) if not fault["pointer"].endswith(UNSAYABLE_AT)}
    skipped = ["positive_data_acceptance"] if problem.get("errors") and codes <= UNSAYABLE else []
    bad = {place for place, part in case.meta.components.items() if part.mode is GenerationMode.NEGATIVE}
    if not bad & {ParameterLocation.QUERY, ParameterLocation.BODY}:
        skipped.append("negative_data_rejection")
    return list(CHECKS.get_by_names(skipped))
