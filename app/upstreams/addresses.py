"""Connecting to hosts that others name: only to public addresses, and to the very address that was looked at.

The name is resolved once per connection. Whoever changes it between a look and the connect (DNS rebinding) gains
nothing, for there is no second look.
"""

import ipaddress
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from typing import Any

_LOOKERS = 8
_EMBEDS_IPV4 = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64; what it leads to is another network's own affair
_Found = tuple[socket.AddressFamily, Any]

_resolving = ThreadPoolExecutor(_LOOKERS, thread_name_prefix="resolve")  # the resolver knows no limit of its own


class NotPublic(OSError):
    """The name leads to no address that may be connected to."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, and of nothing that leads elsewhere by another notation."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and (
        found.ipv4_mapped or found.sixtofour or found.teredo or found in _EMBEDS_IPV4 or found.is_site_local
    ):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def connect(host: str, port: int, *, seconds: float, private: bool = False) -> socket.socket:
    """A connection made within so many seconds, resolving included. `private`: any address will do (tests).

    Raises OSError; NotPublic before anything was sent anywhere but to the resolver.
    """
    ends = time.monotonic() + seconds
    found = [one for one in _resolve(host, port, seconds) if private or is_public(one[1][0])]
    if not found:
        raise NotPublic("no public address")
    return _first(found, ends)


def _resolve(host: str, port: int, seconds: float) -> Sequence[_Found]:
    looked = _resolving.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        return [(family, place) for family, _, _, _, place in looked.result(timeout=seconds)]
    except TooSlow as slow:
        raise TimeoutError("the name was not resolved in time") from slow
    finally:
        looked.cancel()


def _first(found: Sequence[_Found], ends: float) -> socket.socket:
    """The first one that takes the connection; each gets its share of the time that is left."""
    fault: OSError = TimeoutError("timed out")
    for left, (family, place) in zip(range(len(found), 0, -1), found, strict=True):
        try:
            return _dial(family, place, (ends - time.monotonic()) / left)
        except OSError as error:
            fault = error
    raise fault


def _dial(family: socket.AddressFamily, place: Any, seconds: float) -> socket.socket:
    if seconds <= 0:
        raise TimeoutError("timed out")
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(seconds)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.connect(place)
    except BaseException:
        made.close()
        raise
    return made
