"""A client of declarations, and rows as the engine would leave them."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask.testing import FlaskClient
from sqlalchemy import func, insert, select, text, update
from werkzeug.test import TestResponse

from app import db, states
from app.models.declaration import Declaration
from app.models.workflow import Call, Move, Workflow
from tests.declaration_payloads import payload

LINE = "/bc-passengers-declarations"
ALL_STATES = [str(state) for state in states.Declaration]
_W = Workflow.__table__


class Passengers:
    """A client with its key. Each method is a request."""

    def __init__(self, http: FlaskClient, key: str) -> None:
        self.http, self.key = http, key

    def submit(self, document: Any = ..., *, data: bytes | str | None = None, **headers: str) -> TestResponse:
        """The payload of the contract, another document, or (`data`) these bytes."""
        body = json.dumps(payload() if document is ... else document) if data is None else data
        kind = {"Content-Type": "application/json"}
        return self.http.post(f"{LINE}/submit", data=body, headers=self._headers({**kind, **headers}))

    def update(self, reference: str, *, data: bytes | str | None = None, **headers: str) -> TestResponse:
        return self.http.post(f"{LINE}/update/{reference}", data=data, headers=self._headers(headers))

    def show(self, reference: str, query: str = "") -> TestResponse:
        return self.http.get(f"{LINE}/{reference}{query}", headers={"x-api-key": self.key})

    def made(self, **headers: str) -> str:
        """The charge reference of a new declaration."""
        answer = self.submit(**headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json["_id"])

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """`Prefer` is written as it is, `X_Correlation_ID` with hyphens."""
        return {"x-api-key": self.key, **{name.replace("_", "-"): value for name, value in headers.items()}}


def id_of(reference: str) -> UUID:
    with db.transaction() as session:
        return session.scalars(select(Declaration.id).where(Declaration.charge_reference == reference)).one()


def row(reference: str) -> Declaration:
    with db.transaction() as session:
        return session.scalars(select(Declaration).where(Declaration.charge_reference == reference)).one()


def put_into(reference: str, state: str, **columns: Any) -> None:
    """Set a declaration's state directly, as the engine would leave the row."""
    columns = {"state": state, "updated_at": func.clock_timestamp(), **columns}
    if states.DECLARATION.is_finished(state):
        columns = {"due_at": None, "wake_at": None, "finished_at": func.clock_timestamp(), **columns}
    elif state == states.Declaration.PAID:
        columns = {"due_at": func.clock_timestamp(), "wake_at": func.clock_timestamp(), **columns}
    with db.transaction() as session:
        session.execute(update(_W).where(_W.c.id == id_of(reference)).values(**columns))


def put(reference: str, **columns: Any) -> None:
    """Set columns of the declaration's own row."""
    own = Declaration.__table__
    with db.transaction() as session:
        session.execute(update(own).where(own.c.charge_reference == reference).values(**columns))


def add_move(reference: str, of: str | None, to: str | None, actor: str, reason: str = "", **columns: Any) -> None:
    with db.transaction() as session:
        values = {"of": of, "to": to, "actor": actor, "reason": reason, **columns}
        session.execute(insert(Move).values(workflow_id=id_of(reference), **values))


def add_call(reference: str, outcome: str, status: int | None, code: str = "", *, ms: int = 20, **columns: Any) -> None:
    """A call of the step `submit`."""
    values = {
        "step": "submit", "attempt": 1, "verb": "do", "upstream": "mdg", "name": "submit", "method": "POST",
        "path": "/declarations", "status": status, "outcome": outcome, "milliseconds": ms, "code": code, **columns,
    }  # fmt: skip
    with db.transaction() as session:
        session.execute(insert(Call).values(workflow_id=id_of(reference), **values))


def events(reference: str) -> list[tuple[str | None, str | None, str, str, Any]]:
    """Its history: from, to, actor, reason, detail."""
    with db.transaction() as session:
        rows = session.scalars(select(Move).where(Move.workflow_id == id_of(reference)).order_by(Move.id))
        return [(move.of, move.to, move.actor, move.reason, move.detail) for move in rows]


def count(table: Any) -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def last_number() -> int | None:
    """The charge number that was taken last; None: none since the sequence was started anew."""
    with db.transaction() as session:
        taken, value = session.execute(text("SELECT is_called, last_value FROM charge_reference_seq")).one()
    return value if taken else None


def start_numbers_at(number: int) -> None:
    with db.transaction() as session:
        session.execute(text(f"ALTER SEQUENCE charge_reference_seq RESTART WITH {number}"))
