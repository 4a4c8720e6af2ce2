"""Showing a voucher and its redemptions: from our record where it is in step, else read at i-Movo, which updates it.

Source: vouchers contract, 2.5 and 2.8. While an operation of the subscription is unfinished a read changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app import clock, db, states, vouchers
from app.db import Session
from app.flows import voucher_reads, voucher_record
from app.flows.voucher_calls import codes_of, missing
from app.flows.voucher_reads import NotLive, NotShown, Unreachable
from app.flows.voucher_record import Answer
from app.models.voucher import Voucher
from app.store import voucher_operations
from app.store import vouchers as records
from app.upstreams.imovo_answers import Pair, Redemption

_CREATE_RETRY = 5


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who reads. `ends`: when the answer is due, by the monotonic clock."""

    client_id: UUID
    correlation_id: str
    ends: float


@dataclass(frozen=True)
class _Mark:
    """What our record was like before a read; a read counts only if nothing has happened since."""

    sequence: int
    confirmed_at: Any
    at_rest: bool


def known(reader: Reader, subscription_id: str) -> Answer | None:
    """The answer of our record; None where i-Movo has to be asked."""
    with db.transaction() as session:
        voucher = records.load(session, subscription_id)
        if _is_foreign(voucher, reader):
            return voucher_record.not_live(subscription_id)
        if voucher is None or not records.in_step(session, voucher):
            return None
        return _shown(voucher)


def _shown(voucher: Voucher) -> Answer | None:
    if records.is_live(voucher):
        age = int((clock.now() - voucher.confirmed_at).total_seconds()) if voucher.confirmed_at else 0
        body = voucher_record.pair(str(voucher.card_code), str(voucher.letter_code))
        return Answer(status=200, body=body, age=max(age, 0))
    cancelled = records.state_on(voucher, (), vouchers.today()) == states.Voucher.CANCELLED
    return voucher_record.not_live(voucher.subscription_id) if cancelled else None


def read(reader: Reader, subscription_id: str) -> Answer:
    """What i-Movo shows now. Our record follows, and the first client to read a voucher owns it."""
    with db.transaction() as session:
        voucher = records.load(session, subscription_id)
        if _is_foreign(voucher, reader):
            return voucher_record.not_live(subscription_id)
        mark = _mark(session, voucher, subscription_id)
    try:
        pair = voucher_reads.voucher(subscription_id, correlation_id=reader.correlation_id, ends=reader.ends)
    except NotLive:
        return _not_live(reader, subscription_id, mark)
    except NotShown as failed:
        return voucher_record.message(502, vouchers.could_not_show("voucher", failed.texts))
    except Unreachable as failed:
        return unreachable(failed.again)
    return _live(reader, subscription_id, mark, pair)


def _live(reader: Reader, subscription_id: str, mark: _Mark, pair: Pair) -> Answer:
    codes = codes_of(pair)
    if gone := missing(pair):
        return voucher_record.message(502, vouchers.incomplete(subscription_id, gone))
    with db.transaction() as session:
        voucher = records.lock(session, subscription_id)
        if _is_foreign(voucher, reader):
            return voucher_record.not_live(subscription_id)
        if mark.at_rest and mark == _mark(session, voucher, subscription_id):
            records.adopt(session, voucher, scheme=pair.scheme, codes=codes, client_id=reader.client_id)
    return Answer(status=200, body=voucher_record.pair(codes["card"], codes["letter"]), age=0)


def _not_live(reader: Reader, subscription_id: str, mark: _Mark) -> Answer:
    with db.transaction() as session:
        if records.load(session, subscription_id) is None:
            return voucher_record.not_live(subscription_id)
        voucher = records.lock(session, subscription_id)
        if not _is_foreign(voucher, reader):
            if mark.at_rest and mark == _mark(session, voucher, subscription_id):
                records.not_live(session, voucher)
            create = voucher_operations.unfinished_create(session, subscription_id)
            if create is not None:
                return voucher_record.not_live(subscription_id, operation_id=create, retry_after=_CREATE_RETRY)
    return voucher_record.not_live(subscription_id)


def history(reader: Reader, subscription_id: str, limit: int) -> Answer:
    """The latest redemptions of a voucher, also of one that is cancelled. Nothing of it is stored."""
    with db.transaction() as session:
        voucher = records.load(session, subscription_id)
        if _is_foreign(voucher, reader):
            return voucher_record.not_live(subscription_id)
        recorded = voucher is not None and voucher.state is not None
    try:
        lines = voucher_reads.history(subscription_id, limit, correlation_id=reader.correlation_id, ends=reader.ends)
    except NotLive:
        return _history([]) if recorded else voucher_record.not_live(subscription_id)
    except NotShown as failed:
        return voucher_record.message(502, vouchers.could_not_show("redemption history", failed.texts))
    except Unreachable as failed:
        return unreachable(failed.again)
    return _history([_attempt(line) for line in lines])


def _history(attempts: list[Mapping[str, Any]]) -> Answer:
    return Answer(status=200, body={"redemptionAttempts": attempts})


def _attempt(line: Redemption) -> Mapping[str, Any]:
    return {
        "voucherCode": line.voucher_code,
        "voucherType": line.voucher_type,
        "actionDate": line.date,
        "activityType": line.activity_type,
        "address": line.address,
        "postCode": line.post_code,
        "message": line.reason,
        "value": line.value,
        "amount": line.value,
    }


def unreachable(again: int = voucher_reads.AGAIN) -> Answer:
    """No answer of i-Movo; `again`: seconds until it is worth another try."""
    return voucher_record.message(503, vouchers.UNREACHABLE, retry_after=again)


def _is_foreign(voucher: Voucher | None, reader: Reader) -> bool:
    return voucher is not None and voucher.client_id not in {None, reader.client_id}


def _mark(session: Session, voucher: Voucher | None, subscription_id: str) -> _Mark:
    unfinished = voucher_operations.newest_unfinished(session, subscription_id)
    return _Mark(
        sequence=voucher.last_sequence if voucher else 0,
        confirmed_at=voucher.confirmed_at if voucher else None,
        at_rest=unfinished is None,
    )
