"""Digital vouchers: the pure rules of the line, its London dates and the words it answers with.

Sources: vouchers contract, 2.3 to 2.10 (texts), 2.6 (schemes), 2.7 (dates), 3.3 (end of a suspension). Every "today",
"tomorrow" and "day" is a calendar date in VOUCHER_TIME_ZONE; no text here ever holds a code.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from app import clock, config

KINDS = ("card", "letter")
_DAY = timedelta(days=1)
_LIFTED_AT = time(2, 20, tzinfo=UTC)
_PLANS = {
    "Everyday": "Guardian7Day",
    "Sixday": "Guardian6Day",
    "Weekend": "GuardianWeekend",
    "Saturday": "GuardianSaturday",
    "Sunday": "GuardianSunday",
}
# i-Movo's name for the weekly pattern of each rate plan; exact and case-sensitive (contract 2.6).
SCHEMES: Mapping[str, str] = MappingProxyType(
    {plan + plus: scheme for plan, scheme in _PLANS.items() for plus in ("", "+")}
)


# Dates


def today() -> date:
    """The present London date."""
    return clock.now().astimezone(ZoneInfo(config.settings().vouchers.time_zone)).date()


def tomorrow() -> date:
    """The London date after today's."""
    return today() + _DAY


def lifted_at(ends_on: date) -> datetime:
    """From when on i-Movo takes a holiday again after a suspension that ends on this date (contract 3.3)."""
    return datetime.combine(ends_on, _LIFTED_AT)


# Words


def named(kinds: Collection[str]) -> str:
    """`card`, `letter` or `card and letter`."""
    return " and ".join(kind for kind in KINDS if kind in kinds)


def asked_kinds(parameters: Mapping[str, Any]) -> list[str]:
    """The kinds that a replacement with these parameters is to replace."""
    return [kind for kind in KINDS if parameters[f"replace{kind.capitalize()}"]]


def same_scheme(one: str | None, other: str | None) -> bool:
    """Schemes are compared ignoring case (contract 4)."""
    return one is not None and other is not None and one.casefold() == other.casefold()


# 2.3: not finished

NOT_FINISHED = "Accepted, not finished yet"
UNDECIDED = "i-Movo did not answer in time; the outcome is still being determined"

# 2.10: how an operation ended

HOLIDAY_CONFLICT = "i-Movo already has a holiday within these dates"
OUTCOME_UNKNOWN = "It is not known whether i-Movo carried out the request; an operator was told"
GIVEN_UP = "i-Movo cannot be reached; nothing was changed"
WITHDRAWN = "Not carried out in time; nothing was changed"
START_DATE_PASSED = "The start date passed before i-Movo took the request; nothing was changed"


def not_live(subscription_id: str) -> str:
    return f"No live voucher for subscription {subscription_id}"


def plan_conflict(subscription_id: str, has: str, asked: str) -> str:
    return f"Subscription {subscription_id} already has a voucher of scheme {has}; {asked} was asked for"


def already_replaced(subscription_id: str, kinds: Collection[str], on: date) -> str:
    return f"The {named(kinds)} of subscription {subscription_id} was already replaced on {on.isoformat()}"


def currently_suspended(until: date) -> str:
    return f"The voucher is suspended until {until.isoformat()}; i-Movo takes no other holiday that follows directly"


def refused(operation: str, texts: str) -> str:
    """`texts`: i-Movo's, already scrubbed; may be empty."""
    return f"i-Movo refused to {operation} the voucher: {texts or 'no reason given'}"


def incomplete(subscription_id: str, kinds: Collection[str]) -> str:
    return f"i-Movo answered without a live {named(kinds)} for subscription {subscription_id}"


def unchanged(kinds: Collection[str]) -> str:
    return f"i-Movo reported a replacement but the {named(kinds)} did not change"


# 2.5 and 2.8: reads

UNREACHABLE = "i-Movo cannot be reached"
FAULTY = "faulty answer"


def could_not_show(what: str, texts: str) -> str:
    """`what`: `voucher` or `redemption history`; `texts`: i-Movo's, already scrubbed, or FAULTY."""
    return f"i-Movo could not show the {what}: {texts or 'no reason given'}"


# 2.1, 2.6 and 2.7: refused requests

CODES_REQUIRED = "cardCode and letterCode are both required"
CODES_UNKNOWN = "No voucher has these codes"
CODES_APART = "cardCode and letterCode belong to different subscriptions"
CODES_OLD = "These codes are no longer current"
SUBSCRIPTION_REQUIRED = "subscriptionId is required"
NOTHING_TO_REPLACE = "Both replacement flags are set to false - nothing to replace"
START_REQUIRED = "startDate is required"
END_REQUIRED = "endDateExclusive is required"
END_BEFORE_START = "endDateExclusive must be after startDate"
START_TOO_EARLY = "startDate must be tomorrow or later"


def no_scheme(plan: str) -> str:
    return f"Rate plan name has no matching scheme name: {plan}"


def flag_required(flag: str) -> str:
    """`flag`: `replaceCard` or `replaceLetter`."""
    return f"{flag} flag is required when asking for a replacement"


def reserved(word: str) -> str:
    return f"{word} is a reserved word and cannot be a subscription id"
