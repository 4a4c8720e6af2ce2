"""Expense types of a travel claim: one table. Adding a type is adding one entry to `TYPES`.

Intake, sending, look-up, undo and the API's documentation follow from the entry. Source: travel-claims contract, 2.3
and 4.3. The details of an expense, as stored (sealed) and as sent, are what `details()` returns.
"""

import binascii
import functools
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    create_model,
)
from pydantic import Field as Member
from pydantic_core import CoreSchema

from app.fields import Body, Day, Filled, OneOf, after, different_from, fault

MOST_COST = Decimal("99999.99")
MOST_RECEIPT_BYTES = 5 * 1024 * 1024
RECEIPT_KINDS: Mapping[str, tuple[str, ...]] = {
    "application/pdf": ("pdf",),
    "image/jpeg": ("jpg", "jpeg"),
    "image/png": ("png",),
    "image/gif": ("gif",),
    "image/bmp": ("bmp",),
    "image/tiff": ("tif", "tiff"),
    "application/msword": ("doc",),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("docx",),
}
_SPACED_TRIP_TYPES = {"OneWay": "One Way", "RoundTrip": "Round Trip"}


# Kinds of fields that only expenses have


def _cost(value: Any) -> str:
    """The amount as it was typed."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise fault("type", "Must be a number.")
    amount = value if isinstance(value, Decimal) else Decimal(repr(value))
    if amount.is_nan() or amount > MOST_COST:
        raise fault("out-of-range", f"Must be at most {MOST_COST}.")
    if amount <= 0:
        raise fault("not-positive", "Must be greater than 0.")
    if int(amount.as_tuple().exponent) < -2:
        raise fault("too-many-decimals", "Must have at most two decimals.")
    return str(amount)


def _return_date(day: str | None, info: ValidationInfo) -> str | None:
    if day is None and info.data.get("tripType") == "RoundTrip":
        raise fault("required", "This field is required for a round trip.")
    if day is not None and day < info.data.get("departureDate", day):
        raise fault("not-after", "Must not be before departureDate.")
    return day


Cost = Annotated[
    Any,
    BeforeValidator(_cost),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": float(MOST_COST)}),
]
TripType = Annotated[str, OneOf("OneWay", "RoundTrip", "Unspecified")]
_REASONS = ("Privately Owned Vehicle Not Available", "Medically Indicated", "Other", "Unspecified")
ReasonNotUsingPOV = Annotated[str, OneOf(*_REASONS, also={word.lower().replace(" ", "_"): word for word in _REASONS})]


def _receipt_content_type(content_type: str) -> str:
    if content_type not in RECEIPT_KINDS:
        raise fault("receipt-kind", f"Must be one of: {', '.join(RECEIPT_KINDS)}")
    return content_type


def _receipt_name(name: str, info: ValidationInfo) -> str:
    if re.search(r"[/\\\x00-\x1f\x7f-\x9f]", name):
        raise fault("pattern", "Must not contain a slash, a backslash or a control character.")
    content_type = info.data.get("content_type")
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    if content_type and extension not in RECEIPT_KINDS[content_type]:
        raise fault("receipt-kind", f"The extension does not go with {content_type}.")
    return name


def _receipt_data(data: str) -> str:
    if not data:
        raise fault("too-short", "Must hold at least one byte.")
    longest = -(-MOST_RECEIPT_BYTES // 3) * 4
    if len(data) > longest or len(_decoded(data)) > MOST_RECEIPT_BYTES:
        raise fault("receipt-too-large", f"Must hold at most {MOST_RECEIPT_BYTES} bytes.")
    return data


def _decoded(data: str) -> bytes:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError as error:
        raise fault("not-base64", "Must be standard base64 with padding.") from error


class Receipt(Body):
    content_type: Annotated[
        str, AfterValidator(_receipt_content_type), WithJsonSchema({"type": "string", "enum": [*RECEIPT_KINDS]})
    ]
    file_name: Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_receipt_name)]
    file_data: Annotated[
        str, AfterValidator(_receipt_data), WithJsonSchema({"type": "string", "format": "byte", "minLength": 4})
    ]


# The table


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of one type, by its name in requests and on the wire. Without a default it is required.

    A kind with the default None allows None itself, and may say when it does not.
    """

    kind: Any
    default: Any = ...

    @property
    def annotation(self) -> Any:
        """`null` may stand where the field may be absent."""
        return self.kind if self.default in {..., None} else self.kind | None


@dataclass(frozen=True, kw_only=True)
class Type:
    """One expense type: its path and version key upstream, its fields, the name under which a read-back shows it."""

    path: str
    shown_as: str
    version_key: str = "expenses"
    id_field: str = "id"
    has_cost: bool = True
    fields: Mapping[str, Field] = field(default_factory=dict)


