"""The application token that all claims share: one mint for a burst of threads and processes (contract 4.2).

Fresh until 360 s before its end; in the 300 s after that one lock holder renews while the others use the old one; after
that all wait for the holder, at most 10 s, then mint for themselves. It lies sealed in Redis; without Redis, and in
between, each process keeps its own copy.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from cryptography.exceptions import InvalidTag

from app import clock, crypto, errors, steps
from app.upstreams.shared import PREFIX, Shared

_FRESH_MARGIN, _STALE_SECONDS = 360.0, 300.0
_WAIT_SECONDS, _LOOK_SECONDS = 10.0, 0.1
_LOCK_SECONDS = 45
_DELETE_IF_SAME = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


@dataclass(frozen=True)
class Token:
    """A token, when it was asked for (seconds since the epoch) and its life from then on, in seconds."""

    value: str = field(repr=False)
    fingerprint: str
    issued: float
    life: float

    @property
    def fresh(self) -> bool:
        return self._left > _FRESH_MARGIN

    @property
    def usable(self) -> bool:
        return self._left > min(_FRESH_MARGIN - _STALE_SECONDS, self.life / 6)

    @property
    def _left(self) -> float:
        return self.issued + self.life - clock.now().timestamp()


Mint = Callable[[], tuple[str, float]]


class Cache:
    """The token of one set of credentials, in this process and, through Redis, in all of them.

    `identity` names the credentials, `key` keys the fingerprints: equal for equal tokens, in every process.
    """

    def __init__(self, identity: str, key: str, shared: Shared) -> None:
        self._name = f"{PREFIX}token:{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        self._lock = f"{self._name}:lock"
        self._key = key.encode()
        self._shared = shared
        self._minting = threading.Lock()
        self._kept: Token | None = None
        self._latest: Token | None = None
        self._refused = ""
        self._rest_until = 0.0

    def get(self, mint: Mint, *, seen: str | None = None, waiting: Callable[[], None] = lambda: None) -> Token:
        """A token that can be used now. `mint` asks for a new one and returns it with its life; its errors pass.

        `seen` is the fingerprint the caller knows: where this process holds another token, Redis is asked first which
        one is current. `waiting` is called before a wait.
        """
        token = self._current(seen)
        if token is None:
            waiting()
            return self._first_of_all(mint)
        return token if token.fresh else self._renewed(token, mint)

    def evict(self, refused: Token) -> None:
        """Forget this token, and no other, everywhere; here also who is just reading it from Redis."""
        self._refused = refused.value
        if self._kept is not None and self._kept.value == refused.value:
            self._kept = None
        if self._latest is not None and self._latest.value == refused.value:
            self._latest = None
        with contextlib.suppress(redis.RedisError):
            sealed = self._shared.ask(self._sealed)
            if sealed is not None and (found := _open(sealed)) is not None and found.value == refused.value:
                self._delete_if_same(self._name, sealed)

    def _current(self, seen: str | None = None) -> Token | None:
        """The newest token known, while it is usable."""
        own = self._kept
        if own is not None and own.fresh and seen in (None, own.fingerprint):
            return own
        found = self._look()
        if found is not None and (own is None or found.issued >= own.issued):
            self._kept = own = found
        return own if own is not None and own.usable else None

    def _look(self) -> Token | None:
        try:
            sealed = self._shared.ask(self._sealed)
        except redis.RedisError:
            return None
        found = _open(sealed) if sealed is not None else None
        return found if found is not None and found.value != self._refused else None

    def _sealed(self, client: redis.Redis) -> bytes | None:
        found = client.get(self._name)
        return found if isinstance(found, bytes) else None

    def _renewed(self, old: Token, mint: Mint) -> Token:
        """A new token if this caller is the one to fetch it and can, else the old one.

        When fetching fails nobody tries again until the lock has run out: the old token serves meanwhile.
        """
        if time.monotonic() < self._rest_until or not self._minting.acquire(blocking=False):
            return old
        try:
            holder = self._take()
            if holder is None:
                return old
            current = self._current()
            if current is None or not current.fresh:
                self._rest_until = time.monotonic() + _WAIT_SECONDS
                current = self._mint(mint)
            self._delete_if_same(self._lock, holder)
            return current
        except (steps.Ended, errors.NotSent):
            return old
        finally:
            self._minting.release()

    def _first_of_all(self, mint: Mint) -> Token:
        """Nothing usable is known: one fetches it, the others wait for that one; after 10 s each helps itself."""
        before, give_up = self._latest, time.monotonic() + _WAIT_SECONDS
        held = self._minting.acquire(timeout=_WAIT_SECONDS)
        try:
            latest = self._latest
            if latest is not None and latest is not before and latest.usable:
                return latest
            return self._first_of_processes(mint, give_up)
        finally:
            if held:
                self._minting.release()

    def _first_of_processes(self, mint: Mint, give_up: float) -> Token:
        while (holder := self._take()) is None:
            if time.monotonic() > give_up:
                return self._mint(mint)
            time.sleep(_LOOK_SECONDS)
            if token := self._current():
                return token
        try:
            return self._current() or self._mint(mint)
        finally:
            self._delete_if_same(self._lock, holder)

    def _mint(self, mint: Mint) -> Token:
        issued = clock.now().timestamp()
        value, life = mint()
        fingerprint = hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:16]
        self._latest = token = Token(value, fingerprint, issued, life)
        if token.fresh:
            self._kept = token
            with contextlib.suppress(redis.RedisError):
                self._shared.ask(lambda client: self._store(client, token))
        return token

    def _store(self, client: redis.Redis, token: Token) -> None:
        record = json.dumps([token.value, token.fingerprint, token.issued, token.life]).encode()
        client.set(self._name, crypto.ring().seal(record), ex=max(1, int(token.life)))

    def _take(self) -> bytes | None:
        """What names this caller as holder of the lock; None while somebody else holds it.

        Without Redis everybody is a holder: each process is on its own then.
        """
        holder = secrets.token_hex(8).encode()
        try:
            taken = self._shared.ask(lambda client: client.set(self._lock, holder, nx=True, ex=_LOCK_SECONDS))
        except redis.RedisError:
            return holder
        return holder if taken else None

    def _delete_if_same(self, name: str, value: bytes) -> None:
        with contextlib.suppress(redis.RedisError):
            self._shared.ask(lambda client: client.eval(_DELETE_IF_SAME, 1, name, value))


def _open(sealed: bytes) -> Token | None:
    """The token, or None where it was sealed with a key that is gone, or is no token."""
    try:
        return Token(*json.loads(crypto.ring().open(sealed)))
    except (KeyError, InvalidTag, ValueError, TypeError):
        return None
