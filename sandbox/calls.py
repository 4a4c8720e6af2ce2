"""The log of calls: every request received by an upstream, its exact body, how it was named and what became of it."""

import hashlib
import itertools
import json
import threading
import time
from collections import deque
from typing import Any

from sandbox.messages import Answer, Drop, Reply, Request, header_pairs, timestamp

MAX_CALLS = 100_000
MAX_BYTES = 256 * 1024 * 1024
MAX_ANSWER = 2048


class Record:
    """One call. `status` is None while it is under way, a number once answered, or `dropped` or `garbage`.

    Of a body answered at least the first MAX_ANSWER bytes are kept.
    """

    __slots__ = (
        "answer", "at", "body", "call", "correlation_id", "fault", "head", "number", "seconds", "status", "upstream",
    )  # fmt: skip

    def __init__(self, number: int, *, upstream: str, call: str | None, request: Request) -> None:
        self.number = number
        self.upstream = upstream
        self.call = call
        self.at = request.at
        self.head = request.head
        self.body = request.body
        self.correlation_id = request.correlation_id
        self.fault: str | None = None
        self.status: int | str | None = None
        self.answer = b""
        self.seconds: float | None = None

    def end(self, reply: Reply) -> None:
        self.seconds = round(time.time() - self.at, 6)
        self.status = "dropped" if isinstance(reply, Drop) else reply.status
        if isinstance(reply, Answer):
            self.answer = reply.body[:MAX_ANSWER]

    def shown(self) -> dict[str, Any]:
        request = Request(self.head)
        return {
            "number": self.number,
            "upstream": self.upstream,
            "call": self.call,
            "method": request.method,
            "path": request.path,
            "query": request.arguments,
            "headers": dict(header_pairs(self.head)),
            "body": _readable(self.body),
            "body_text": self.body.decode("utf-8", "replace"),
            "body_sha256": hashlib.sha256(self.body).hexdigest(),
            "correlation_id": self.correlation_id,
            "at": timestamp(self.at),
            "seconds": self.seconds,
            "status": self.status,
            "answer": _readable(self.answer),
            "fault": self.fault,
        }


def _readable(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


class Calls:
    """The last calls: at most MAX_CALLS, and at most MAX_BYTES of bodies; the oldest go first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._numbers = itertools.count(1)

    def begin(self, *, upstream: str, call: str | None, request: Request) -> Record:
        """Keeps the call as received; `Record.end` tells what became of it."""
        record = Record(next(self._numbers), upstream=upstream, call=call, request=request)
        with self._lock:
            self._records.append(record)
            self._bytes += len(request.body)
            while len(self._records) > MAX_CALLS or self._bytes > MAX_BYTES:
                self._bytes -= len(self._records.popleft().body)
        return record

    def shown(self, *, limit: int | None = None, after: int = 0, **wanted: str) -> list[dict[str, Any]]:
        """Calls in the order received, numbered above `after`, equal in `upstream`, `call` or `correlation_id`.

        With `limit` only the last so many.
        """
        with self._lock:
            records = list(self._records)
        found = [one for one in records if one.number > after and _fits(one, wanted)]
        return [one.shown() for one in (found if limit is None else found[max(0, len(found) - limit) :])]

    def clear(self) -> None:
        with self._lock:
            self._records.clear()
            self._bytes = 0


def _fits(record: Record, wanted: dict[str, str]) -> bool:
    seen = {"upstream": record.upstream, "call": record.call, "correlation_id": record.correlation_id}
    return all(seen[name] == value for name, value in wanted.items())
