"""What a request about a voucher asks for, read from its path and body. Source: vouchers contract, 2.1, 2.6 and 2.7.

What cannot be read is refused with 400 first (type, calendar), then what breaks a rule with 422, in the contract's
order. `null` counts as absent, unknown members are ignored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from app import errors, vouchers

SUBSCRIPTION_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
RESERVED = frozenset({"create", "replace", "cancel", "suspend", "redemption-history", "operations", "reports"})
_LONGEST_PLAN = 100
_FIRST, _LAST = date(2000, 1, 1), date(2099, 12, 31)
Body = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of one subscription's voucher. `parameters`: as the operation shows them."""

    operation: str
    subscription_id: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The codes of a voucher whose two kinds are both to be replaced."""

    card: str = field(repr=False)
    letter: str = field(repr=False)


def undecodable(reason: str) -> errors.Refused:
    """A body that cannot be read."""
    return errors.Refused(400, "malformed-json", reason)


def refused(message: str) -> errors.Refused:
    """A body that can be read but breaks a rule."""
    return errors.Refused(422, "invalid-request", message)


def subscription(id: str) -> str:
    """The id, exactly as sent. Raises Refused for what cannot be one."""
    if id.lower() in RESERVED:
        raise refused(vouchers.reserved(id))
    if not re.fullmatch(SUBSCRIPTION_ID, id):
        raise refused("subscriptionId must be 1 to 64 letters, digits, underscores or hyphens")
    return id


def create(subscription_id: str, body: Body) -> Change:
    """Routes 2 and 5. Raises Refused."""
    plan = _text(body, "ratePlanName")
    if plan is None:
        raise undecodable("ratePlanName is required")
    subscription(subscription_id)
    if not 1 <= len(plan) <= _LONGEST_PLAN:
        raise refused(f"ratePlanName must have 1 to {_LONGEST_PLAN} characters")
    if plan not in vouchers.SCHEMES:
        raise refused(vouchers.no_scheme(plan))
    return Change(operation="create", subscription_id=subscription_id, parameters={"scheme": vouchers.SCHEMES[plan]})


def replace(body: Body) -> Change | Codes:
    """Routes 3 and 7. Raises Refused."""
    subject = _text(body, "subscriptionId")
    if subject is None and (body.get("cardCode") is not None or body.get("letterCode") is not None):
        return _codes(body)
    flags = {name: _flag(body, name) for name in ("replaceCard", "replaceLetter")}
    if subject is None:
        raise refused(vouchers.SUBSCRIPTION_REQUIRED)
    subscription(subject)
    for name, flag in flags.items():
        if flag is None:
            raise refused(vouchers.flag_required(name))
    if not any(flags.values()):
        raise refused(vouchers.NOTHING_TO_REPLACE)
    return Change(operation="replace", subscription_id=subject, parameters=flags)


def replace_both(subscription_id: str) -> Change:
    """What the form with codes asks for, once it is known whose they are."""
    both = {"replaceCard": True, "replaceLetter": True}
    return Change(operation="replace", subscription_id=subscription_id, parameters=both)


def cancel(subscription_id: str, on: date | None = None) -> Change:
    """Routes 4 and 8: at once, or with the first day without voucher."""
    shown = on.isoformat() if on else None
    return Change(operation="cancel", subscription_id=subscription_id, parameters={"cancellationDate": shown})


def read_cancel(body: Body) -> Change:
    """Route 8. Raises Refused."""
    subject, on = _text(body, "subscriptionId"), _day(body, "cancellationDate")
    if subject is None:
        raise undecodable(vouchers.SUBSCRIPTION_REQUIRED)
    return cancel(subscription(subject), _within(on, "cancellationDate") if on else None)


def suspend(body: Body) -> Change:
    """Route 9. Raises Refused."""
    subject, start, end = _text(body, "subscriptionId"), _day(body, "startDate"), _day(body, "endDateExclusive")
    if subject is None:
        raise refused(vouchers.SUBSCRIPTION_REQUIRED)
    subscription(subject)
    if start is None:
        raise refused(vouchers.START_REQUIRED)
    if end is None:
        raise refused(vouchers.END_REQUIRED)
    if _within(end, "endDateExclusive") <= _within(start, "startDate"):
        raise refused(vouchers.END_BEFORE_START)
    if start < vouchers.tomorrow():
        raise refused(vouchers.START_TOO_EARLY)
    shown = {"startDate": start.isoformat(), "endDateExclusive": end.isoformat()}
    return Change(operation="suspend", subscription_id=subject, parameters=shown)


def _codes(body: Body) -> Codes:
    card, letter = _text(body, "cardCode"), _text(body, "letterCode")
    if card is None or letter is None:
        raise refused(vouchers.CODES_REQUIRED)
    return Codes(card=card, letter=letter)


# Members


def _text(body: Body, name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise undecodable(f"{name} must be a string")
    return value


def _flag(body: Body, name: str) -> bool | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise undecodable(f"{name} must be true or false")
    return value


def _day(body: Body, name: str) -> date | None:
    text = _text(body, name)
    if text is None:
        return None
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise undecodable(f"{name} must be a date of the calendar, e.g. 2025-03-10") from None


def _within(day: date, name: str) -> date:
    if not _FIRST <= day <= _LAST:
        raise refused(f"{name} must lie in {_FIRST.isoformat()}..{_LAST.isoformat()}")
    return day
