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
from app.upstreams.answers import NOTE_LENGTH, Answer
from app.upstreams.breaker import Breaker, Rule, State
from app.upstreams.limits import Limiter
from app.upstreams.shared import Shared
from app.upstreams.slots import Slots

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
    body: bytes | None = field(default=None, repr=False)
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
class Options:
    """What few upstreams need. 0 sets no limit.

    `per_second`: calls per second instead of per minute. `in_flight`: calls on their way at once, each over after
    `lease` seconds at most. `rule`: the breaker's; `breaker_shown` is told its state. `observe` is told of every call
    made. `dial` connects instead of the library. `authorities`: a file or folder of certificates.
    """

    per_second: int = 0
    in_flight: int = 0
    lease: float = 0.0
    rule: Rule | None = None
    breaker_shown: Callable[[State], None] | None = None
    observe: Callable[[steps.Call], None] | None = None
    dial: wire.Dial | None = None
    authorities: str = ""


@dataclass(frozen=True)
class Pace:
    """What an upstream takes of what nobody waits for: so many `calls` soon, and so many workflows under way `at_once`.

    `probing`: its breaker is open.
    """

    calls: float = math.inf
    at_once: float = math.inf
    probing: bool = False


class Upstream:
    """One upstream of this process: connections, breaker, limiter and slots. Safe to use from many threads."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        per_minute: int = 0,
        pool: int = 32,
        shared: Shared | None = None,
        reading: outcomes.Reading | None = None,
        options: Options | None = None,
    ) -> None:
        shared, options = shared or _ALONE, options or Options()
        self.name = name
        self._base = base_url.rstrip("/")
        self._dial, self._observe = options.dial, options.observe
        self._reading = reading or outcomes.Reading()
        self._breaker = Breaker(name, shared, options.rule, options.breaker_shown)
        self._limiter = Limiter(name, per_minute, shared, per_second=options.per_second)
        self._in_flight = options.in_flight
        self._slots = Slots(name, options.in_flight, options.lease, shared)
        self.session = wire.session(pool, _ACCEPTS, options.authorities)

    def open_for(self) -> float:
        """Seconds for which the breaker lets no call through; 0 when one may be made."""
        return self._breaker.open_for()

    def pace(self) -> Pace:
        """What breaker, limiter and slots would let through."""
        let_through = self._breaker.calls()
        if let_through < math.inf:
            return Pace(let_through, probing=True)
        return Pace(self._limiter.calls(), 2 * self._in_flight or math.inf)

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
        ticket = self._breaker.check()
        try:
            with self._slots.taken(work):
                self._limiter.pass_through(work)
                started = time.monotonic()
                flight = self._fly(work, request, perform)
                milliseconds = int((time.monotonic() - started) * 1000)
            try:
                value, status = self._conclude(request, flight, understand)
            except outcomes.Failed as failed:
                self._account(work, self._called(request, milliseconds, failed.status, failed), failed, ticket)
                raise
            self._account(work, self._called(request, milliseconds, status), None, ticket)
            return value
        finally:
            self._breaker.let_go(ticket)

    def _fly(self, work: steps.Work, request: Request, perform: Perform) -> wire.Flight:
        def clear() -> None:
            if request.effect is None:
                work.renew()
            else:
                work.intend(request.effect)

        ends = time.monotonic() + request.whole
        most, part = self._reading.most, self._reading.part
        flight = wire.Flight(clear=clear, read=request.read, ends=ends, dial=self._dial, most=most, part=part)
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
            raise self._reading.lost(flight, request.safe) from flight.fault
        answer = _answer(flight.answer)
        status = self._reading.status(answer)
        if status != answer.status:
            answer = Answer(status, answer.headers, answer.body)
        if (pause := self._reading.pause(answer)) > 0:
            self._limiter.close(pause)
        if not 200 <= status < 300:
            raise outcomes.refused(answer, self._reading, request.safe)
        try:
            return understand(answer), status
        except outcomes.NotUnderstood as error:
            raise outcomes.malformed(status, str(error), request.safe) from error

    def _called(
        self, request: Request, milliseconds: int, status: int | None, failed: outcomes.Failed | None = None
    ) -> steps.Call:
        return steps.Call(
            upstream=self.name,
            name=request.call,
            method=request.method,
            path=request.template,
            status=status,
            outcome=failed.word if failed else "ok",
            milliseconds=milliseconds,
            message=failed.message[:NOTE_LENGTH] if failed else "",
            code=failed.reason if failed else "",
        )

    def _account(self, work: steps.Work, call: steps.Call, failed: outcomes.Failed | None, ticket: str) -> None:
        if failed and call.status != 429 and self._reading.in_trouble(failed):
            self._breaker.failed(ticket)
        elif call.status != 429:
            self._breaker.succeeded()
        metrics.upstream_calls.labels(self.name, call.name, call.outcome).inc()
        metrics.upstream_call_seconds.labels(self.name, call.name).observe(call.milliseconds / 1000)
        if self._observe:
            self._observe(call)
        self._log(call, failed)
        work.note(call)

    def _log(self, call: steps.Call, failed: outcomes.Failed | None) -> None:
        _log.log(
            logging.INFO if failed else logging.DEBUG,
            "upstream.call",
            upstream=self.name,
            call=call.name,
            outcome=call.outcome,
            http_status=call.status,
            seconds=call.milliseconds / 1000,
            error_class=type(failed.__cause__).__name__ if failed and failed.__cause__ else None,
            **({"upstream_text": call.message} if self._reading.logged else {}),
        )

    def _prepare(self, work: steps.Work, request: Request) -> requests.PreparedRequest:
        headers = {"X-Correlation-ID": work.correlation_id, **request.headers}
        body: bytes | Mapping[str, str] | None = request.form or request.body
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(request.json, ensure_ascii=False, separators=(",", ":"), default=_number).encode()
        url = f"{self._base}/{request.path}"
        plain = requests.Request(request.method, url, headers=headers, params=request.query, data=body)
        return self.session.prepare_request(plain)


def _answer(response: requests.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content, str(response.reason or ""))


def _number(value: object) -> float:
    """A decimal as JSON: the shortest number that reads back as the same, so without binary noise."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
