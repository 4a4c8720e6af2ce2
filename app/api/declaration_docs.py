"""Every answer that the routes of declarations give, as the documentation tells it."""

from typing import Any

from flask_openapi3.types import ResponseDict

from app import declaration_schema
from app.api import declaration_bodies, declaration_examples, openapi, problems
from app.api.declaration_answers import NOT_JSON, PREFIX
from app.api.declaration_examples import REFERENCE
from app.api.openapi import Good

_PLACE = f"{PREFIX}/{REFERENCE}"
_ALWAYS = ("unauthorized", "forbidden", "feature-disabled", "internal-error")
_POSTED = (*_ALWAYS, "too-large", "idempotency-in-progress", "idempotency-mismatch")
_BAD_QUERY = {"pointer": "?include", "code": "enum", "detail": "Must be: data"}


def _refused(*kinds: str, instance: str) -> ResponseDict:
    return openapi.answers(refused=kinds, instance=instance, line="declarations")


def _good(*good: Good) -> ResponseDict:
    return openapi.answers(*good, refused=(), instance="")


def _of_query() -> ResponseDict:
    """400 for a query, which differs from that of a header in its example alone."""
    told = _refused("invalid-request", instance=_PLACE)
    value = problems.document(
        400, "invalid-parameter", "1 parameter is at fault.", [_BAD_QUERY], instance=_PLACE, correlation_id="d-7f6b2d1e"
    )
    told[400]["content"][problems.MEDIA_TYPE]["examples"]["invalid-parameter"] = {"value": value}  # type: ignore[index]
    return told


_LIABILITY = "/simpleDeclarationRequest/requestDetail/liabilityDetails"
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": declaration_bodies.payload(declaration_schema.PAYLOAD),
            "examples": {"declaration": {"value": declaration_examples.PAYLOAD}},
        }
    },
}
SUBMIT: ResponseDict = {
    **_good(
        Good(
            status=202,
            says="Stored; it waits for its payment.",
            model=declaration_bodies.AcceptedDeclaration,
            examples={"accepted": declaration_examples.ACCEPTED},
            headers=("Location",),
        ),
        Good(
            status=400,
            says="What is wrong with the body or a header: each fault as a text, and where it is.",
            model=declaration_bodies.DeclarationFaults,
            examples={
                "missing": {
                    "errors": ['object has missing required properties (["grandTotalGBP"])'],
                    "details": [{"pointer": _LIABILITY, "code": "missing"}],
                },
                "json": {"errors": [NOT_JSON.text], "details": [{"pointer": "", "code": "json"}]},
            },
        ),
    ),
    **_refused(*_POSTED, "unsupported-media-type", instance=f"{PREFIX}/submit"),
}
UPDATE: ResponseDict = {
    **_good(
        Good(
            status=200,
            says="Paid, waited for, and submitted or failed.",
            model=declaration_bodies.PassengerDeclaration,
            examples={"submitted": declaration_examples.SUBMITTED, "failed": declaration_examples.FAILED},
            headers=("Preference-Applied",),
        ),
        Good(status=202, says="Paid, now or before.", headers=("Location",)),
        Good(status=423, says="Somebody else works on it at this moment; nothing was done.", headers=("Retry-After",)),
    ),
    **_refused(*_POSTED, "invalid-request", "unavailable", instance=f"{PREFIX}/update/{REFERENCE}"),
}
for _status, _says in {404: "No such declaration: without a body.", 409: "Failed or expired: without a body."}.items():
    UPDATE[_status] = {**UPDATE[_status], "description": f"{_says} Else a problem."}  # type: ignore[dict-item]
SHOW: ResponseDict = {
    **_good(
        Good(
            status=200,
            says="The declaration as it is now.",
            model=declaration_bodies.PassengerDeclaration,
            examples={
                "unpaid": declaration_examples.UNPAID,
                "submitted": declaration_examples.SUBMITTED,
                "failed": declaration_examples.FAILED,
                "with-data": declaration_examples.WITH_DATA,
            },
        )
    ),
    **_refused(*_ALWAYS, "not-found", "unavailable", instance=_PLACE),
    **_of_query(),
}
