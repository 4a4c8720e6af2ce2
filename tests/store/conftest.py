"""Rows straight in the table, whatever their line: what the store's statements are tried on."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select

from app import clock, db, states
from app.models.client import Client
from app.models.orm import new_id
from app.models.workflow import Move
from app.store import workers, workflows
from app.store.workflows import NOW, Seen, W


def client(name: str = "test") -> UUID:
    """The id of the client of this name; added when there is none."""
    with db.transaction() as session:
        found = session.scalar(select(Client.id).where(Client.name == name))
        if found is None:
            found = new_id()
            session.execute(insert(Client).values(id=found, name=name, scopes=["claims"], product="pci"))
        return found


def workflow(*, kind: str = "claim", state: str | None = None, of: str = "test", **columns: Any) -> UUID:
    """A row of the hot table alone, due now unless its state is a finished one."""
    machine = states.MACHINES[kind]
    state = state or machine.start
    when: Any = None if machine.is_finished(state) else NOW
    values: dict[str, Any] = {
        "id": new_id(),
        "kind": kind,
        "state": state,
        "client_id": client(of),
        "correlation_id": "corr-1",
        "due_at": when,
        "wake_at": when,
        "slot": "taken" if machine.phases else None,
        **columns,
    }
    with db.transaction() as session:
        session.execute(insert(W).values(**values))
    workflow_id: UUID = values["id"]
    return workflow_id


def seen(workflow_id: UUID) -> Seen:
    with db.transaction() as session:
        found = workflows.read(session, workflow_id)
    assert found
    return found


def columns(workflow_id: UUID) -> dict[str, Any]:
    """The whole row of the hot table."""
    with db.transaction() as session:
        return dict(session.execute(select(W).where(W.c.id == workflow_id)).one()._mapping)


def history(workflow_id: UUID) -> list[tuple[str | None, str | None, str, str]]:
    with db.transaction() as session:
        rows = session.execute(select(Move).where(Move.workflow_id == workflow_id).order_by(Move.id)).scalars()
        return [(row.of, row.to, row.actor, row.reason) for row in rows]


_test = {"begun": clock.now()}


@pytest.fixture(autouse=True)
def _begun() -> None:
    _test["begun"] = clock.now()


def is_in(moment: datetime, seconds: float) -> bool:
    """Whether it lies so many seconds after a moment of this test, which may take as long as it likes."""
    ahead = timedelta(seconds=seconds)
    return _test["begun"] + ahead <= moment <= clock.now() + ahead


def until(moment: datetime) -> float:
    """Seconds from Postgres's present moment to this one."""
    with db.transaction() as session:
        return float(session.execute(select(func.extract("epoch", moment - NOW))).scalar_one())


def beat(worker: UUID) -> None:
    with db.transaction() as session:
        workers.beat(session, worker, host="host", pid=1, release="test")