TYPES: Mapping[str, Type] = {
    "airtravel": Type(
        path="airtravel",
        shown_as="AirTravel",
        fields={
            "vendorName": Field(kind=Filled),
            "tripType": Field(kind=TripType),
            "departedFrom": Field(kind=Filled),
            "arrivedTo": Field(kind=Annotated[Filled, AfterValidator(different_from("departedFrom"))]),
            "departureDate": Field(kind=Day),
            "returnDate": Field(kind=Annotated[Day | None, AfterValidator(_return_date)], default=None),
        },
    ),
    "commoncarrier": Type(
        path="commoncarrier",
        shown_as="CommonCarrier",
        fields={
            "carrierType": Field(kind=Annotated[str, OneOf("Bus", "Subway", "Taxi", "Train", "Other")]),
            "reasonNotUsingPOV": Field(kind=ReasonNotUsingPOV),
        },
    ),
    "lodging": Type(
        path="lodging",
        shown_as="Lodging",
        fields={
            "vendor": Field(kind=Filled),
            "checkInDate": Field(kind=Day),
            "checkOutDate": Field(kind=Annotated[Day, AfterValidator(after("checkInDate"))]),
        },
    ),
    "meal": Type(path="meal", shown_as="Meal", fields={"vendorName": Field(kind=Filled)}),
    "mileage": Type(
        path="mileage",
        shown_as="Mileage",
        version_key="mileage",
        id_field="expenseId",
        has_cost=False,
        fields={"tripType": Field(kind=TripType, default="RoundTrip")},
    ),
    "other": Type(path="other", shown_as="Other"),
    "parking": Type(path="parking", shown_as="Parking"),
    "toll": Type(path="toll", shown_as="Toll"),
}


# What follows from the table: the bodies that are accepted


class _Common(Body):
    date_incurred: Day | None = None
    description: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None


class _Costed(_Common):
    cost_requested: Cost
    receipt: Receipt | None = None


def _model(word: str, kind: Type) -> Any:
    members: dict[str, Any] = {
        name: (one.annotation, Member(default=one.default, validate_default=True)) for name, one in kind.fields.items()
    }
    members["type"] = (Literal[word], ...)
    return create_model(f"{kind.shown_as}Expense", __base__=_Costed if kind.has_cost else _Common, **members)


def _has_known_type(members: Any) -> Any:
    """Look at `type` first: nothing else of an expense can be judged without it."""
    if not isinstance(members, dict):
        raise fault("type", "Must be an object.")
    word = members.get("type")
    if word is None:
        raise fault("required", "This field is required.", member="type")
    if not isinstance(word, str):
        raise fault("type", "Must be a string.", member="type")
    if word not in TYPES:
        raise fault("enum", f"Must be one of: {', '.join(sorted(TYPES))}", member="type")
    return members


class _AsInTable:
    """Validates as one of the types of the table, told apart by `type`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        models = [_model(word, kind) for word, kind in TYPES.items()]
        any_of_them: Any = functools.reduce(operator.or_, models)
        told_apart = Annotated[any_of_them, Member(discriminator="type"), BeforeValidator(_has_known_type)]
        return handler.generate_schema(told_apart)


Expense = Annotated[Any, _AsInTable()]


def details(expense: BaseModel, *, visit_day: str) -> dict[str, Any]:
    """What is stored of an accepted `Expense`: its members as given, with the defaults of the contract.

    Anything JSON can carry; the cost is a string, as it was typed.
    """
    given = expense.model_dump(by_alias=True, exclude_none=True)
    common: dict[str, Any] = {"type": given["type"], "dateIncurred": visit_day, "description": given["type"]}
    return common | given


# What follows from the table: the wire


def wire_body(details: Mapping[str, Any], *, claim_id: str, spaced: bool) -> dict[str, Any]:
    """The body of the call that adds an expense. `spaced`: Travel Pay spells trip types in two words."""
    kind = TYPES[details["type"]]
    body = {"claimId": claim_id, "dateIncurred": details["dateIncurred"], "description": details["description"]}
    if kind.has_cost:
        body |= {"costRequested": _number(details["costRequested"]), "expenseType": details["type"]}
    body |= {name: details[name] for name in kind.fields if name in details}
    if spaced and "tripType" in body:
        body["tripType"] = _SPACED_TRIP_TYPES.get(body["tripType"], body["tripType"])
    if "receipt" in details:
        body["expenseReceipt"] = _wire_receipt(details["receipt"])
    return body


def _number(typed: str) -> int | float:
    """A number that JSON shows without binary noise: at most seven digits, so the shortest form is what was typed."""
    amount = Decimal(typed)
    return int(amount) if amount == amount.to_integral_value() and "." not in typed else float(amount)


def _wire_receipt(receipt: Mapping[str, str]) -> dict[str, Any]:
    return {
        "contentType": receipt["contentType"],
        "length": len(_decoded(receipt["fileData"])),
        "fileName": receipt["fileName"],
        "fileData": receipt["fileData"],
    }
