"""How the voucher routes answer: bodies of their own, errors as `{"message"}`, and their headers.

Source: vouchers contract, 2.1 and 2.3.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from flask import Response, g, request

from app import config, errors, vouchers
from app.api import problems
from app.flows.voucher_record import Answer

RETRY_AFTER = "2"
_UNDECODABLE = "Failed to decode request body: "
_FIXED: Mapping[int, str] = {401: "Unauthorized", 403: "Forbidden", 405: "Method not allowed"}
_OFF = "Digital vouchers are switched off"
_NO_OBJECT = "the body must be a JSON object"


def prefix() -> str:
    """Where the paths of the line start."""
    return f"/{config.settings().stage}/digital-voucher"


def operation_path(operation_id: UUID) -> str:
    return f"{prefix()}/operations/{operation_id}"


# Refusals


def as_message(refused: errors.Refused) -> Response:
    """A refusal in the words of routes 1 to 10. What is no object is told like all else that cannot be read."""
    if refused.kind == "validation-failed":
        return _message(400, _UNDECODABLE + _NO_OBJECT, refused.headers)
    return _message(refused.status, _words(refused), refused.headers)


def _words(refused: errors.Refused) -> str:
    if refused.kind == "malformed-json":
        return _UNDECODABLE + refused.detail
    if refused.kind == "feature-disabled":
        return _OFF
    if refused.status == 404 and "access" not in g:
        return "Not found"
    return _FIXED.get(refused.status, refused.detail)


def outside(refused: errors.Refused) -> Response:
    """A path under the prefix that is no route, or not with this method: routes 11 and 12 speak in problems."""
    rest = request.path.removeprefix(prefix())
    new = re.fullmatch(r"/operations/[^/]+|/[^/]+/operations", rest)
    return problems.as_problem(refused) if new else as_message(refused)


def _message(status: int, text: str, headers: Mapping[str, str]) -> Response:
    return json_answer({"message": text}, status, headers)


# Answers


def json_answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(document, ensure_ascii=False)
    return Response(body, status, headers, content_type="application/json")


def final(answer: Answer) -> Response:
    """What is answered once and for all; of the operation that it concerns, if it concerns one."""
    response = json_answer(answer.body, answer.status)
    if answer.operation_id is not None:
        of_operation(response, answer.operation_id)
    for name, value in (("Age", answer.age), ("Retry-After", answer.retry_after)):
        if value is not None:
            response.headers[name] = str(value)
    return response


def unfinished(operation_id: UUID, state: str) -> Response:
    """202: the operation goes on."""
    body: dict[str, Any] = {"message": vouchers.NOT_FINISHED, "operationId": str(operation_id), "state": state}
    response = json_answer(body, 202, {"Location": operation_path(operation_id), "Retry-After": RETRY_AFTER})
    return of_operation(response, operation_id)


def of_operation(response: Response, operation_id: UUID) -> Response:
    """The same, with the link to the operation that it concerns."""
    response.headers["Link"] = f'<{operation_path(operation_id)}>; rel="status"'
    structlog.contextvars.bind_contextvars(operation_id=str(operation_id))
    return response
