"""Declarations in the description at /openapi.json, against the running API."""

import re
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from hypothesis import given
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.parameters import ParameterLocation

from app.api import waiting
from tests.api.declaration_factories import LINE, Passengers, put_into
from tests.api.test_description import AS_DESCRIBED, BOUNDED, operations

ALWAYS = "400 401 403 404 500"
OPERATIONS = {
    f"POST {LINE}/submit": f"202 {ALWAYS} 409 413 415 422",
    f"POST {LINE}/update/{{reference}}": f"200 202 {ALWAYS} 409 413 422 423 503",
    f"GET {LINE}/{{reference}}": f"200 {ALWAYS} 503",
}
WITHOUT_BODY = {"202", "423"}
_PARAMETER = re.compile("<(?:reference:)?reference>")


@pytest.fixture
def described(http) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json
    return found


def ours(document: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in operations(document, (LINE,)) if name in OPERATIONS}


def test_the_routes_and_their_statuses_are_those_of_the_contract(app: Flask, described) -> None:
    found = {name: " ".join(sorted(one["responses"])) for name, one in ours(described).items()}
    assert found == {name: " ".join(sorted(statuses.split())) for name, statuses in OPERATIONS.items()}
    served = {
        f"{method} {_PARAMETER.sub('{reference}', rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.endpoint.startswith("declarations.")
    }
    assert served == set(OPERATIONS)
    for one in ours(described).values():
        assert one["summary"]
        assert one["description"]
        assert one["operationId"]
        assert one["security"] == [{"key": []}]


def test_every_documented_answer_has_an_example_that_fits_its_schema(described) -> None:
    for name, operation in ours(described).items():
        for status, answer in operation["responses"].items():
            if "content" not in answer:
                assert ("update" in name, status in WITHOUT_BODY) == (True, True)
                continue
            ((media_type, content),) = answer["content"].items()
            assert content["examples"], (name, status)
            schema = {**content["schema"], "components": described["components"]}
            for title, example in content["examples"].items():
                jsonschema_rs.validate(schema, example["value"])
                if media_type == "application/problem+json":
                    assert example["value"]["type"] == f"/problems/{title}"
                    assert str(example["value"]["status"]) == status
                    assert "claim" not in example["value"]["detail"]


def test_the_body_has_an_example_that_the_api_takes(passengers: Passengers, described) -> None:
    found = ours(described)[f"POST {LINE}/submit"]["requestBody"]
    assert found["required"]
    (content,) = found["content"].values()
    for shown in content["examples"].values():
        jsonschema_rs.validate(content["schema"], shown["value"])
        assert passengers.submit(shown["value"]).status_code == 202


@pytest.fixture
def lively(passengers: Passengers, monkeypatch) -> list[str]:
    """Declarations in several states, and nobody who waits for long."""
    monkeypatch.setattr(waiting, "until", lambda *args, **rest: None)
    references = [passengers.made() for _ in range(4)]
    for reference, state in zip(references[1:], ("submitted", "failed", "expired"), strict=True):
        put_into(reference, state)
    return references


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_made_up_requests_are_answered_as_described(app, lively, passengers: Passengers, name, mode) -> None:
    """Good requests and bad ones, always the same; half of those about one declaration are about one that is there."""
    method, path = name.split()
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    schema.config.generation.update(allow_x00=False)  # refused everywhere, which no schema can say
    operation = schema[path][method]
    checks = CHECKS.get_by_names(AS_DESCRIBED)
    statuses: Counter[int] = Counter()

    @BOUNDED
    @given(case=operation.as_strategy(mode))
    def send(case: schemathesis.Case) -> None:
        if "{reference}" in path and statuses.total() % 2:
            case.path_parameters["reference"] = lively[statuses.total() // 2 % len(lively)]
        if mode is GenerationMode.POSITIVE and "Idempotency-Key" in (case.headers or {}):
            case.headers["Idempotency-Key"] = str(statuses.total())
        response = case.call(headers={"x-api-key": passengers.key})
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks, excluded_checks=_not_of(case, response))

    send()
    assert 30 <= statuses.total() <= 120, statuses
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] + statuses[202], statuses


def _not_of(case: schemathesis.Case, response: schemathesis.Response) -> list[schemathesis.CheckFunction]:
    """Checks that expect too much: of an answer without a body, of a good request whose fault no schema can say, and
    of one whose only fault is a key or a reference, which were put right above.
    """
    skipped = [] if response.content else ["content_type_conformance", "response_schema_conformance"]
    told = response.json() if response.status_code == 400 else {}
    if {fault["code"] for fault in told.get("details", [])} == {"format"}:
        skipped.append("positive_data_acceptance")
    bad = {place for place, part in case.meta.components.items() if part.mode is GenerationMode.NEGATIVE}
    if not bad & {ParameterLocation.QUERY, ParameterLocation.BODY}:
        skipped.append("negative_data_rejection")
    return list(CHECKS.get_by_names(skipped))
