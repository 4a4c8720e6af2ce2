"""What passes over a connection: a request as it was received, and the answer or the dropped connection it ends in."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"
BODILESS = (204, 304)
REASONS = {status.value: status.phrase for status in HTTPStatus}


def header_pairs(head: bytes) -> list[tuple[str, str]]:
    """The headers of a raw head in the order and the spelling they were sent in."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines) if name]


class Request:
    """One request. `head` and `body` are the raw bytes; everything else is read out of them on demand."""

    __slots__ = ("_headers", "_json", "at", "body", "head", "is_old", "method", "path", "query")

    def __init__(self, head: bytes, body: bytes = b"") -> None:
        method, target, version = head.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
        self.method = method
        self.is_old = version == "HTTP/1.0"
        self.path, _, self.query = target.partition("?")
        self.head = head
        self.body = body
        self.at = time.time()
        self._headers = {name.lower(): value for name, value in header_pairs(head)}
        self._json: Any = self

    def header(self, name: str) -> str | None:
        """The value of a header, whatever the case of its name; None when absent."""
        return self._headers.get(name.lower())

    @property
    def correlation_id(self) -> str | None:
        return self._headers.get("x-correlation-id")

    @property
    def closes(self) -> bool:
        """True when the caller wants the connection closed after the answer."""
        asked = (self._headers.get("connection") or "").lower()
        return asked == "close" or (self.is_old and asked != "keep-alive")

    @property
    def arguments(self) -> dict[str, str]:
        """The query; the last of several values counts."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def json(self) -> Any:
        """The body as JSON, None for an empty body. Raises ValueError when it is not JSON."""
        if self._json is self:
            self._json = json.loads(self.body) if self.body else None
        return self._json

    def members(self) -> dict[str, Any]:
        """The body's members; empty when the body is not a JSON object."""
        try:
            found = self.json()
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Answer:
    """One answer. `first` runs after the effect, outside the lock, before the answer is written."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    first: Callable[[], None] | None = None

    def rendered(self, *, close: bool, without_body: bool = False) -> bytes:
        """Head and body as one piece, so that one write sends them."""
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Unknown')}"]
        if self.status not in BODILESS:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append("Connection: close\r\n\r\n" if close else "Connection: keep-alive\r\n\r\n")
        head = "\r\n".join(lines).encode("latin-1", "replace")
        return head if without_body or self.status in BODILESS else head + self.body


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection ends without an answer: closed in order (FIN), or torn down (RST) with `reset`."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes sent as they are, piece by piece, then the connection ends. `status` is what the log of calls shows."""

    status: int | str
    pieces: Iterator[bytes]


Reply = Answer | Drop | Stream


class Refusal(Exception):
    """Raised by a call that answers something other than success and has had no effect."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def json_answer(status: int, content: Any, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    return Answer(status, json.dumps(content).encode(), headers=tuple(headers))


def text_answer(status: int, text: str, content_type: str = TEXT_TYPE) -> Answer:
    return Answer(status, text.encode(), content_type)


def timestamp(at: float | None = None) -> str:
    """RFC 3339 UTC with milliseconds, of now unless told."""
    at = time.time() if at is None else at
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"
