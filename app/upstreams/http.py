"""Calls to an upstream: breaker, limiter, clearance, the request itself, and the account of it.

A failure ends the verb by raising `outcomes.Failed`; what stops a call before its first byte passes through untouched.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import quote

import requests

from app import logs, metrics, steps
from app.upstreams import outcomes, wire
from app.upstreams.answers import NOTE_LENGTH, Answer, asked_wait, minute_used_up
from app.upstreams.breaker import Breaker
from app.upstreams.limits import Limiter
from app.upstreams.shared import Shared

T = TypeVar("T")
Perform = Callable[[requests.Session], object]
_ALONE = Shared(None)
_ACCEPTS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "throughline"}
_log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call. `template` is its path as the timeline shows it, to be filled in with `ids`.

    `effect` is None for a call that may be repeated freely, else the index told to `work.intend`. `read` bounds the
    exchange from the first byte sent to the last one received, `whole` all of it, resolving the name included.
    """

    call: str
    method: str
    template: str
    ids: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str | int] | None = None
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    effect: int | None = None
    connect: float = 10
    read: float = 30
    whole: float = math.inf

    @property
    def path(self) -> str:
        path = self.template.strip("/")
        for name, value in self.ids.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path

    @property
    def safe(self) -> bool:
        return self.effect is None


@dataclass(frozen=True, kw_only=True)
class _End:
    """How a call ended, for whoever counts."""

    word: str
    status: int | None
    milliseconds: int
    message: str = ""
    error_class: str | None = None

    @property
    def alarming(self) -> bool:
        """Whether it speaks for an upstream in trouble: no answer, a late one, or 5xx."""
        return self.word != "ok" and (self.status is None or self.status >= 500 or self.status == 408)


class Upstream:
    """One upstream of this process: connections, breaker and limiter. Safe to use from many threads."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        per_minute: int = 0,
        pool: int = 32,
        shared: Shared | None = None,
        reading: outcomes.Reading | None = None,
        dial: wire.Dial | None = None,
    ) -> None:
        self.name = name
        self._base = base_url.rstrip("/")
        self._dial = dial
        self._reading = reading or outcomes.Reading()
        self._breaker = Breaker(name, shared or _ALONE)
        self._limiter = Limiter(name, per_minute, shared or _ALONE)
        self.session = wire.session(pool, _ACCEPTS)

    def send(self, work: steps.Work, request: Request, understand: Callable[[Answer], T]) -> T:
        """Make the call and return what `understand` makes of its 2xx answer.

        Raises Failed, or what `work.intend`, `work.renew`, breaker or limiter raise: then nothing was sent.
        """
        prepared = self._prepare(work, request)

        def perform(session: requests.Session) -> None:
            session.send(prepared, timeout=(request.connect, request.read), allow_redirects=False)

        return self.carry(work, request, perform, understand)

    def carry(self, work: steps.Work, request: Request, perform: Perform, understand: Callable[[Answer], T]) -> T:
        """As `send`, for a request that somebody else's code makes: `perform` makes exactly one with the session."""
        self._breaker.check()
        self._limiter.pass_through(work)
        started = time.monotonic()
        flight = self._fly(work, request, perform)
        milliseconds = int((time.monotonic() - started) * 1000)
        try:
            value, status = self._conclude(request, flight, understand)
        except outcomes.Failed as failed:
            self._account(work, request, _failed_end(failed, milliseconds))
            raise
        self._account(work, request, _End(word="ok", status=status, milliseconds=milliseconds))
        return value

    def _fly(self, work: steps.Work, request: Request, perform: Perform) -> wire.Flight:
        def clear() -> None:
            if request.effect is None:
                work.renew()
            else:
                work.intend(request.effect)

        ends = time.monotonic() + request.whole
        flight = wire.Flight(clear=clear, read=request.read, ends=ends, dial=self._dial)
        try:
            with wire.flying(flight):
                perform(self.session)
        except Exception as error:
            if flight.stopped is None and flight.fault is None and flight.answer is None:
                raise
            if flight.stopped not in (None, error):
                raise flight.stopped from error
            if flight.stopped is not None:
                raise
        return flight

    def _conclude(self, request: Request, flight: wire.Flight, understand: Callable[[Answer], T]) -> tuple[T, int]:
        if flight.answer is None:
            raise outcomes.lost(flight, request.safe) from flight.fault
        answer = _answer(flight.answer)
        status = self._reading.status(answer)
        if status != answer.status:
            answer = Answer(status, answer.headers, answer.body)
        if status == 429:
            self._limiter.close(asked_wait(answer.headers))
        if not 200 <= status < 300:
            raise outcomes.refused(answer, self._reading, request.safe)
        if minute_used_up(answer.headers):
            self._limiter.close(asked_wait(answer.headers))
        try:
            return understand(answer), status
        except outcomes.NotUnderstood as error:
            raise outcomes.malformed(status, str(error), request.safe) from error

    def _account(self, work: steps.Work, request: Request, end: _End) -> None:
        if end.alarming:
            self._breaker.failed()
        elif end.status != 429:
            self._breaker.succeeded()
        metrics.upstream_calls.labels(self.name, request.call, end.word).inc()
        metrics.upstream_call_seconds.labels(self.name, request.call).observe(end.milliseconds / 1000)
        self._log(request, end)
        work.note(
            steps.Call(
                upstream=self.name,
                name=request.call,
                method=request.method,
                path=request.template,
                status=end.status,
                outcome=end.word,
                milliseconds=end.milliseconds,
                message=end.message[:NOTE_LENGTH],
            )
        )

    def _log(self, request: Request, end: _End) -> None:
        _log.log(
            logging.DEBUG if end.word == "ok" else logging.INFO,
            "upstream.call",
            upstream=self.name,
            call=request.call,
            outcome=end.word,
            http_status=end.status,
            seconds=end.milliseconds / 1000,
            error_class=end.error_class,
            **({"upstream_text": end.message} if self._reading.logged else {}),
        )

    def _prepare(self, work: steps.Work, request: Request) -> requests.PreparedRequest:
        headers = {"X-Correlation-ID": work.correlation_id, **request.headers}
        body: bytes | Mapping[str, str] | None = request.form
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(request.json, ensure_ascii=False, separators=(",", ":"), default=_number).encode()
        url = f"{self._base}/{request.path}"
        plain = requests.Request(request.method, url, headers=headers, params=request.query, data=body)
        return self.session.prepare_request(plain)


def _failed_end(failed: outcomes.Failed, milliseconds: int) -> _End:
    return _End(
        word=failed.word,
        status=failed.status,
        milliseconds=milliseconds,
        message=failed.message,
        error_class=type(failed.__cause__).__name__ if failed.__cause__ else None,
    )


def _answer(response: requests.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content, str(response.reason or ""))


def _number(value: object) -> float:
    """A decimal as JSON: the shortest number that reads back as the same, so without binary noise."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
