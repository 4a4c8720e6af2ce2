"""How the routes of declarations answer: in the words of the contract where it has its own, else with a problem.

Source: declarations contract, 2.1 and 2.2.
"""

import json
from collections.abc import Sequence
from typing import Any

import structlog
from flask import Response

from app import errors, metrics
from app.api import problems
from app.declaration_faults import Fault

PREFIX = "/bc-passengers-declarations"
MOST_FAULTS = 100
NOT_JSON = Fault("", "json", "request body is not valid JSON")
_HEADERS = {
    "header:X-Correlation-ID": "X-Correlation-ID must be 1 to 64 characters of A-Z a-z 0-9 . _ -",
    "header:Idempotency-Key": "Idempotency-Key must be 1 to 255 visible ASCII characters",
}


def path_of(reference: str) -> str:
    return f"{PREFIX}/{reference}"


def name(reference: str) -> None:
    """Let the records of this request say which declaration it is about; only of one that the caller may see."""
    structlog.contextvars.bind_contextvars(chargeReference=reference)


def json_answer(document: object, status: int) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), status, content_type="application/json")


def empty(status: int) -> Response:
    """Without a body, and so without a type; its length is sent as 0."""
    return untyped(Response(status=status))


def untyped(response: Response) -> Response:
    """What has no body has no type."""
    if not response.get_data():
        response.headers.pop("Content-Type", None)
    return response


def not_found() -> errors.Refused:
    return errors.Refused(404, "not-found", "There is no such declaration.")


def speak_of_submissions(refused: errors.Refused) -> Response:
    """The voice of routes that take a payload: 400 as a list of faults, 500 where Postgres cannot be reached."""
    if refused.status == 400:
        return faulty([_fault_of(refused)])
    if refused.status == 503:
        return problems.problem(500, "internal-error", refused.detail, extra_headers=refused.headers)
    return problems.as_problem(refused)


def _fault_of(refused: errors.Refused) -> Fault:
    """What a check has found before the payload was looked at."""
    headers = [fault["pointer"] for fault in refused.faults if fault["pointer"] in _HEADERS]
    return Fault("", "header", _HEADERS[headers[0]]) if headers else NOT_JSON


def faulty(faults: Sequence[Fault]) -> Response:
    """400 with the first faults, counted."""
    told = faults[:MOST_FAULTS]
    for fault in told:
        metrics.declarations_refused.labels(fault.code).inc()
    document: dict[str, Any] = {
        "errors": [fault.text for fault in told],
        "details": [{"pointer": fault.pointer, "code": fault.code} for fault in told],
    }
    return json_answer(document | ({"truncated": True} if len(faults) > MOST_FAULTS else {}), 400)
