"""What our record alone can answer: whose codes these are, and requests that need no operation and no call.

Source: vouchers contract, 2.4 and 2.6. Called with the voucher locked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from app import db, metrics, states, vouchers
from app.db import Session
from app.flows import voucher_changes
from app.flows.voucher_changes import Change, Codes
from app.models.voucher import Voucher, VoucherCode, VoucherSuspension
from app.store import voucher_codes
from app.store import vouchers as records


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request is answered with. Times in seconds; `operation_id`: the operation that it concerns."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    operation_id: UUID | None = None
    age: int | None = None
    retry_after: int | None = None


_DONE = Answer(status=200, body={})


def pair(card: str, letter: str) -> Mapping[str, str]:
    """The codes as every route shows them."""
    return {"cardCode": card, "letterCode": letter}


def message(status: int, text: str, **more: Any) -> Answer:
    return Answer(status=status, body={"message": text}, **more)


def not_live(subscription_id: str, **more: Any) -> Answer:
    """For what is not there, and for what is another client's."""
    return message(404, vouchers.not_live(subscription_id), **more)


# 2.6: the form with codes


def of_codes(session: Session, client_id: UUID, codes: Codes) -> Change | Answer:
    """Whose codes they are, with the voucher locked; or why nothing can be replaced by them."""
    found = _known(session, client_id, codes)
    if isinstance(found, tuple):
        records.lock(session, found[0].subscription_id)
        found = _known(session, client_id, codes)  # as they are now that nothing changes them any more
    return _judged(found) if isinstance(found, tuple) else found


def _known(session: Session, client_id: UUID, codes: Codes) -> tuple[VoucherCode, VoucherCode] | Answer:
    """The card and the letter of one subscription."""
    cards = voucher_codes.known(session, client_id, "card", codes.card)
    letters = voucher_codes.known(session, client_id, "letter", codes.letter)
    if not cards or not letters:
        return message(404, vouchers.CODES_UNKNOWN)
    pairs = ((card, letter) for card in cards for letter in letters if card.subscription_id == letter.subscription_id)
    return next(pairs, None) or message(422, vouchers.CODES_APART)


def _judged(pair: tuple[VoucherCode, VoucherCode]) -> Change | Answer:
    subscription_id, old = pair[0].subscription_id, [code for code in pair if code.superseded_on]
    if not old:
        return voucher_changes.replace_both(subscription_id)
    today = vouchers.today()
    if not all(code.superseded_on == today and code.superseded_by for code in old):
        return message(409, vouchers.CODES_OLD)
    text = vouchers.already_replaced(subscription_id, [code.kind for code in old], today)
    return message(409, text, operation_id=old[0].superseded_by)


# 2.4: answered from our record


def answer(session: Session, voucher: Voucher, change: Change) -> Answer | None:
    """The answer, where no call is needed for it."""
    if change.operation == "replace" and (refusal := _day_rule(session, change)):
        return refusal
    return _in_step(session, voucher, change) if records.in_step(session, voucher) else None


def _in_step(session: Session, voucher: Voucher, change: Change) -> Answer | None:
    suspensions = records.suspensions(session, voucher.subscription_id)
    state = records.state_on(voucher, suspensions, vouchers.today())
    if state == states.Voucher.CANCELLED:
        return _of_cancelled(change)
    match change.operation:
        case "create":
            return _of_live(voucher, str(change.parameters["scheme"]))
        case "cancel" if voucher.cancel_on and change.parameters["cancellationDate"] == voucher.cancel_on.isoformat():
            return _DONE
        case "suspend":
            return _of_suspensions(suspensions, change)
    return None


def _day_rule(session: Session, change: Change) -> Answer | None:
    kinds, today = vouchers.asked_kinds(change.parameters), vouchers.today()
    used = records.used_up(session, change.subscription_id, kinds, today)
    if not used:
        return None
    db.after_commit(session, metrics.voucher_replacements_refused.inc)
    text = vouchers.already_replaced(change.subscription_id, used, today)
    return message(409, text, operation_id=next(iter(used.values())))


def _of_cancelled(change: Change) -> Answer | None:
    match change.operation:
        case "cancel":
            return _DONE
        case "replace" | "suspend":
            return not_live(change.subscription_id)
    return None


def _of_live(voucher: Voucher, scheme: str) -> Answer:
    if vouchers.same_scheme(voucher.scheme, scheme):
        return Answer(status=201, body=pair(str(voucher.card_code), str(voucher.letter_code)))
    return message(409, vouchers.plan_conflict(voucher.subscription_id, str(voucher.scheme), scheme))


def _of_suspensions(recorded: Sequence[VoucherSuspension], change: Change) -> Answer | None:
    start, end = (date.fromisoformat(change.parameters[name]) for name in ("startDate", "endDateExclusive"))
    if records.is_suspended_throughout(recorded, start, end):
        return _DONE
    overlaps = any(one.starts_on < end and start < one.ends_on for one in recorded)
    return message(409, vouchers.HOLIDAY_CONFLICT) if overlaps else None
