"""The example of the declarations contract, 10.1, in its stages, as the documentation shows it."""

from typing import Any

from app.charge_references import placed

REFERENCE = "XFPR0000000123"
_Value = dict[str, Any]
_AT, _PAID_AT, _ENDED_AT = "2026-11-20T18:05:07.412Z", "2026-11-20T18:09:30.051Z", "2026-11-20T18:09:30.263Z"


def _goods(**more: str | bool) -> _Value:
    return {
        "valueCurrency": "USD",
        "valueCurrencyName": "US dollars (USD)",
        "originCountry": "US",
        "originCountryName": "United States of America",
        "exchangeRate": "1.2880",
        "exchangeRateDate": "2026-11-01",
        "VATRESClaimed": False,
        "ukVATPaid": False,
        "euCustomsRelief": False,
        **more,
    }


_CLOTHING = _goods(
    commodityDescription="Adult clothing", quantity="1", goodsValue="515.20", goodsValueGBP="400.00", exciseGBP="0.00",
    customsGBP="48.00", vatGBP="89.60", uccRelief=False,
)  # fmt: skip
PAYLOAD: _Value = {
    "simpleDeclarationRequest": {
        "requestCommon": {
            "receiptDate": "2026-11-20T18:05:00Z",
            "requestParameters": [{"paramName": "REGIME", "paramValue": "PNGR"}],
        },
        "requestDetail": {
            "customerReference": {"idType": "passport", "idValue": "SAMPLE0001", "ukResident": True},
            "personalDetails": {"firstName": "Sample", "lastName": "Traveller"},
            "contactDetails": {"emailAddress": "traveller@example.org"},
            "declarationHeader": {
                "messageTypes": {"messageType": "DeclarationCreate"},
                "portOfEntry": "LHR",
                "portOfEntryName": "Heathrow Airport",
                "expectedDateOfArrival": "2026-11-21",
                "timeOfEntry": "09:40",
                "travellingFrom": "NON_EU Only",
                "onwardTravelGBNI": "GB",
                "uccRelief": False,
                "ukVATPaid": False,
                "ukExcisePaid": False,
            },
            "declarationOther": {
                "totalExciseOther": "0.00",
                "totalCustomsOther": "48.00",
                "totalVATOther": "89.60",
                "declarationItemOther": [_CLOTHING],
            },
            "liabilityDetails": {
                "totalExciseGBP": "0.00",
                "totalCustomsGBP": "48.00",
                "totalVATGBP": "89.60",
                "grandTotalGBP": "137.60",
            },
        },
    }
}
STORED = placed(PAYLOAD, REFERENCE, f"{REFERENCE}0")
ACCEPTED = {"_id": REFERENCE, "data": STORED, "lastUpdated": _AT, "state": "pending-payment"}


def _entry(at: str, event: str, of: str | None, to: str | None, by: str, **detail: Any) -> _Value:
    return {"at": at, "event": event, "from": of, "to": to, "by": by, "detail": detail}


def _shown(state: str, timeline: list[_Value], **more: Any) -> _Value:
    return {
        "chargeReference": REFERENCE,
        "state": state,
        "correlationId": "d-7f6b2d1e",
        "acknowledgementReference": f"{REFERENCE}0",
        "createdAt": _AT,
        "lastUpdated": timeline[-1]["at"],
        "paidAt": _PAID_AT,
        "finishedAt": timeline[-1]["at"],
        "paymentDueAt": None,
        "paymentTimedOut": False,
        "erasedAt": None,
        "submission": {"attempts": 1, "nextAttemptAt": None, "error": None, "uncertain": False, "release": None},
        "timeline": timeline,
        "amendments": [],
    } | more


_WAITS = [_entry(_AT, "accepted", None, "pending-payment", "client")]
_PAID = [
    *_WAITS,
    _entry(_PAID_AT, "payment-successful", "pending-payment", "paid", "client", correlationId="p-91"),
]


def _attempt(outcome: str, status: int, error: str | None) -> _Value:
    told = {"attempt": 1, "outcome": outcome, "status": status, "error": error, "durationMs": 173}
    return _entry("2026-11-20T18:09:30.090Z", "attempt", None, None, "worker", **told)


UNPAID = _shown(
    "pending-payment", _WAITS, paidAt=None, finishedAt=None, paymentDueAt="2026-12-04T18:05:07.412Z",
    submission={"attempts": 0, "nextAttemptAt": None, "error": None, "uncertain": False, "release": None},
)  # fmt: skip
SUBMITTED = _shown(
    "submitted", [*_PAID, _attempt("ok", 204, None), _entry(_ENDED_AT, "submitted", "paid", "submitted", "worker")]
)
FAILED = _shown(
    "failed",
    [*_PAID, _attempt("rejected", 400, "mdg-400"), _entry(_ENDED_AT, "failed", "paid", "failed", "worker")],
    submission={
        "attempts": 1, "nextAttemptAt": None, "error": "mdg-400", "uncertain": False, "release": "2026.11.1",
    },
)  # fmt: skip
WITH_DATA = UNPAID | {"data": STORED, "journeyData": None, "faults": []}
