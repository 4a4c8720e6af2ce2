"""What the documentation shows for every answer of the voucher routes. Source: vouchers contract, section 10."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from app import vouchers

SUBSCRIPTION = "a2F5I000003KvWxUAK"
OPERATION = "0195870e-5c1a-7b52-9d0e-3f7e6f1c2a44"
_DAY = date(2025, 3, 10)
_AT, _LATER = "2025-03-10T09:30:00.120Z", "2025-03-10T09:30:15.871Z"
_BOTH = {"replaceCard": True, "replaceLetter": True}

CREATE = {"ratePlanName": "Everyday+"}
PAIR = {"cardCode": "6027181854", "letterCode": "9410023375"}
REPLACE: Mapping[str, Any] = {"subscription": {"subscriptionId": SUBSCRIPTION, **_BOTH}, "codes": PAIR}
CANCEL = {
    "at-once": {"subscriptionId": SUBSCRIPTION},
    "on-a-day": {"subscriptionId": SUBSCRIPTION, "cancellationDate": "2028-03-01"},
}
SUSPEND = {"subscriptionId": SUBSCRIPTION, "startDate": "2099-04-01", "endDateExclusive": "2099-04-08"}
NEW_CODES = {"both": {"cardCode": "6027185520", "letterCode": "9410027719"}, "card": {"cardCode": "6027185520"}}
ACCEPTED = {"message": vouchers.NOT_FINISHED, "operationId": OPERATION, "state": "calling"}
HISTORY: Mapping[str, Any] = {
    "redemptionAttempts": [
        {
            "voucherCode": "6027181854",
            "voucherType": "Card",
            "actionDate": "2025-02-17T10:45:20.787",
            "activityType": "Redemption",
            "address": None,
            "postCode": "CB2 1TN",
            "message": "Success",
            "value": 1.0,
            "amount": 1.0,
        }
    ]
}
LISTED: dict[str, Any] = {
    "operationId": OPERATION,
    "subscriptionId": SUBSCRIPTION,
    "kind": "replace",
    "parameters": _BOTH,
    "origin": "api",
    "state": "succeeded",
    "outcomeCode": "done",
    "sends": 1,
    "correlationId": "crm-77120",
    "createdAt": _AT,
    "updatedAt": _LATER,
    "nextAttemptAt": None,
    "finishedAt": _LATER,
}
OPERATIONS: Mapping[str, Any] = {
    "succeeded": LISTED | {"answer": {"status": 200, "body": NEW_CODES["both"]}},
    "unfinished": LISTED
    | {"state": "calling", "outcomeCode": None, "updatedAt": _AT, "finishedAt": None, "answer": None},
    "operator": LISTED,
}
RECORD = {
    "subscriptionId": SUBSCRIPTION,
    "state": "active",
    "scheme": "Guardian7Day",
    "lastReplacedOn": "2025-03-10",
    "provisionedAt": None,
    "cancelOn": None,
    "confirmedAt": _LATER,
    "suspensions": [{"startDate": "2025-04-01", "endDateExclusive": "2025-04-08"}],
    "operations": [LISTED],
    "nextCursor": None,
}

_DECODE = "Failed to decode request body: "
# Per status, the messages of refusals and failures by a name for each.
OF_ALL: Mapping[int, Mapping[str, str]] = {
    400: {"header": "The header X-Correlation-ID is not usable."},
    401: {"unauthorized": "Unauthorized"},
    403: {"forbidden": "Forbidden"},
    404: {"switched-off": "Digital vouchers are switched off", "not-live": vouchers.not_live(SUBSCRIPTION)},
    422: {"reserved": vouchers.reserved("reports")},
    500: {"internal-error": "The error is logged under the correlation id."},
    503: {"database": "Try again in a few seconds."},
}
OF_BODIES: Mapping[int, Mapping[str, str]] = {
    400: {"body": _DECODE + "the body must be a JSON object"},
    413: {"too-large": "A body may have 102400 bytes here."},
    415: {"media-type": "Send application/json."},
}
OF_CHANGES: Mapping[int, Mapping[str, str]] = {
    409: {"in-progress": "The first request with this key is still being accepted."},
    422: {"other-request": "This Idempotency-Key was used for another request."},
    502: {"refused": vouchers.refused("cancel", "An error has occurred")},
    503: {"unknown": vouchers.OUTCOME_UNKNOWN, "given-up": vouchers.GIVEN_UP, "withdrawn": vouchers.WITHDRAWN},
    504: {"undecided": vouchers.UNDECIDED},
}
OF_CREATE: Mapping[int, Mapping[str, str]] = {
    400: {"plan-missing": _DECODE + "ratePlanName is required"},
    409: {"other-plan": vouchers.plan_conflict(SUBSCRIPTION, "Guardian7Day", "GuardianWeekend")},
    422: {"no-scheme": vouchers.no_scheme("Fortnight")},
    502: {"incomplete": vouchers.incomplete(SUBSCRIPTION, ["letter"])},
}
OF_REPLACE: Mapping[int, Mapping[str, str]] = {
    404: {"codes-unknown": vouchers.CODES_UNKNOWN},
    409: {
        "already-replaced": vouchers.already_replaced(SUBSCRIPTION, ["card", "letter"], _DAY),
        "codes-old": vouchers.CODES_OLD,
    },
    422: {"nothing": vouchers.NOTHING_TO_REPLACE, "two-subscriptions": vouchers.CODES_APART},
    502: {"unchanged": vouchers.unchanged(["card"])},
}
OF_SUSPEND: Mapping[int, Mapping[str, str]] = {
    409: {
        "holiday": vouchers.HOLIDAY_CONFLICT,
        "suspended": vouchers.currently_suspended(_DAY),
        "too-late": vouchers.START_DATE_PASSED,
    },
    422: {"order": vouchers.END_BEFORE_START},
}
OF_SHOW: Mapping[int, Mapping[str, str]] = {
    422: {"refresh": "refresh must be true or false"},
    502: {
        "incomplete": vouchers.incomplete(SUBSCRIPTION, ["card"]),
        "faulty": vouchers.could_not_show("voucher", vouchers.FAULTY),
    },
    503: {"unreachable": vouchers.UNREACHABLE},
}
OF_HISTORY: Mapping[int, Mapping[str, str]] = {
    422: {"limit": "limit must be a whole number from 1 to 100"},
    502: {"faulty": vouchers.could_not_show("redemption history", vouchers.FAULTY)},
    503: {"unreachable": vouchers.UNREACHABLE},
}
