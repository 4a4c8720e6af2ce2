"""Reading a body: how long it may be, which type it says it has, and strict JSON.

Refused as malformed: what is no JSON, bad UTF-8, `NaN`, a key twice in one object, U+0000, a lone surrogate, and
nesting deeper than 64. Numbers keep the digits that were typed.
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from flask import Request as FlaskRequest
from flask import request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from app import errors
from app.api import auth
from app.numerals import Whole

DEEPEST = 64
_LONGEST_NUMBER = 1_000
_JSON_TYPE = re.compile(r"application/(?:json|[\w.!#$&^-]+\+json)", re.IGNORECASE | re.ASCII)
_UNPRINTABLE = re.compile("[\x00\ud800-\udfff]")


class Request(FlaskRequest):
    """A request whose JSON is what `check_json` has read."""

    document: Any = None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:  # noqa: ARG002
        return self.document


def _takes_body() -> bool:
    return request.method in {"POST", "PUT", "PATCH"}


def _reads_body() -> bool:
    return _takes_body() and auth.access().body != "unread"


def check_size() -> None:
    """413 for a body that is too long, as soon as that is known. Of a chunked one, one byte too many is read."""
    most = auth.access().most_bytes
    request.max_content_length = most + 1  # a body of unknown length is silently cut off there, not refused
    try:
        size = len(request.get_data()) if _takes_body() else 0
    except RequestEntityTooLarge:
        size = most + 1
    except (OSError, EOFError, ParseException) as error:
        raise errors.Refused(400, "malformed-json", "The body did not arrive whole.") from error
    if _takes_body() and size < min(request.content_length or 0, most):
        raise errors.Refused(400, "malformed-json", "The body did not arrive whole.")
    if size > most:
        raise errors.Refused(413, "too-large", f"A body may have {most} bytes here.")


def check_type() -> None:
    """415 for another type than JSON, and for a body that is packed."""
    if not _reads_body():
        return
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if content_type and not _JSON_TYPE.fullmatch(content_type):
        raise errors.Refused(415, "unsupported-media-type", "Send application/json.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise errors.Refused(415, "unsupported-media-type", "Send the body without Content-Encoding.")


def check_json() -> None:
    """400 for a body that cannot be read, 422 for one that is no object where it must be one."""
    if not _reads_body():
        return
    wanted, body = auth.access().body, request.get_data()
    try:
        request.document = {} if wanted == "bare" and not body else parse(body)  # type: ignore[attr-defined]
    except (ValueError, RecursionError) as error:
        raise errors.Refused(400, "malformed-json", f"The body cannot be read as JSON: {_reason(error)}.") from error
    if wanted != "any" and not isinstance(request.get_json(), dict):
        fault = {"pointer": "", "code": "type", "detail": "Must be an object."}
        raise errors.Refused(422, "validation-failed", "1 field is at fault.", faults=[fault])


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested deeper than {DEEPEST}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:]} (character {error.pos})"
    return str(error)


def parse(body: bytes) -> Any:
    """The value that the bytes stand for, its numbers as Decimal (or Whole). Raises ValueError or RecursionError."""
    document = json.loads(
        body.decode(),
        object_pairs_hook=_object,
        parse_constant=_no_constant,
        parse_float=_number,
        parse_int=lambda text: Whole(_number(text)),
    )
    _check_depth_and_text(document)
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _number(text: str) -> Decimal:
    """Exact; beyond all measure where no exact number can be made of it."""
    try:
        if len(text) <= _LONGEST_NUMBER:
            return Decimal(text)
    except InvalidOperation:
        pass
    return Decimal("-Infinity" if text.startswith("-") else "Infinity")


def _check_depth_and_text(document: Any) -> None:
    level, depth = [document], 0
    while level:
        if any(isinstance(value, str) and _UNPRINTABLE.search(value) for value in level):
            raise ValueError("U+0000 and lone surrogates are not taken")
        level = [value for value in level if isinstance(value, dict | list)]
        depth += bool(level)
        if depth > DEEPEST:
            raise RecursionError
        level = [inner for value in level for inner in _inside(value)]


def _inside(value: dict[str, Any] | list[Any]) -> Sequence[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, dict) else value
