"""The rules of the payload: contract 2.2 (faults, their order, their texts), 2.10 (schema) and 10.2 (variations)."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app import declaration_faults
from app.api import bodies
from app.declaration_schema import PAYLOAD, Array, Object
from tests.declaration_payloads import R, at, mutated, payload

REQUIRED = "object has missing required properties ({})"
NOT_ALLOWED = "object instance has properties which are not allowed by the schema: {}"
TYPE = "instance type ({}) does not match any allowed primitive type (allowed: {})"
FEW = "object has too few properties (found 0 but schema requires at least 1)"
PATTERN = 'ECMA 262 regex "{}" does not match input string'
FORMAT = "string is invalid against requested date format(s) {}"
D2 = "^-?[0-9]{1,11}[.][0-9]{1,2}$"
D5 = "^-?[0-9]{1,7}[.][0-9]{1,5}$"
DAY, MINUTE = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "^[0-9]{2}:[0-9]{2}$"
MOMENT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
HEADER, ALCOHOL = f"{R}/declarationHeader", f"{R}/declarationAlcohol/declarationItemAlcohol/0"
COMMON = "/simpleDeclarationRequest/requestCommon"


def faults(document: Any) -> list[tuple[str, str, str]]:
    """As a request would be judged: through JSON text."""
    return [tuple(fault) for fault in declaration_faults.of(bodies.parse(json.dumps(document).encode()))]


def judged(text: str) -> list[tuple[str, str, str]]:
    return [tuple(fault) for fault in declaration_faults.of(bodies.parse(text.encode()))]


def test_the_payload_of_the_contract_is_valid() -> None:
    assert faults(payload()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({f"{R}/liabilityDetails": ..., f"{R}/contactDetails": ...},
         [(R, "missing", REQUIRED.format('["contactDetails","liabilityDetails"]'))]),
        ({f"{R}/discount": "1"}, [(R, "not-allowed", NOT_ALLOWED.format('["discount"]'))]),
        ({"/journeyData": {}}, [("", "not-allowed", NOT_ALLOWED.format('["journeyData"]'))]),
        ({f"{R}/liabilityDetails/grandTotalGBP": 277.1},
         [(f"{R}/liabilityDetails/grandTotalGBP", "type", TYPE.format("number", '["string"]'))]),
        ({f"{R}/liabilityDetails/grandTotalGBP": "277"},
         [(f"{R}/liabilityDetails/grandTotalGBP", "pattern", PATTERN.format(D2))]),
        ({f"{R}/liabilityDetails/totalVATGBP": "-12345678901.12"},
         [(f"{R}/liabilityDetails/totalVATGBP", "too-long", "string is too long (length: 15, maximum allowed: 14)")]),
        ({f"{HEADER}/onwardTravelGBNI": "IE"},
         [(f"{HEADER}/onwardTravelGBNI", "enum", 'instance value not found in enum (possible values: ["GB","NI"])')]),
        ({f"{HEADER}/expectedDateOfArrival": "2026-02-30"},
         [(f"{HEADER}/expectedDateOfArrival", "format", FORMAT.format("yyyy-MM-dd"))]),
        ({f"{R}/customerReference/idValue": ""},
         [(f"{R}/customerReference/idValue", "too-short", "string is too short (length: 0, required minimum: 1)")]),
        ({f"{ALCOHOL}/quantity": "1"}, [(ALCOHOL, "not-allowed", NOT_ALLOWED.format('["quantity"]'))]),
        ({f"{R}/liabilityDetails": {}, f"{HEADER}/uccRelief": ...},
         [(HEADER, "missing", REQUIRED.format('["uccRelief"]')), (f"{R}/liabilityDetails", "too-few-properties", FEW),
          (f"{R}/liabilityDetails", "missing", REQUIRED.format('["grandTotalGBP"]'))]),
    ],
)  # fmt: skip
def test_the_variations_of_the_contract(changes: dict[str, Any], told: list[tuple[str, str, str]]) -> None:
    """Section 10.2; the twelfth is the next test."""
    assert faults(payload(**changes)) == told


def test_an_empty_object_has_too_few_properties_and_misses_one() -> None:
    missing = ("", "missing", REQUIRED.format('["simpleDeclarationRequest"]'))
    assert faults({}) == [("", "too-few-properties", FEW), missing]


@pytest.mark.parametrize(
    ("text", "name"),
    [("[1]", "array"), ('"x"', "string"), ("5", "integer"), ("-0", "integer"), ("null", "null"), ("true", "boolean"),
     ("5.0", "number"), ("5e0", "number"), ("1.0e1", "number"), ("1E400", "number"), ("9" * 2_000, "integer"),
     ("9" * 2_000 + ".0", "number"), ("9" * 20, "integer")],
)  # fmt: skip
def test_what_is_no_object_is_told_by_its_type(text: str, name: str) -> None:
    assert judged(text) == [("", "type", TYPE.format(name, '["object"]'))]


@pytest.mark.parametrize(
    ("pointer", "allowed"),
    [(R, "object"), (f"{HEADER}/uccRelief", "boolean"), (f"{HEADER}/travellingFrom", "string"),
     (f"{COMMON}/requestParameters", "array"), (f"{COMMON}/requestParameters/0", "object"), (ALCOHOL, "object")],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, 1, 1.5])
def test_below_a_wrong_type_nothing_is_looked_at(pointer: str, allowed: str, value: Any) -> None:
    name = {None: "null", 1: "integer", 1.5: "number"}[value]
    assert faults(payload(**{pointer: value})) == [(pointer, "type", TYPE.format(name, f'["{allowed}"]'))]


@pytest.mark.parametrize(
    ("pointer", "good", "bad"),
    [
        (f"{HEADER}/expectedDateOfArrival", ["2024-02-29", "9999-12-31"],
         {"21-11-2026": PATTERN.format(DAY), "2026-11-21\n": PATTERN.format(DAY), "": PATTERN.format(DAY),
          "2026-11-2\u0661": PATTERN.format(DAY), "2023-02-29": FORMAT.format("yyyy-MM-dd"),
          "2026-13-01": FORMAT.format("yyyy-MM-dd"), "0000-01-01": FORMAT.format("yyyy-MM-dd")}),
        (f"{HEADER}/timeOfEntry", ["00:00", "23:59"],
         {"9:40": PATTERN.format(MINUTE), "24:00": FORMAT.format("HH:mm"), "12:60": FORMAT.format("HH:mm")}),
        (f"{COMMON}/receiptDate", ["2026-11-20T18:05:59Z"],
         {"2026-11-20T18:05:60Z": FORMAT.format("yyyy-MM-dd'T'HH:mm:ss'Z'"),
          "2026-11-31T18:05:00Z": FORMAT.format("yyyy-MM-dd'T'HH:mm:ss'Z'"),
          "2026-11-20T24:00:00Z": FORMAT.format("yyyy-MM-dd'T'HH:mm:ss'Z'"),
          "2026-11-20T18:05:00.1Z": PATTERN.format(MOMENT), "2026-11-20T18:05:00+00:00": PATTERN.format(MOMENT),
          "2026-11-20 18:05:00Z": PATTERN.format(MOMENT)}),
        (f"{ALCOHOL}/exchangeRate", ["-1234567.1234", "1.28805"],
         {"1.288051": PATTERN.format(D5), "-1234567.12345": "string is too long (length: 14, maximum allowed: 13)"}),
        (f"{ALCOHOL}/exciseGBP", ["-1234567890.12", "-0.1", "0.00"],
         {"1.": PATTERN.format(D2), ".1": PATTERN.format(D2), "+1.00": PATTERN.format(D2), "1,00": PATTERN.format(D2),
          "1.00\n": PATTERN.format(D2)}),
        (f"{R}/contactDetails/emailAddress", ["", "\U0001f600" * 132],
         {"a" * 133: "string is too long (length: 133, maximum allowed: 132)"}),
        (f"{R}/personalDetails/firstName", ["\U0001f600" * 35],
         {"a" * 36: "string is too long (length: 36, maximum allowed: 35)"}),
        (f"{HEADER}/messageTypes/messageType", ["DeclarationAmend"],
         {"": 'instance value not found in enum (possible values: ["DeclarationCreate","DeclarationAmend"])'}),
    ],
)  # fmt: skip
def test_a_string_has_one_fault_at_most_the_first_that_applies(
    pointer: str, good: list[str], bad: dict[str, str]
) -> None:
    assert [faults(payload(**{pointer: value})) for value in good] == [[]] * len(good)
    for value, text in bad.items():
        assert [(where, says) for where, _, says in faults(payload(**{pointer: value}))] == [(pointer, text)]


@pytest.mark.parametrize("pointer", [f"{COMMON}/requestParameters", f"{R}/declarationOther/declarationItemOther"])
def test_arrays_may_be_empty(pointer: str) -> None:
    assert faults(payload(**{pointer: []})) == []


@pytest.mark.parametrize("pointer", [f"{R}/contactDetails", f"{R}/declarationOther", f"{ALCOHOL}"])
def test_some_objects_may_be_empty(pointer: str) -> None:
    assert faults(payload(**{pointer: {}})) == []


@pytest.mark.parametrize("value", [None, 1, "XAPR0000000001", "x" * 200, [], {"a": None}, True])
def test_the_references_that_we_set_are_passed_over_whatever_they_are(value: Any) -> None:
    ours = {f"{COMMON}/acknowledgementReference": value, f"{HEADER}/chargeReference": value}
    assert faults(payload(**ours)) == []


def test_the_references_stand_nowhere_else() -> None:
    told = faults(payload(**{f"{R}/chargeReference": "1", f"{HEADER}/acknowledgementReference": "1"}))
    assert [(where, code) for where, code, _ in told] == [(R, "not-allowed"), (HEADER, "not-allowed")]


def test_faults_stand_by_pointer_as_text_then_by_the_table() -> None:
    items = [{"quantity": 1}] * 11
    told = faults(payload(**{f"{R}/declarationOther/declarationItemOther": items, HEADER: {"x": 1}}))
    places = [where for where, _, _ in told]
    assert places == sorted(places)
    assert places.index(f"{R}/declarationOther/declarationItemOther/10/quantity") < places.index(
        f"{R}/declarationOther/declarationItemOther/2/quantity"
    )
    assert [code for where, code, _ in told if where == HEADER] == ["missing", "not-allowed"]


def test_names_of_properties_are_cut_and_sorted_and_no_value_is_repeated() -> None:
    names = {"z" * 80: "SECRET", 'a"b\u00e9': "SECRET"}
    (fault,) = faults(payload(**{f"{R}/{name}": value for name, value in names.items()}))
    assert fault == (
        R,
        "not-allowed",
        NOT_ALLOWED.format(json.dumps(['a"b\u00e9', "z" * 64], ensure_ascii=False).replace(", ", ",")),
    )


# The tables, once more


def leaves(kind: Any, pointer: str) -> Iterator[str]:
    """Pointers to every property that the tables know, in the payload."""
    if isinstance(kind, Object):
        for name, inner in kind.properties.items():
            yield f"{pointer}/{name}"
            yield from leaves(inner, f"{pointer}/{name}")
    if isinstance(kind, Array):
        yield from leaves(kind.of, f"{pointer}/0")


CONTRACT = {
    COMMON: "receiptDate* requestParameters*",
    f"{COMMON}/requestParameters/0": "paramName* paramValue*",
    R: "customerReference* contactDetails* declarationHeader* liabilityDetails* personalDetails declarationTobacco "
    "declarationAlcohol declarationOther amendmentLiabilityDetails",
    f"{R}/customerReference": "idType* idValue* ukResident*",
    f"{R}/personalDetails": "firstName* lastName*",
    f"{R}/contactDetails": "emailAddress",
    HEADER: "messageTypes* travellingFrom* onwardTravelGBNI* uccRelief* ukVATPaid* ukExcisePaid* portOfEntry "
    "portOfEntryName expectedDateOfArrival timeOfEntry",
    f"{HEADER}/messageTypes": "messageType*",
    f"{R}/liabilityDetails": "grandTotalGBP* totalExciseGBP totalCustomsGBP totalVATGBP",
    f"{R}/amendmentLiabilityDetails": "additionalExciseGBP additionalCustomsGBP additionalVATGBP additionalTotalGBP",
    **{
        f"{R}/declaration{goods}": f"totalExcise{goods} totalCustoms{goods} totalVAT{goods} declarationItem{goods}"
        for goods in ("Tobacco", "Alcohol", "Other")
    },
    **{
        f"{R}/declaration{goods}/declarationItem{goods}/0": "commodityDescription valueCurrencyName madeIn "
        "valueCurrency originCountry originCountryName goodsValue goodsValueGBP exciseGBP customsGBP vatGBP "
        f"exchangeRate exchangeRateDate VATRESClaimed ukVATPaid euCustomsRelief {own}"
        for goods, own in {
            "Tobacco": "quantity weight ukExcisePaid", "Alcohol": "volume ukExcisePaid", "Other": "quantity uccRelief",
        }.items()
    },
}  # fmt: skip


def objects(kind: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Every object of the tables with its properties, the required ones marked."""
    if isinstance(kind, Object):
        marked = [f"{name}*" for name in kind.required] + [*kind.optional]
        yield pointer, " ".join(sorted(marked))
        for name, inner in kind.properties.items():
            yield from objects(inner, f"{pointer}/{name}")
    if isinstance(kind, Array):
        yield from objects(kind.of, f"{pointer}/0")


