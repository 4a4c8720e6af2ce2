"""Sessions whose requests tell how far they got.

Whether a failed call may have had an effect depends on one fact: did a byte of it leave this process. The exceptions of
requests and urllib3 do not tell (a refused connection and one that broke later look alike), so the connection itself
notes it in the `Flight` of the call. The connection also asks for clearance directly before the first byte (after
connecting, so no slow connect comes in between) and bounds the whole exchange, not only each read.
"""

import contextvars
import http.client
import io
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

MAX_BODY = 1024 * 1024
_CHUNK = 64 * 1024


class Dial(Protocol):
    """Makes a connection to a host and port within so many seconds. Raises OSError."""

    def __call__(self, host: str, port: int, *, seconds: float) -> socket.socket: ...


@dataclass
class Flight:
    """One request on its way. `clear` is called directly before its first byte and may raise: then nothing is sent.

    Afterwards `answer` is the response with its body read, or `fault` says why there is none. `sent`: a byte may have
    reached the other side. `late`: no answer within `read` seconds from the first byte on. `ends`: when all of it must
    be over, by the monotonic clock. `dial` connects instead of the library. At most `most` bytes of a body are read;
    a longer one counts as none and one that breaks off as no answer, unless `part` of it will do.
    """

    clear: Callable[[], None]
    read: float
    ends: float = math.inf
    dial: Dial | None = None
    most: int = MAX_BODY
    part: bool = False
    sent: bool = False
    late: bool = False
    answer: requests.Response | None = None
    fault: Exception | None = None
    stopped: BaseException | None = None
    _deadline: float = math.inf

    def leave(self) -> None:
        if self.sent:
            return
        if time.monotonic() >= self.ends:
            raise TimeoutError("timed out")
        try:
            self.clear()
        except BaseException as stop:
            self.stopped = stop
            raise
        self.sent = True
        self._deadline = min(time.monotonic() + self.read, self.ends)

    def left(self) -> float:
        """Seconds that remain. Raises TimeoutError when none do."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def landed(self, answer: requests.Response | None, fault: Exception | None = None) -> None:
        self.answer, self.fault = answer, fault
        self.late = fault is not None and time.monotonic() > self._deadline - 0.01


_flight: contextvars.ContextVar[Flight] = contextvars.ContextVar("flight")


@contextmanager
def flying(flight: Flight) -> Iterator[None]:
    """The one request that a session of this module makes within the block is this flight."""
    token = _flight.set(flight)
    try:
        yield
    finally:
        _flight.reset(token)


class _Bounded(io.RawIOBase):
    """What is read from the socket, with no more patience than the flight has left."""

    def __init__(self, raw: io.RawIOBase, sock: Any, flight: Flight) -> None:
        self._raw, self._sock, self._flight = raw, sock, flight

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(self._flight.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """An end within the status line or the headers is a broken connection; the library would take what it has."""

    begun = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size and (self.begun or line.startswith(b"HTTP/")):
            raise ConnectionResetError("the answer broke off")
        self.begun = True
        return line


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Lines(_Bounded(self.fp.detach(), sock, _flight.get()))


class _Connection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        dial = _flight.get().dial
        if dial is None:
            return super()._new_conn()
        try:
            return dial(self.host, int(self.port or self.default_port), seconds=float(self.timeout or 0))
        except OSError as error:
            raise NewConnectionError(self, type(error).__name__) from error

    def send(self, data: Any) -> None:
        flight = _flight.get()
        if self.sock is None:
            self.connect()
        flight.leave()
        for start in range(0, len(data), _CHUNK):
            self.sock.settimeout(flight.left())
            super().send(data[start : start + _CHUNK])


class _TLSConnection(HTTPSConnection, _Connection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """As the adapter of requests, but the body is read here, as the flight says."""
        flight = _flight.get()
        try:
            answer = super().send(request, *args, **{**kwargs, "stream": True})
            _read(answer, flight)
        except Exception as fault:
            flight.landed(None, fault)
            raise
        flight.landed(answer)
        return answer


def _read(answer: requests.Response, flight: Flight) -> None:
    body = bytearray()
    try:
        for chunk in answer.iter_content(_CHUNK):
            body += chunk
            if len(body) > flight.most or (flight.part and len(body) == flight.most):
                answer.close()
                del body[flight.most if flight.part else 0 :]
                break
    except requests.RequestException:
        if not flight.part:
            raise
        answer.close()
    # What Response.content does by itself, with a bound.
    answer._content = bytes(body)  # noqa: SLF001
    vars(answer)["_content_consumed"] = True


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """No redirect is ever followed, whoever uses the session."""
        return None


def session(pool: int, headers: Mapping[str, str], authorities: str = "") -> requests.Session:
    """A session for many threads: `pool` connections kept, no retries, redirects, cookies or environment.

    `authorities`: the file or folder of certificates that others are verified by, else those of the library.
    """
    made = _Session()
    made.verify = authorities or True
    made.trust_env = False
    made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    made.headers.clear()
    made.headers.update(headers)
    adapter = _Adapter(pool_connections=4, pool_maxsize=pool, max_retries=0)
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    return made
