"""Everything that goes wrong becomes `application/problem+json`; no answer shows how we are built."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask, Response, g, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException

from app import db, errors, expenses, fields, logs
from app.api import headers
from app.api.auth import Voice

_AWAY = {"Retry-After": "5"}

MEDIA_TYPE = "application/problem+json"
_TITLES: Mapping[str, str] = {
    "client-not-set-up": "The client is not set up",
    "data-erased": "The claim's data are erased",
    "feature-disabled": "This line is switched off",
    "forbidden": "Not allowed",
    "idempotency-in-progress": "The request is still being accepted",
    "idempotency-mismatch": "The idempotency key belongs to another request",
    "internal-error": "Something went wrong here",
    "invalid-parameter": "The query is not valid",
    "invalid-request": "The request is not valid",
    "malformed-json": "The body is not valid JSON",
    "method-not-allowed": "The method is not allowed here",
    "not-cancellable": "The claim cannot be cancelled",
    "not-found": "There is nothing here",
    "not-retryable": "The claim cannot be retried",
    "superseded": "The visit has a newer claim",
    "too-large": "The body is too long",
    "unauthorized": "The key is missing or unknown",
    "unavailable": "Not available at the moment",
    "unsupported-media-type": "The media type is not supported",
    "validation-failed": "The request is not valid",
}
_KINDS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported-media-type"}
log = logs.get("api")


class Fault(BaseModel):
    """One field at fault. `pointer` is a JSON pointer into the body, `?name` or `header:Name`."""

    model_config = ConfigDict(json_schema_extra=fields.untitled)

    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457, with the request's correlation id and the fields at fault."""

    model_config = ConfigDict(json_schema_extra=fields.untitled)

    type: str = Field(examples=["/problems/validation-failed"])
    title: str
    status: int
    detail: str
    instance: str
    correlation_id: str = Field(alias="correlationId")
    errors: list[Fault] = Field(default=[])


_VOICES: dict[str, Voice] = {}


def install(app: Flask) -> None:
    """Answer every error of `app`, in the words of the route's contract."""
    app.register_error_handler(errors.Refused, answer)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def speak_under(prefix: str, voice: Voice) -> None:
    """Paths below the prefix that are no route, or not with this method, are refused with this voice."""
    _VOICES[prefix] = voice


def answer(refused: errors.Refused) -> Response:
    """What a refused request is answered with: a problem, where its route has no words of its own."""
    asked = g.get("access")
    if asked is not None:
        return (asked.voice or as_problem)(refused)
    voices = (voice for prefix, voice in _VOICES.items() if request.path.startswith(prefix))
    return next(voices, as_problem)(refused)


def as_problem(refused: errors.Refused) -> Response:
    """The problem that a refused request is answered with."""
    return problem(refused.status, refused.kind, refused.detail, faults=refused.faults, extra_headers=refused.headers)


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    faults: Sequence[Mapping[str, str]] = (),
    extra_headers: Mapping[str, str] | None = None,
) -> Response:
    body = document(status, kind, detail, faults, instance=request.path, correlation_id=headers.correlation_id())
    return Response(json.dumps(body), status, extra_headers, content_type=MEDIA_TYPE)


def document(
    status: int, kind: str, detail: str, faults: Sequence[Mapping[str, str]], *, instance: str, correlation_id: str
) -> dict[str, Any]:
    """A problem as JSON shows it."""
    body = {
        "type": f"/problems/{kind}",
        "title": _TITLES.get(kind, kind.replace("-", " ").capitalize()),
        "status": status,
        "detail": detail,
        "instance": instance,
        "correlationId": correlation_id,
    }
    return body | ({"errors": list(faults)} if faults else {})


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    sent = error.get_headers(request.environ)
    kept = {name: value for name, value in sent if name in {"Allow", "Retry-After"}}
    kind = _KINDS.get(status, "invalid-request" if status < 500 else "internal-error")
    return answer(errors.Refused(status, kind, _TITLES[kind] + ".", headers=kept))


def _unexpected(error: Exception) -> Response:
    if db.unreachable(error):
        log.warning("http.database-away", error_class=type(error).__name__)
        return answer(errors.Refused(503, "unavailable", "Try again in a few seconds.", headers=_AWAY))
    log.error("http.failed", exc_info=error)
    return answer(errors.Refused(500, "internal-error", "The error is logged under the correlation id."))


def refuse_body(error: ValidationError) -> Response:
    """Refuse a body with all its faults. Always raises."""
    count, told = error.error_count(), fields.faults(error, tags=tuple(expenses.TYPES))[: fields.MOST_FAULTS]
    detail = at_fault(count, "field")
    if count > len(told):
        detail += f" The first {len(told)} are listed."
    raise errors.Refused(422, "validation-failed", detail, faults=told)


def at_fault(count: int, what: str) -> str:
    """How many are at fault, as a sentence."""
    return f"1 {what} is at fault." if count == 1 else f"{count} {what}s are at fault."
