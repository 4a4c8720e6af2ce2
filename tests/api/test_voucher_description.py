"""Vouchers in the description at /openapi.json, against the running API."""

import re
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from hypothesis import given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.parameters import ParameterLocation

from app.api import waiting
from tests.api.test_description import AS_DESCRIBED, BOUNDED, operations

LINE = "/DEV/digital-voucher"
SUB = "a2F5I000003KvWxUAK"
_CHANGE = "202 400 401 403 404 409 413 415 422 500 502 503 504"
_READ = "200 400 401 403 404 422 500 502 503"
OPERATIONS = {
    f"GET {LINE}/{{id}}": _READ,
    f"PUT {LINE}/create/{{id}}": f"201 {_CHANGE}",
    f"PUT {LINE}/{{id}}": f"201 {_CHANGE}",
    f"DELETE {LINE}/{{id}}": "200 202 400 401 403 404 409 422 500 502 503 504",
    f"POST {LINE}/replace": f"200 {_CHANGE}",
    f"POST {LINE}/cancel": f"200 {_CHANGE}",
    f"PUT {LINE}/suspend": f"200 {_CHANGE}",
    f"GET {LINE}/redemption-history/{{id}}": _READ,
    f"GET {LINE}/operations/{{id}}": "200 400 401 403 404 500 503",
    f"GET {LINE}/{{id}}/operations": "200 400 401 403 404 422 500 503",
}


@pytest.fixture
def described(http) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json
    return found


def ours(document: dict[str, Any]) -> dict[str, Any]:
    return dict(operations(document, (LINE,)))


def test_the_routes_and_their_statuses_are_those_of_the_contract(app: Flask, described) -> None:
    found = {name: " ".join(sorted(one["responses"])) for name, one in ours(described).items()}
    assert found == {name: " ".join(sorted(statuses.split())) for name, statuses in OPERATIONS.items()}
    served = {
        f"{method} {re.sub('<(?:subscription:)?id>', '{id}', rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.rule.startswith(LINE) and ".no_" not in rule.endpoint
    }
    assert served == set(OPERATIONS)
    for one in ours(described).values():
        assert one["summary"]
        assert one["description"]
        assert one["operationId"]
        assert one["security"] == [{"key": []}]


def test_every_documented_answer_has_an_example_that_fits_its_schema(described) -> None:
    for name, operation in ours(described).items():
        problems = "/operations" in name
        for status, answer in operation["responses"].items():
            ((media_type, content),) = answer["content"].items()
            refused = int(status) >= 400
            assert media_type == ("application/problem+json" if problems and refused else "application/json")
            assert content["examples"], (name, status)
            schema = {**content["schema"], "components": described["components"]}
            for example in content["examples"].values():
                jsonschema_rs.validate(schema, example["value"])
                assert not refused or problems or list(example["value"]) == ["message"]


def test_every_body_has_an_example_that_the_api_takes(ask, described, dispatched) -> None:
    for name, operation in ours(described).items():
        for content in operation.get("requestBody", {"content": {}})["content"].values():
            assert operation["requestBody"]["required"]
            for shown in content["examples"].values():
                jsonschema_rs.validate({**content["schema"], "components": described["components"]}, shown["value"])
                method, path = name.replace("{id}", SUB).split()
                answer = ask(method, path.removeprefix(LINE), shown["value"], prefer="wait=0")
                unknown_codes = "cardCode" in shown["value"]
                assert answer.status_code == (404 if unknown_codes else 202), (name, answer.text)


@pytest.fixture
def lively(ask, imovo, set_settings, monkeypatch, dispatched) -> list[str]:
    """Vouchers at i-Movo, operations that nobody carries out, and nobody who waits for long."""
    set_settings(IMOVO_RATE_PER_SECOND=1000)
    monkeypatch.setattr(waiting, "until", lambda *args, **rest: None)
    for live in ("live-1", "live-2"):
        imovo.upstreams["imovo"].plant(live, scheme="Guardian7Day", codes={"card": None, "letter": None}, holidays=[])
    return [ask("PUT", f"/new-{at}", {"ratePlanName": "Sunday"}).json["operationId"] for at in range(2)]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_made_up_requests_are_answered_as_described(app, lively, salesforce, name, mode) -> None:
    """Good requests and bad ones, always the same; half of those with an id are about what is there."""
    method, path = name.split()
    known = lively if "/operations/{id}" in path else ["live-1", "new-0", "live-2", "new-1"]
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    schema.config.generation.update(allow_x00=False)  # refused everywhere, which no schema can say
    operation = schema[path][method]
    checks = CHECKS.get_by_names([name for name in AS_DESCRIBED if name != "positive_data_acceptance"])
    statuses: Counter[int] = Counter()

    @settings(BOUNDED, max_examples=16)
    @given(case=operation.as_strategy(mode))
    def send(case: schemathesis.Case) -> None:
        if "{id}" in path and statuses.total() % 2:
            case.path_parameters["id"] = known[statuses.total() // 2 % len(known)]
        if mode is GenerationMode.POSITIVE and "Idempotency-Key" in (case.headers or {}):
            case.headers["Idempotency-Key"] = str(statuses.total())
        response = case.call(headers={"x-api-key": salesforce})
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks, excluded_checks=_not_of(case, response))

    send()
    assert 12 <= statuses.total() <= 48, statuses
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] + statuses[202], statuses


def _not_of(case: schemathesis.Case, response: schemathesis.Response) -> list[schemathesis.CheckFunction]:
    """Checks that expect too much: of a request whose body is sound, for its key and id were put right above and
    unknown parameters are ignored, and of a strict caller, whose 503 is a promise kept.
    """
    bad = {place for place, part in case.meta.components.items() if part.mode is GenerationMode.NEGATIVE}
    skipped = [] if ParameterLocation.BODY in bad else ["negative_data_rejection"]
    return list(CHECKS.get_by_names([*skipped, *(["not_a_server_error"] if response.status_code == 503 else [])]))
