"""Personal data at rest: an encrypted column type with a key ring, and a keyed hash for look-ups.

A sealed value is `key fingerprint (4 bytes) + nonce (12) + AES-256-GCM ciphertext`. The first of `DATA_KEYS` seals; any
of them opens. A new key is put behind the others first, and in front once every process has it.
"""

import base64
import functools
import hashlib
import hmac
import json
import os
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr
from sqlalchemy import Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator

from app import config

_FINGERPRINT, _NONCE = 4, 12


class KeyRing:
    """Seals with the newest key, opens with whichever key sealed. Raises KeyError when that key is no longer there."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = {hashlib.sha256(key).digest()[:_FINGERPRINT]: AESGCM(key) for key in keys}
        self._newest = next(iter(self._keys))

    def seal(self, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return self._newest + nonce + self._keys[self._newest].encrypt(nonce, data, None)

    def open(self, sealed: bytes) -> bytes:
        key = self._keys[sealed[:_FINGERPRINT]]
        return key.decrypt(sealed[_FINGERPRINT : _FINGERPRINT + _NONCE], sealed[_FINGERPRINT + _NONCE :], None)


def _bytes(key: SecretStr) -> bytes:
    return base64.b64decode(key.get_secret_value().strip())


@functools.cache
def ring() -> KeyRing:
    """The key ring of this process."""
    return KeyRing(tuple(_bytes(key) for key in config.settings().data_keys))


def keyed_hash(*parts: str) -> str:
    """HMAC-SHA256 over the parts, as 64 hex digits: equal for equal parts, useless without HASH_KEY."""
    framed = json.dumps(parts, ensure_ascii=False).encode()
    return hmac.new(_bytes(config.settings().hash_key), framed, hashlib.sha256).hexdigest()


class Encrypted(TypeDecorator[Any]):
    """A column whose value (anything JSON can carry) is sealed on its way into Postgres."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else ring().seal(json.dumps(value, ensure_ascii=False).encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Any:  # noqa: ARG002 - the same
        return None if value is None else json.loads(ring().open(value))
