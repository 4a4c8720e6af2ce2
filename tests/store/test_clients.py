"""Clients: their keys, of which two may be active, and their toggles."""

import pytest
from sqlalchemy import select

from app import db
from app.models.client import ApiKey
from app.store import clients
from app.store.clients import Caller

pytestmark = pytest.mark.usefixtures("database")


def add(name: str = "check-in", *scopes: str, product: str | None = "pci") -> str:
    with db.transaction() as session:
        return clients.add(session, name, scopes or ("claims",), product)


def rotate(name: str = "check-in") -> str:
    with db.transaction() as session:
        return clients.rotate(session, name)


def caller(key: str) -> Caller | None:
    with db.transaction() as session:
        return clients.by_key(session, clients.digest(key))


def test_a_new_client_is_found_by_its_key_with_the_toggles_of_its_scopes_on() -> None:
    found = caller(add("everybody", "claims", "vouchers", "operator"))
    assert found
    assert (found.name, found.scopes, found.product) == ("everybody", {"claims", "vouchers", "operator"}, "pci")
    assert found.toggles == {"claims", "claims-texts", "vouchers"}


def test_the_key_itself_is_not_kept() -> None:
    key = add()
    with db.transaction() as session:
        stored = session.scalars(select(ApiKey.digest)).all()
    assert stored == [clients.digest(key)]
    assert key.encode() not in stored[0]


def test_the_two_newest_keys_are_active() -> None:
    first, second, third = add(), rotate(), rotate()
    assert [caller(key) is not None for key in (first, second, third)] == [False, True, True]


def test_rotating_one_client_leaves_the_keys_of_others_alone() -> None:
    other = add("other")
    add()
    rotate()
    rotate()
    assert caller(other)


@pytest.mark.parametrize("scopes", [("claims", "nonsense"), ("nonsense",)])
def test_an_unknown_scope_is_refused(scopes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        add("check-in", *scopes)


def test_a_name_is_given_once() -> None:
    add()
    with pytest.raises(ValueError, match="check-in already"):
        add()


def test_a_toggle_is_off_until_it_was_set_and_follows_what_was_set_last() -> None:
    add()
    with db.transaction() as session:
        client = clients.named(session, "check-in")
        seen = [clients.is_on(session, client.id, "declarations")]
        for on in (True, False, True):
            clients.set_toggle(session, "check-in", "declarations", on=on)
            seen.append(clients.is_on(session, client.id, "declarations"))
    assert seen == [False, True, False, True]


def test_unknown_clients_and_toggles_are_named() -> None:
    add()
    with db.transaction() as session:
        with pytest.raises(LookupError, match="nobody"):
            clients.set_toggle(session, "nobody", "claims", on=True)
        with pytest.raises(ValueError, match="sparkles"):
            clients.set_toggle(session, "check-in", "sparkles", on=True)
