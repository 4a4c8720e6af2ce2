"""Declarations in Postgres: accepting, and the lock."""

import contextlib
import threading
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, NoResultFound

from app import charge_references, crypto, db, states
from app.models.orm import new_id
from app.store import declarations, workflows
from app.store.declarations import Locked
from tests.declaration_payloads import payload
from tests.store.conftest import client, columns, history

pytestmark = pytest.mark.usefixtures("database")


def accept(owner: UUID | None = None) -> tuple[UUID, str]:
    """The id and the charge reference of a new declaration."""
    with db.transaction() as session:
        made = declarations.accept(session, owner or client(), payload(), "corr-1")
        return made.id, made.charge_reference


def test_a_new_declaration_waits_for_somebody_else_and_has_its_history() -> None:
    made, reference = accept()
    row = columns(made)
    assert charge_references.is_valid(reference)
    assert (row["kind"], row["state"], row["worker"], row["slot"]) == ("declaration", "pending-payment", None, None)
    assert row["due_at"].year == row["wake_at"].year == 9999
    assert row["created_at"] == row["updated_at"]
    assert history(made) == [(None, states.DECLARATION.start, "client", "accepted")]


def test_what_is_stored_is_sealed_and_comes_back_whole() -> None:
    made, reference = accept()
    with db.transaction() as session:
        sealed = session.scalar(text("SELECT payload FROM declarations"))
        loaded = declarations.load(session, made)
    assert b"Traveller" not in sealed
    assert b"Traveller" in crypto.ring().open(sealed)
    assert loaded.payload == charge_references.placed(payload(), reference, f"{reference}0")
    assert loaded.acknowledgement_reference == f"{reference}0"
    with db.transaction() as session, pytest.raises(NoResultFound):
        declarations.load(session, new_id())


def test_a_transaction_that_fails_leaves_a_gap_and_nothing_else() -> None:
    _, first = accept()
    with contextlib.suppress(ZeroDivisionError), db.transaction() as session:
        declarations.accept(session, client(), payload(), "corr-1")
        raise ZeroDivisionError
    _, second = accept()
    assert int(second[4:]) == int(first[4:]) + 2
    with db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM workflows")) == 2


def test_what_is_sealed_is_read_only_where_it_is_asked_for() -> None:
    _, reference = accept()
    with db.transaction() as session:
        shown = declarations.view(session, reference, client_id=None, newest=9)
        assert shown
        with pytest.raises(InvalidRequestError, match="payload"):
            _ = shown.declaration.payload
    with db.transaction() as session:
        shown = declarations.view(session, reference, client_id=None, newest=9, sealed=True)
        assert shown
        assert shown.declaration.payload


def test_the_owner_alone_gets_the_lock() -> None:
    made, reference = accept()
    with db.transaction() as session:
        seen = declarations.lock(session, reference, client_id=client(), wait=1)
        assert seen
        assert (seen.id, seen.state) == (made, "pending-payment")
        assert declarations.lock(session, reference, client_id=client("other"), wait=1) is None
        assert declarations.lock(session, charge_references.make(5), client_id=client(), wait=1) is None


def test_a_lock_that_another_holds_is_waited_for_no_longer_than_said() -> None:
    _, reference = accept()
    with db.transaction() as holder:
        assert declarations.lock(holder, reference, client_id=client(), wait=1)
        with pytest.raises(Locked), db.transaction() as session:
            declarations.lock(session, reference, client_id=client(), wait=0.0001)


def test_a_lock_is_read_as_it_is_when_it_is_got() -> None:
    made, reference = accept()
    waiting, told = threading.Event(), []

    def second() -> None:
        with db.transaction() as session:
            waiting.set()
            seen = declarations.lock(session, reference, client_id=client(), wait=60)
            told.append(seen and seen.state)

    thread = threading.Thread(target=second)
    with db.transaction() as holder:
        seen = declarations.lock(holder, reference, client_id=client(), wait=1)
        assert seen
        thread.start()
        waiting.wait(60)
        assert workflows.move(holder, seen, states.Declaration.EXPIRED, actor="timer", holder=False)
    thread.join(60)
    assert told == ["expired"]
    assert columns(made)["state"] == "expired"


def test_another_fault_than_a_lock_is_told_as_it_is() -> None:
    _, reference = accept()
    with db.transaction() as holder, contextlib.suppress(DBAPIError), db.transaction() as session:
        declarations.lock(holder, reference, client_id=client(), wait=1)
        session.execute(text("SELECT set_config('statement_timeout', '50ms', true)"))
        with pytest.raises(DBAPIError) as raised:
            declarations.lock(session, reference, client_id=client(), wait=5)
        session.rollback()
    assert getattr(raised.value.orig, "sqlstate", None) == "57014"


def test_the_wait_for_the_lock_ends_with_its_transaction() -> None:
    _, reference = accept()
    with db.transaction() as session:
        declarations.lock(session, reference, client_id=client(), wait=0.25)
        assert session.scalar(text("SHOW lock_timeout")) == "250ms"
    with db.transaction() as session:
        assert session.scalar(text("SHOW lock_timeout")) == "5s"
