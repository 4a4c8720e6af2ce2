"""The table of expense types, and what follows from it. Contract 2.3, 4.3 and 10.2."""

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app import expenses, fields

ONE = TypeAdapter(expenses.Expense)
COST = {"costRequested": 12.5}
GOOD: dict[str, dict[str, Any]] = {
    "mileage": {},
    "parking": COST,
    "toll": COST,
    "other": COST,
    "meal": {**COST, "vendorName": "Diner"},
    "lodging": {**COST, "vendor": "Inn", "checkInDate": "2026-03-01", "checkOutDate": "2026-03-02"},
    "commoncarrier": {**COST, "carrierType": "Bus", "reasonNotUsingPOV": "Medically Indicated"},
    "airtravel": {
        **COST,
        "vendorName": "Air",
        "tripType": "OneWay",
        "departedFrom": "A",
        "arrivedTo": "B",
        "departureDate": "2026-03-01",
    },
}


def details(type: str, **changes: Any) -> dict[str, Any]:
    return expenses.details(ONE.validate_python({"type": type, **GOOD[type], **changes}), visit_day="2026-03-02")


def sent(type: str, *, spaced: bool = False, **changes: Any) -> dict[str, Any]:
    return expenses.wire_body(details(type, **changes), claim_id="c", spaced=spaced)


def codes(type: str, **changes: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as refused:
        ONE.validate_python({"type": type, **GOOD[type], **changes})
    found = fields.faults(refused.value)
    return [(one["pointer"].rpartition("/")[2], one["code"]) for one in found]


def test_the_table_is_the_contracts():
    assert {word: (kind.path, kind.version_key, kind.id_field) for word, kind in expenses.TYPES.items()} == {
        "mileage": ("mileage", "mileage", "expenseId"),
        **{word: (word, "expenses", "id") for word in GOOD if word != "mileage"},
    }
    assert list(expenses.TYPES) == sorted(expenses.TYPES)


@pytest.mark.parametrize("word", expenses.TYPES)
def test_every_type_is_taken_stored_as_json_and_sent(word):
    stored = details(word)
    assert json.loads(json.dumps(stored)) == stored
    body = expenses.wire_body(stored, claim_id="c", spaced=False)
    assert json.loads(json.dumps(body)) == body
    assert list(body)[:3] == ["claimId", "dateIncurred", "description"]
    assert (body["dateIncurred"], body["description"]) == ("2026-03-02", word)
    assert set(expenses.TYPES[word].fields) - {"returnDate"} <= set(body)
    assert body.get("expenseType") == (word if expenses.TYPES[word].has_cost else None)


def test_mileage_is_sent_as_in_the_contracts_example():
    assert list(sent("mileage").items()) == [
        ("claimId", "c"), ("dateIncurred", "2026-03-02"), ("description", "mileage"), ("tripType", "RoundTrip"),
    ]  # fmt: skip


def test_parking_is_sent_as_in_the_contracts_example():
    body = json.dumps(sent("parking", description="Garage"))
    assert body == (
        '{"claimId": "c", "dateIncurred": "2026-03-02", "description": "Garage", "costRequested": 12.5, '
        '"expenseType": "parking"}'
    )


@pytest.mark.parametrize(
    ("typed", "wire"),
    [("12", "12"), ("12.0", "12.0"), ("0.1", "0.1"), ("0.07", "0.07"), ("99999.99", "99999.99"), ("1E+2", "100")],
)
def test_an_amount_is_sent_as_typed_without_binary_noise(typed, wire):
    assert json.dumps(sent("toll", costRequested=Decimal(typed))["costRequested"]) == wire


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        (0, "not-positive"), (-0.01, "not-positive"), (Decimal("0.001"), "too-many-decimals"),
        (Decimal("12.500"), "too-many-decimals"), (Decimal(100000), "out-of-range"), (1e300, "out-of-range"),
        (Decimal("Infinity"), "out-of-range"), (Decimal("NaN"), "out-of-range"), ("12", "type"), (True, "type"),
        ([], "type"),
    ],
)  # fmt: skip
def test_an_amount_that_cannot_be_is_refused(amount, code):
    assert codes("toll", costRequested=amount) == [("costRequested", code)]


def test_trip_types_are_spaced_where_travel_pay_spells_them_so():
    assert sent("mileage", spaced=True)["tripType"] == "Round Trip"
    assert sent("mileage", spaced=True, tripType="OneWay")["tripType"] == "One Way"
    assert sent("mileage", spaced=True, tripType="Unspecified")["tripType"] == "Unspecified"
    assert sent("airtravel", spaced=True)["tripType"] == "One Way"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("medically_indicated", "Medically Indicated"),
        ("privately_owned_vehicle_not_available", "Privately Owned Vehicle Not Available"),
        ("other", "Other"),
        ("Unspecified", "Unspecified"),
    ],
)
def test_reasons_in_snake_case_are_mapped(given, kept):
    assert sent("commoncarrier", reasonNotUsingPOV=given)["reasonNotUsingPOV"] == kept


def test_names_are_trimmed():
    assert sent("meal", vendorName="  Diner ")["vendorName"] == "Diner"


def test_a_receipt_is_sent_with_its_length_in_bytes():
    receipt = {"contentType": "image/jpeg", "fileName": "A.JPEG", "fileData": "QUJD"}
    assert sent("toll", receipt=receipt)["expenseReceipt"] == {
        "contentType": "image/jpeg", "length": 3, "fileName": "A.JPEG", "fileData": "QUJD",
    }  # fmt: skip
    assert "expenseReceipt" not in sent("toll", receipt=None)


@pytest.mark.parametrize(
    ("content_type", "extension"), [(kind, one) for kind, all_ in expenses.RECEIPT_KINDS.items() for one in all_]
)
def test_every_kind_of_receipt_goes_with_its_extensions(content_type, extension):
    receipt = {"contentType": content_type, "fileName": f"a.b.{extension.upper()}", "fileData": "QUI="}
    assert details("toll", receipt=receipt)["receipt"] == receipt


def test_fields_that_compare_are_judged_beside_other_faults():
    stay = {"vendor": " ", "checkOutDate": "2026-03-01"}
    assert codes("lodging", **stay) == [("vendor", "blank"), ("checkOutDate", "not-after")]
    trip = {"tripType": "RoundTrip", "arrivedTo": "a ", "vendorName": 5}
    assert codes("airtravel", **trip) == [
        ("vendorName", "type"),
        ("arrivedTo", "not-different"),
        ("returnDate", "required"),
    ]


def test_a_round_trip_may_return_on_the_day_it_departs():
    assert details("airtravel", tripType="RoundTrip", returnDate="2026-03-01")["returnDate"] == "2026-03-01"
