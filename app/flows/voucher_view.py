"""Operations and the record of a subscription as their owner sees them. Source: vouchers contract, 2.9."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from app import db, states, vouchers
from app.models.voucher import Voucher, VoucherOperation, VoucherSuspension
from app.store import voucher_operations
from app.store import vouchers as records

_NEVER = datetime.max.replace(tzinfo=UTC)
_WAITS = {states.VoucherOperation.QUEUED, states.VoucherOperation.CHECKING}


def operation(operation_id: UUID, client_id: UUID, *, as_operator: bool) -> dict[str, Any] | None:
    """An operation that the client has started or whose subscription is his, with its answer.

    An operator sees every client's without its answer. None: there is none.
    """
    with db.transaction() as session:
        found = voucher_operations.visible(session, operation_id, client_id)
        if found is not None:
            return _operation(found) | {"answer": found.answer}
        found = voucher_operations.visible(session, operation_id, None) if as_operator else None
        return _operation(found) if found else None


def subscription(
    subscription_id: str, client_id: UUID, *, as_operator: bool, before: int | None, limit: int
) -> dict[str, Any] | None:
    """The record of a subscription and a page of its operations, older than sequence `before`.

    Of one that is nobody's yet a client sees the operations that he has started. None: it is unknown to him.
    """
    with db.transaction() as session:
        voucher = records.load(session, subscription_id)
        if voucher is None:
            return None
        is_own = voucher.client_id == client_id or as_operator
        whose = None if is_own else client_id
        page = voucher_operations.listed(session, subscription_id, client_id=whose, before=before, limit=limit + 1)
        if not is_own and (voucher.client_id is not None or not page):
            return None
        suspensions = records.suspensions(session, subscription_id)
    return _record(voucher, suspensions) | _page(page, limit)


def _record(voucher: Voucher, suspensions: Sequence[VoucherSuspension]) -> dict[str, Any]:
    return {
        "subscriptionId": voucher.subscription_id,
        "state": records.state_on(voucher, suspensions, vouchers.today()),
        "scheme": voucher.scheme,
        "lastReplacedOn": _day(voucher.last_replaced_on),
        "provisionedAt": _time(voucher.provisioned_at),
        "cancelOn": _day(voucher.cancel_on),
        "confirmedAt": _time(voucher.confirmed_at),
        "suspensions": [
            {"startDate": one.starts_on.isoformat(), "endDateExclusive": one.ends_on.isoformat()} for one in suspensions
        ],
    }


def _page(operations: Sequence[VoucherOperation], limit: int) -> dict[str, Any]:
    shown = operations[:limit]
    following = str(shown[-1].sequence) if len(operations) > limit else None
    return {"operations": [_operation(one) for one in shown], "nextCursor": following}


def _operation(one: VoucherOperation) -> dict[str, Any]:
    waits = one.state in _WAITS and one.worker is None
    return {
        "operationId": str(one.id),
        "subscriptionId": one.subscription_id,
        "kind": one.operation,
        "parameters": one.parameters,
        "origin": one.origin,
        "state": one.state,
        "outcomeCode": one.outcome_code,
        "sends": one.sends,
        "correlationId": one.correlation_id,
        "createdAt": _time(one.created_at),
        "updatedAt": _time(one.updated_at),
        "nextAttemptAt": _time(one.due_at) if waits else None,
        "finishedAt": _time(one.finished_at),
    }


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, with milliseconds; None also for what waits for something else."""
    if moment is None or moment == _NEVER:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
