"""The payload of the declarations contract, 10.1, and ways to change it."""

import copy
import random
from collections.abc import Iterator
from typing import Any

R = "/simpleDeclarationRequest/requestDetail"
_ITEM = {
    "goodsValue": "64.40", "valueCurrency": "USD", "valueCurrencyName": "US dollars (USD)", "originCountry": "US",
    "originCountryName": "United States of America", "exchangeRate": "1.2880", "exchangeRateDate": "2026-11-01",
    "goodsValueGBP": "50.00", "VATRESClaimed": False, "ukVATPaid": False, "euCustomsRelief": False,
}  # fmt: skip
_TOBACCO = {
    "commodityDescription": "Cigars", "quantity": "40", "weight": "150.00", **_ITEM, "exciseGBP": "62.30",
    "customsGBP": "12.00", "vatGBP": "24.86", "ukExcisePaid": False,
}  # fmt: skip
_SPIRITS = {
    "commodityDescription": "Spirits", "volume": "2", **_ITEM, "exciseGBP": "25.28", "customsGBP": "0.00",
    "vatGBP": "15.06", "ukExcisePaid": False, "madeIn": "US",
}  # fmt: skip
_CLOTHING = {
    "commodityDescription": "Adult clothing", "quantity": "1", **_ITEM, "goodsValue": "515.20",
    "goodsValueGBP": "400.00", "exciseGBP": "0.00", "customsGBP": "48.00", "vatGBP": "89.60", "uccRelief": False,
}  # fmt: skip
_PAYLOAD: dict[str, Any] = {
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
                "messageTypes": {"messageType": "DeclarationCreate"}, "portOfEntry": "LHR",
                "portOfEntryName": "Heathrow Airport", "expectedDateOfArrival": "2026-11-21", "timeOfEntry": "09:40",
                "travellingFrom": "NON_EU Only", "onwardTravelGBNI": "GB", "uccRelief": False, "ukVATPaid": False,
                "ukExcisePaid": False,
            },
            "declarationTobacco": {
                "totalExciseTobacco": "62.30", "totalCustomsTobacco": "12.00", "totalVATTobacco": "24.86",
                "declarationItemTobacco": [_TOBACCO],
            },
            "declarationAlcohol": {
                "totalExciseAlcohol": "25.28", "totalCustomsAlcohol": "0.00", "totalVATAlcohol": "15.06",
                "declarationItemAlcohol": [_SPIRITS],
            },
            "declarationOther": {
                "totalExciseOther": "0.00", "totalCustomsOther": "48.00", "totalVATOther": "89.60",
                "declarationItemOther": [_CLOTHING],
            },
            "liabilityDetails": {
                "totalExciseGBP": "87.58", "totalCustomsGBP": "60.00", "totalVATGBP": "129.52",
                "grandTotalGBP": "277.10",
            },
        },
    }
}  # fmt: skip


def payload(**changes: Any) -> dict[str, Any]:
    """The payload anew. `changes`: values by pointer; `...` as a value takes the member away."""
    made = copy.deepcopy(_PAYLOAD)
    for pointer, value in changes.items():
        put(made, pointer, value)
    return made


def put(document: Any, pointer: str, value: Any) -> None:
    """Set (or with `...` take away) what a JSON pointer points to."""
    *way, last = [int(part) if part.isdigit() else part for part in pointer.split("/")[1:]]
    for part in way:
        document = document[part]
    if value is ...:
        del document[last]
    else:
        document[last] = value


def at(document: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        document = document[int(part) if part.isdigit() else part]
    return document


def mutated(chance: random.Random) -> Any:
    """The payload with one to three changes anywhere, also inside of what was changed before."""
    document: Any = payload()
    for _ in range(chance.randint(1, 3)):
        if places := [*_pointers(document, "")]:
            put(document, chance.choice(places), _value(chance))
    return document


def _pointers(document: Any, pointer: str) -> Iterator[str]:
    members: Any = enumerate(document) if isinstance(document, list) else ()
    for name, inner in document.items() if isinstance(document, dict) else members:
        yield f"{pointer}/{name}"
        yield from _pointers(inner, f"{pointer}/{name}")


def _value(chance: random.Random) -> Any:
    return chance.choice(
        [..., None, 0, -1.5, True, "", "x" * 41, "\U0001f600", [], {}, [None], {"": ""}, "2026-11-20", "1.00", "GB"]
    )
