"""A request for a change: joins an operation, is answered from our record, or becomes a new operation.

Decided under the voucher's row lock, in the contract's order: ownership, joining, our record, a new operation. Also
what becomes of a request whose wait is over, or that is repeated under its Idempotency-Key. Source: vouchers contract,
2.1 (ownership), 2.3, 2.4 and 2.6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from app import db, metrics, vouchers
from app.db import Session
from app.flows import dispatch, lines, voucher_endings, voucher_record
from app.flows.voucher_changes import Change, Codes
from app.flows.voucher_record import Answer
from app.models.voucher import Voucher, VoucherOperation
from app.store import voucher_operations, workflows
from app.store import vouchers as records
from app.store.voucher_operations import NewOperation


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who asks, and how he would be answered. `urgent`: he waits; `strict`: he takes no 202.

    `tie` is called, in the transaction that accepts or joins an operation, with its id.
    """

    client_id: UUID
    correlation_id: str
    urgent: bool
    strict: bool
    tie: Callable[[Session, UUID], None]


def submit(asked: Asked, change: Change | Codes) -> Answer | UUID:
    """The final answer, or the operation to wait for: it is committed, and enqueued."""
    with db.transaction() as session:
        wanted = voucher_record.of_codes(session, asked.client_id, change) if isinstance(change, Codes) else change
        return wanted if isinstance(wanted, Answer) else _submit(session, asked, wanted)


def _submit(session: Session, asked: Asked, change: Change) -> Answer | UUID:
    voucher = records.lock(session, change.subscription_id)
    if voucher.client_id not in {None, asked.client_id}:
        return voucher_record.not_live(change.subscription_id)
    newest = voucher_operations.newest_unfinished(session, change.subscription_id)
    if newest and _is_the_same(newest, asked, change):
        asked.tie(session, newest.id)
        return _join(session, asked, newest)
    return voucher_record.answer(session, voucher, change) or _accept(session, asked, voucher, change)


def _is_the_same(operation: VoucherOperation, asked: Asked, change: Change) -> bool:
    """Nobody joins the operation of another client, although the voucher is nobody's yet."""
    same = (operation.operation, operation.parameters) == (change.operation, dict(change.parameters))
    return same and operation.client_id == asked.client_id


def _join(session: Session, asked: Asked, operation: VoucherOperation) -> UUID:
    voucher_operations.join(session, operation, urgent=asked.urgent, strict=asked.strict)
    db.after_commit(session, metrics.voucher_joined.labels(operation.operation).inc)
    if asked.urgent and operation.priority != 0:
        db.after_commit(session, partial(dispatch.enqueue, operation.id))
    return operation.id


def _accept(session: Session, asked: Asked, voucher: Voucher, change: Change) -> UUID:
    if change.operation == "create":
        records.request(voucher, asked.client_id)
    new = NewOperation(
        client_id=asked.client_id,
        correlation_id=asked.correlation_id,
        operation=change.operation,
        parameters=change.parameters,
        urgent=asked.urgent,
        withdrawable=asked.strict,
    )
    operation_id = voucher_operations.accept(session, voucher, new)
    asked.tie(session, operation_id)
    db.after_commit(session, partial(dispatch.enqueue, operation_id))
    return operation_id


# 2.3: when the wait is over, and repeats


def outcome(operation_id: UUID) -> Answer:
    """How a final operation is answered."""
    with db.transaction() as session:
        operation = voucher_operations.find(session, operation_id)
    if operation is None:
        raise LookupError(str(operation_id))
    return _outcome(operation)


def _outcome(operation: VoucherOperation) -> Answer:
    answer = operation.answer or {"status": 503, "body": {"message": vouchers.OUTCOME_UNKNOWN}}
    return Answer(status=answer["status"], body=answer["body"], operation_id=operation.id)


def resume(asked: Asked, operation_id: UUID) -> Answer | UUID | None:
    """A repeat of a request that is tied to an operation: its outcome, or (unfinished) the operation to wait for.

    None: the operation came to nothing, so the request runs anew.
    """
    with db.transaction() as session:
        operation = _locked(session, operation_id)
        if operation.finished_at is None:
            return _join(session, asked, operation)
    told = _outcome(operation)
    return told if told.status < 500 else None


def withdraw(operation_id: UUID) -> Answer:
    """The wait of a strict caller is over: nothing of its operation is carried out any more, as far as possible.

    503 if it is certain that nothing was; 504 if a call is under way, its outcome unknown, or others still wait.
    """
    while True:
        with db.transaction() as session:
            told = _withdraw(session, operation_id)
        if told is not None:
            return told


def _withdraw(session: Session, operation_id: UUID) -> Answer | None:
    """None: the row has changed since it was read."""
    operation = _locked(session, operation_id)
    seen = workflows.read(session, operation_id)
    if seen is None or operation.finished_at is not None:
        return _outcome(operation)
    undecided = voucher_record.message(504, vouchers.UNDECIDED, operation_id=operation_id)
    if not operation.withdrawable:
        return undecided
    if seen.in_doubt:
        return undecided if workflows.ask(session, seen, "withdraw") else None
    ending = lines.FLOWS[seen.kind].asked(operation)
    ended = voucher_endings.end(session, operation, seen, ending, actor="client", reason="withdrawn")
    return _outcome(operation) if ended else None


def _locked(session: Session, operation_id: UUID) -> VoucherOperation:
    """The operation as it is now, its subscription's voucher locked."""
    found = voucher_operations.find(session, operation_id)
    if found is not None:
        records.lock(session, found.subscription_id)
        found = voucher_operations.find(session, operation_id)
    if found is None:
        raise LookupError(str(operation_id))
    return found
