"""Why a call has no answer: one word per cause."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Literal

from requests import exceptions
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError, SSLError

from app.upstreams import wire

Cause = Literal["dns", "refused", "tls", "connect-timeout", "timeout", "connection-lost", "garbled"]
_NO_NAME = (socket.gaierror, NameResolutionError)
_SLOW = (TimeoutError, ConnectTimeoutError, ReadTimeoutError)
_TLS = (ssl.SSLError, SSLError, exceptions.SSLError)
_BROKEN = (http.client.RemoteDisconnected, http.client.IncompleteRead)


def of(flight: wire.Flight) -> Cause:
    """The cause of a flight without an answer. The first four: not a byte was sent."""
    return _after_sending(flight) if flight.sent else _before_sending(flight)


def _before_sending(flight: wire.Flight) -> Cause:
    chain = list(_chain(flight.fault))
    if any(isinstance(error, _NO_NAME) for error in chain):
        return "dns"
    if any(isinstance(error, _SLOW) and not isinstance(error, NewConnectionError) for error in chain):
        return "connect-timeout"
    # A bare OSError is how requests says that the file of certificate authorities is not there.
    tls = type(flight.fault) is OSError or any(isinstance(error, _TLS) for error in chain)
    return "tls" if tls else "refused"


def _after_sending(flight: wire.Flight) -> Cause:
    if flight.late:
        return "timeout"
    faults = [error for error in _chain(flight.fault) if isinstance(error, http.client.HTTPException)]
    return "garbled" if faults and not isinstance(faults[-1], _BROKEN) else "connection-lost"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