def test_every_object_has_the_properties_of_the_contract() -> None:
    roots = {"": "simpleDeclarationRequest*", "/simpleDeclarationRequest": "requestCommon* requestDetail*"}
    written = {pointer: " ".join(sorted(names.split())) for pointer, names in {**roots, **CONTRACT}.items()}
    assert dict(objects(PAYLOAD, "")) == written


# Any payload at all


def test_two_thousand_mutated_payloads_are_judged_and_never_break_the_judge() -> None:
    chance = random.Random(7)
    good = 0
    for _ in range(2_000):
        document = mutated(chance)
        told = faults(document)
        good += not told
        assert all(where == "" or at_or_none(document, where) is not None or "null" in text for where, _, text in told)
    assert 0 < good < 1_000


def at_or_none(document: Any, pointer: str) -> Any:
    try:
        return at(document, pointer)
    except (KeyError, IndexError, TypeError):
        return None


def test_a_long_payload_is_judged_fast() -> None:
    items = [{"commodityDescription": "x", "quantity": 1}] * 1_200
    text = json.dumps(payload(**{f"{R}/declarationOther/declarationItemOther": items})).encode()
    document = bodies.parse(text)
    assert 50_000 < len(text) < 100 * 1024
    begun = time.process_time()
    told = declaration_faults.of(document)
    assert len(told) == 1_200
    assert time.process_time() - begun < 0.5
