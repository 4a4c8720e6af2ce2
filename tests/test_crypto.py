"""Sealing, rotating keys, refusing what was tampered with, and the keyed hash."""

import base64
from collections.abc import Callable, Iterator

import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import LargeBinary, insert, select, type_coerce

from app import crypto, db
from app.crypto import KeyRing
from app.models.client import Client
from app.models.orm import new_id

OLD, NEW = b"o" * 32, b"n" * 32
ICN = "1012667122V019349"


@pytest.fixture
def rekeyed(set_settings: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """`rekeyed(NEW, OLD)` gives this process another key ring, as a restart would."""

    def change(*keys: bytes) -> None:
        set_settings(DATA_KEYS=",".join(base64.b64encode(key).decode() for key in keys))
        crypto.ring.cache_clear()

    crypto.ring.cache_clear()
    yield change
    crypto.ring.cache_clear()


def test_what_was_sealed_opens_again() -> None:
    ring = KeyRing((OLD,))
    assert ring.open(ring.seal(b"")) == b""
    assert ring.open(ring.seal(ICN.encode())) == ICN.encode()


def test_what_is_sealed_shows_nothing_and_never_looks_the_same_twice() -> None:
    ring = KeyRing((OLD,))
    first, second = ring.seal(ICN.encode()), ring.seal(ICN.encode())
    assert ICN.encode() not in first
    assert first != second


def test_a_new_key_in_front_seals_while_the_old_one_still_opens() -> None:
    sealed = KeyRing((OLD,)).seal(b"data")
    both = KeyRing((NEW, OLD))
    assert both.open(sealed) == b"data"
    assert KeyRing((NEW,)).open(both.seal(b"data")) == b"data"


def test_a_key_that_is_gone_is_told_from_data_that_is_damaged() -> None:
    with pytest.raises(KeyError):
        KeyRing((NEW,)).open(KeyRing((OLD,)).seal(b"data"))


@pytest.mark.parametrize("place", range(4 + 12 + 4 + 16), ids=lambda place: f"byte {place}")
def test_no_byte_can_be_changed_unnoticed(place: int) -> None:
    ring = KeyRing((NEW, OLD))
    sealed = bytearray(ring.seal(b"data"))
    sealed[place] ^= 1
    with pytest.raises((KeyError, InvalidTag)):
        ring.open(bytes(sealed))


def test_the_fingerprint_of_another_key_does_not_open_it() -> None:
    ring = KeyRing((NEW, OLD))
    other = KeyRing((OLD,)).seal(b"data")
    with pytest.raises(InvalidTag):
        ring.open(other[:4] + ring.seal(b"data")[4:])


def test_a_sealed_column_holds_bytes_and_gives_back_the_value(database: None) -> None:
    client = new_id()
    with db.transaction() as session:
        session.execute(insert(Client).values(id=client, name="test", scopes=[], webhook_secret="s3cret-ü"))
        stored = session.scalar(select(type_coerce(Client.webhook_secret, LargeBinary)).where(Client.id == client))
        assert session.scalar(select(Client.webhook_secret).where(Client.id == client)) == "s3cret-ü"
    assert stored
    assert b"s3cret" not in stored


def test_an_empty_column_stays_empty(database: None) -> None:
    with db.transaction() as session:
        session.execute(insert(Client).values(id=new_id(), name="test", scopes=[], webhook_secret=None))
        assert session.scalar(select(type_coerce(Client.webhook_secret, LargeBinary))) is None
        assert session.scalar(select(Client.webhook_secret)) is None


def test_rows_stay_readable_while_the_keys_rotate(database: None, rekeyed: Callable[..., None]) -> None:
    rekeyed(OLD)
    with db.transaction() as session:
        session.execute(insert(Client).values(id=new_id(), name="test", scopes=[], webhook_secret="s3cret"))
    rekeyed(NEW, OLD)
    with db.transaction() as session:
        assert session.scalar(select(Client.webhook_secret)) == "s3cret"
    rekeyed(NEW)
    with db.transaction() as session, pytest.raises(KeyError):
        session.scalar(select(Client.webhook_secret))


def test_a_keyed_hash_is_equal_for_equal_parts_and_for_no_others(environment: dict[str, str]) -> None:
    assert crypto.keyed_hash("visit", ICN) == crypto.keyed_hash("visit", ICN)
    hashes = [
        crypto.keyed_hash(*parts)
        for parts in (("visit", ICN), ("visi", f"t{ICN}"), (ICN, "visit"), (f"visit{ICN}",), ())
    ]
    assert len(set(hashes)) == len(hashes)
    assert {len(one) for one in hashes} == {64}


def test_a_keyed_hash_is_another_one_under_another_key(set_settings: Callable[..., None]) -> None:
    first = crypto.keyed_hash("visit", ICN)
    set_settings(HASH_KEY=base64.b64encode(NEW).decode())
    assert crypto.keyed_hash("visit", ICN) != first
