"""Idempotency keys: who runs a request first, and the answer that every repeat of it gets.

A row without a status is a request in progress; its `created_at` is the token of whoever runs it. A row may hold a
promise before its status (which is among its headers till then): what was accepted is committed, only the final answer
is still waited for. A request that died is taken over once it is stale: from a promise follows the promised answer,
never a second run. Or it is tied to an operation: then a repeat goes by what became of that, whether the first request
still waits, was answered by a 5xx or died. Answers are sealed, for they may hold personal data. Times are Postgres's.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, and_, cast, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import crypto, errors
from app.models.client import IdempotencyKey

KEPT = timedelta(hours=24)
STALE = timedelta(seconds=40)  # above the longest wait, and what comes before and after it
K = IdempotencyKey
_NOW = func.clock_timestamp()
_STATUS = "Status"
_PROMISED_STATUS = func.coalesce(cast(K.headers[_STATUS].astext, Integer), 202)  # older releases kept none


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, kw_only=True)
class Running:
    """This request runs now, and only its holder may store an answer: `token` guards against one that took over.

    `operation_id`: it is a repeat, of a request that is tied to this operation.
    """

    client_id: UUID
    key: str
    token: datetime
    operation_id: UUID | None = None


def begin(session: Session, client_id: UUID, key: str, request: str) -> Running | Answer:
    """Run this request, or get the answer of its first run. Decided by the primary key, not by a prior read.

    Raises Refused when it is running at this moment, or when the key was used for another request.
    """
    token = _enter(session, client_id, key, request)
    if token is not None:
        return Running(client_id=client_id, key=key, token=token)
    found = session.scalar(select(K).where(K.client_id == client_id, K.key == key))
    if found is not None and found.request != request:
        raise errors.Refused(422, "idempotency-mismatch", "This Idempotency-Key was used for another request.")
    if found is not None and found.status is None and found.operation_id is not None:
        return Running(client_id=client_id, key=key, token=found.created_at, operation_id=found.operation_id)
    status = (found.status or _redeem(session, found)) if found else None
    if found is None or status is None:
        raise errors.Refused(409, "idempotency-in-progress", "The first request with this key is still being accepted.")
    told = {name: value for name, value in (found.headers or {}).items() if name != _STATUS}
    return Answer(status=status, headers=told, body=_open(found.body or ""))


def _enter(session: Session, client_id: UUID, key: str, request: str) -> datetime | None:
    """The token of a new row, of one that has expired, or of one whose request died before it did anything."""
    nothing = and_(K.status.is_(None), K.body.is_(None), K.operation_id.is_(None))
    died = and_(nothing, K.created_at < _NOW - STALE, K.request == request)
    fresh = {"request": request, **dict.fromkeys(("status", "headers", "body", "operation_id")), "created_at": _NOW}
    statement = insert(K).values(client_id=client_id, key=key, request=request)
    return session.scalar(
        statement.on_conflict_do_update(
            index_elements=["client_id", "key"], set_=fresh, where=or_(K.created_at < _NOW - KEPT, died)
        ).returning(K.created_at)
    )


def _redeem(session: Session, found: IdempotencyKey) -> int | None:
    """The status of a promise whose holder died: what it promised becomes the answer. None: there is none."""
    held = _held(found.client_id, found.key, found.created_at)
    died = update(K).where(*held, K.body.is_not(None), K.created_at < _NOW - STALE).values(status=_PROMISED_STATUS)
    return session.scalar(died.returning(K.status).execution_options(synchronize_session=False))


def promise(session: Session, running: Running, answer: Answer) -> bool:
    """In the transaction that accepts something: what a repeat is told if nobody lives to store the final answer.

    False: somebody took over, so nothing may be accepted.
    """
    headers = {**answer.headers, _STATUS: str(answer.status)}
    mine = _held(running.client_id, running.key, running.token)
    return _hit(session, update(K).where(*mine).values(headers=headers, body=_seal(answer.body)))


def tie(session: Session, running: Running, operation_id: UUID) -> bool:
    """In the transaction that starts or joins an operation: from now on a repeat goes by what becomes of that.

    False: somebody took over, so nothing may be accepted.
    """
    mine = _held(running.client_id, running.key, running.token)
    return _hit(session, update(K).where(*mine).values(operation_id=operation_id))


def renew(session: Session, running: Running) -> Running:
    """Run a tied request anew, because its operation came to nothing. Raises Refused when another repeat does so."""
    mine = _held(running.client_id, running.key, running.token)
    again = update(K).where(*mine, K.operation_id == running.operation_id).values(operation_id=None, created_at=_NOW)
    token = session.scalar(again.returning(K.created_at).execution_options(synchronize_session=False))
    if token is None:
        raise errors.Refused(409, "idempotency-in-progress", "The same request is being accepted by now.")
    return Running(client_id=running.client_id, key=running.key, token=token)


def finish(session: Session, running: Running, answer: Answer) -> bool:
    """Store the answer that every repeat gets from now on. False: somebody took over."""
    values = {"status": answer.status, "headers": dict(answer.headers), "body": _seal(answer.body)}
    return _hit(session, update(K).where(*_held(running.client_id, running.key, running.token)).values(**values))


def give_up(session: Session, running: Running) -> None:
    """No answer to keep: the same request may run again.

    A promise is kept, for what it tells has happened, and so is the tie to an operation.
    """
    mine = (*_held(running.client_id, running.key, running.token), K.operation_id.is_(None))
    session.execute(update(K).where(*mine, K.body.is_not(None)).values(status=_PROMISED_STATUS))
    session.execute(delete(K).where(*mine, K.body.is_(None)))


def forget(session: Session) -> int:
    """Drop the answers that are kept no longer. Returns how many."""
    return int(session.execute(delete(K).where(K.created_at < _NOW - KEPT)).rowcount)  # type: ignore[attr-defined]


def _held(client_id: UUID, key: str, token: datetime) -> tuple[ColumnElement[bool], ...]:
    return (K.client_id == client_id, K.key == literal(key), K.created_at == token, K.status.is_(None))


def _hit(session: Session, statement: Any) -> bool:
    done: Any = session.execute(statement.execution_options(synchronize_session=False))
    return bool(done.rowcount == 1)


def _seal(body: str) -> str:
    return base64.b64encode(crypto.ring().seal(body.encode())).decode()


def _open(sealed: str) -> str:
    return crypto.ring().open(base64.b64decode(sealed)).decode()
