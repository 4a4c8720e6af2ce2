"""What an upstream answered: its body, its own words about an error, and how long it asks us to wait."""

import functools
import http
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from app import clock, logs

_WAIT, _LONGEST_WAIT = 60.0, 3600.0
NOTE_LENGTH, SHOWN_LENGTH = 2000, 200


@dataclass(frozen=True)
class Answer:
    """A complete answer. `headers` ignore case; `json` is None where the body is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    reason: str = ""

    @functools.cached_property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @functools.cached_property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def said(answer: Answer) -> tuple[str, str]:
    """The upstream's sentence about an error, scrubbed and at most 2,000 characters long, and its error code.

    Five kinds of bodies (contract 4.5): the envelope, the envelope with sentences in `data`, OAuth, a nested error
    (also within a list), and text or nothing.
    """
    document = answer.json
    message, code = _of_object(document) if isinstance(document, dict) else ("", "")
    if not message and not isinstance(document, dict | list):
        message = " ".join((document if isinstance(document, str) else answer.text).split())
    message = message or answer.reason or phrase(answer.status)
    return logs.scrub(message)[:NOTE_LENGTH], code


def _of_object(document: Mapping[str, Any]) -> tuple[str, str]:
    nested = list(_nested(document))
    code = next((str(one[key]) for one in nested for key in ("code", "error") if isinstance(one.get(key), str)), "")
    sentences = _sentences(document.get("data"))
    message = _text(document.get("message"))
    if message or sentences:
        return ": ".join(filter(None, (message, "; ".join(sentences)))), code
    description = _text(document.get("error_description"))
    return description or next(filter(None, (_text(one.get("message")) for one in nested)), ""), code


def _nested(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    errors = document.get("errors")
    for one in [document, *(errors if isinstance(errors, list) else [])]:
        if not isinstance(one, dict):
            continue
        if isinstance(one.get("error"), dict):
            yield one["error"]
        if one is not document or isinstance(one.get("error"), str) or isinstance(one.get("code"), str):
            yield one


def _sentences(data: Any) -> list[str]:
    return [one.strip() for one in data if isinstance(one, str) and one.strip()] if isinstance(data, list) else []


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def phrase(status: int) -> str:
    """The name of a status, in the words of HTTP."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds to wait: the larger of Retry-After and Ratelimit-Reset, else 60, at most an hour."""
    told = [_seconds(headers.get(name)) for name in ("Retry-After", "Ratelimit-Reset")]
    return min(max((wait for wait in told if wait and wait > 0), default=_WAIT), _LONGEST_WAIT)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After, at most an hour, 0 for what is past; None where it is absent or cannot be read."""
    told = _seconds(headers.get("Retry-After"))
    return None if told is None else min(max(told, 0.0), _LONGEST_WAIT)


def minute_used_up(headers: Mapping[str, str]) -> bool:
    """Whether this answer says that the present minute has no call left."""
    return (headers.get("X-Ratelimit-Remaining-Minute") or "").strip() == "0"


def _seconds(value: str | None) -> float | None:
    """A number of seconds or an HTTP date, as seconds from now; None when it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - clock.now()).total_seconds()
    return seconds if math.isfinite(seconds) else None
