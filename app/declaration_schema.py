"""What the payload of a declaration may hold, as tables. Source: declarations contract, 2.10.

Patterns match the whole string. Objects allow only the properties listed; `null` is never valid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

Kind = Union["Object", "Array", "Text", "Flag"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a string must be beyond its pattern: a real day or time. `parse`: for `strptime`."""

    shown: str
    parse: str


@dataclass(frozen=True, kw_only=True)
class Text:
    """A string. Lengths count code points."""

    least: int = 0
    most: int | None = None
    words: tuple[str, ...] = ()
    pattern: str | None = None
    format: Format | None = None


@dataclass(frozen=True)
class Flag:
    """True or false."""


@dataclass(frozen=True)
class Array:
    of: "Object"


@dataclass(frozen=True, kw_only=True)
class Object:
    """`least`: how many properties there must be. `ours`: one that we set; what a client puts there does not count."""

    required: Mapping[str, Kind] = field(default_factory=dict)
    optional: Mapping[str, Kind] = field(default_factory=dict)
    least: int = 0
    ours: str | None = None

    @property
    def properties(self) -> Mapping[str, Kind]:
        return {**self.required, **self.optional}


def _all(kind: Kind, *names: str) -> dict[str, Kind]:
    return dict.fromkeys(names, kind)


_BOOL = Flag()
_D2 = Text(most=14, pattern="^-?[0-9]{1,11}[.][0-9]{1,2}$")
_D5 = Text(most=13, pattern="^-?[0-9]{1,7}[.][0-9]{1,5}$")
_DATE = Text(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", format=Format(shown="yyyy-MM-dd", parse="%Y-%m-%d"))
_TIME = Text(pattern="^[0-9]{2}:[0-9]{2}$", format=Format(shown="HH:mm", parse="%H:%M"))
_DT = Text(
    pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
    format=Format(shown="yyyy-MM-dd'T'HH:mm:ss'Z'", parse="%Y-%m-%dT%H:%M:%SZ"),
)


def _string(least: int, most: int) -> Text:
    return Text(least=least, most=most)


_EVERY_ITEM: Mapping[str, Kind] = {
    **_all(_string(1, 40), "commodityDescription", "valueCurrencyName", "madeIn"),
    **_all(_string(1, 3), "valueCurrency", "originCountry"),
    "originCountryName": _string(1, 60),
    **_all(_D2, "goodsValue", "goodsValueGBP", "exciseGBP", "customsGBP", "vatGBP"),
    "exchangeRate": _D5,
    "exchangeRateDate": _DATE,
    **_all(_BOOL, "VATRESClaimed", "ukVATPaid", "euCustomsRelief"),
}


def _goods(name: str, **of_its_items: Kind) -> Object:
    """`declaration<name>`: three totals and the items."""
    items = Array(Object(optional={**_EVERY_ITEM, **of_its_items}))
    totals = _all(_D2, f"totalExcise{name}", f"totalCustoms{name}", f"totalVAT{name}")
    return Object(optional={**totals, f"declarationItem{name}": items})


_AMOUNT = _string(1, 17)

REQUEST_COMMON = Object(
    required={
        "receiptDate": _DT,
        "requestParameters": Array(Object(required={"paramName": _string(1, 100), "paramValue": _string(1, 255)})),
    },
    ours="acknowledgementReference",
)
DECLARATION_HEADER = Object(
    required={
        "messageTypes": Object(required={"messageType": Text(words=("DeclarationCreate", "DeclarationAmend"))}),
        "travellingFrom": _string(1, 60),
        "onwardTravelGBNI": Text(words=("GB", "NI")),
        **_all(_BOOL, "uccRelief", "ukVATPaid", "ukExcisePaid"),
    },
    optional={
        **_all(_string(1, 40), "portOfEntry", "portOfEntryName"),
        "expectedDateOfArrival": _DATE,
        "timeOfEntry": _TIME,
    },
    ours="chargeReference",
)
REQUEST_DETAIL = Object(
    required={
        "customerReference": Object(required={**_all(_string(1, 40), "idType", "idValue"), "ukResident": _BOOL}),
        "contactDetails": Object(optional={"emailAddress": _string(0, 132)}),
        "declarationHeader": DECLARATION_HEADER,
        "liabilityDetails": Object(
            required={"grandTotalGBP": _D2},
            optional=_all(_D2, "totalExciseGBP", "totalCustomsGBP", "totalVATGBP"),
            least=1,
        ),
    },
    optional={
        "personalDetails": Object(required=_all(_string(1, 35), "firstName", "lastName")),
        "declarationTobacco": _goods("Tobacco", quantity=_AMOUNT, weight=_AMOUNT, ukExcisePaid=_BOOL),
        "declarationAlcohol": _goods("Alcohol", volume=_AMOUNT, ukExcisePaid=_BOOL),
        "declarationOther": _goods("Other", quantity=_AMOUNT, uccRelief=_BOOL),
        "amendmentLiabilityDetails": Object(
            optional=_all(_D2, "additionalExciseGBP", "additionalCustomsGBP", "additionalVATGBP", "additionalTotalGBP")
        ),
    },
    least=1,
)
PAYLOAD = Object(
    required={
        "simpleDeclarationRequest": Object(required={"requestCommon": REQUEST_COMMON, "requestDetail": REQUEST_DETAIL})
    },
    least=1,
)
