"""Callers: claims and other requests over HTTP, from several threads, each with a connection that stays open."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from local.sample import CIGARS

THREADS = 16
DECLARATIONS = "/bc-passengers-declarations"
_TIMEOUT = 40.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, and the status that it must be answered with, or the other one that will do."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    status: int
    or_status: int = 0


class WrongAnswer(RuntimeError):
    """A request was answered with another status than expected; the text holds the answer."""


@dataclass(frozen=True)
class Ran:
    """How requests fared: from the first one's start to the last one's end, and each by itself, in seconds."""

    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def claim(number: int, key: str, *, wait: int | None = None) -> Request:
    """The claim of visit `number`: a veteran and a minute of its own. With `wait`, it is to be final when answered."""
    body = {
        "icn": f"{1_000_000_000 + number}V{number:06}",
        "appointment": {"dateTime": f"2026-03-02T{number // 60 % 24:02}:{number % 60:02}:00", "stationNumber": "983"},
        "phone": f"+1202555{number:04}",
    }
    headers = {"x-api-key": key, "Content-Type": "application/json", "X-Correlation-ID": f"bench-{number}"}
    if wait is not None:
        headers["Prefer"] = f"wait={wait}"
    return Request(
        method="POST",
        path="/travel-claims",
        headers=headers,
        body=json.dumps(body).encode(),
        status=201 if wait else 202,
    )


def declaration(number: int, key: str) -> Request:
    """A declaration as a traveller submits it."""
    headers = {"x-api-key": key, "Content-Type": "application/json", "X-Correlation-ID": f"declared-{number}"}
    body = json.dumps(CIGARS).encode()
    return Request(method="POST", path=f"{DECLARATIONS}/submit", headers=headers, body=body, status=202)


def payment(reference: str, key: str) -> Request:
    """The notice that a declaration is paid."""
    path = f"{DECLARATIONS}/update/{reference}"
    return Request(method="POST", path=path, headers={"x-api-key": key}, body=None, status=202)


def health() -> Request:
    """The cheapest request there is: what HTTP itself costs."""
    return Request(method="GET", path="/healthz", headers={}, body=None, status=200)


def run(port: int, requests: Iterable[Request], *, threads: int = THREADS, tick: Callable[[], None]) -> Ran:
    """Make all the requests, `threads` at a time; `tick` after each. Raises WrongAnswer, or what went wrong else."""
    waiting, lock = iter(requests), threading.Lock()
    latencies: list[float] = []
    faults: list[BaseException] = []

    def caller() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        try:
            while not faults:
                with lock:
                    request = next(waiting, None)
                if request is None:
                    return
                latencies.append(_timed(connection, request))
                tick()
        except BaseException as fault:  # noqa: BLE001 - told by the caller's caller
            faults.append(fault)
        finally:
            connection.close()

    callers = [threading.Thread(target=caller) for _ in range(threads)]
    begun = time.monotonic()
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    if faults:
        raise faults[0]
    return Ran(time.monotonic() - begun, latencies)


def _timed(connection: http.client.HTTPConnection, request: Request) -> float:
    begun = time.monotonic()
    connection.request(request.method, request.path, request.body, dict(request.headers))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status not in (request.status, request.or_status):
        raise WrongAnswer(f"{request.method} {request.path} was answered {answer.status}: {text[:500]!r}")
    return time.monotonic() - begun
