"""What bad input gets: a 4xx that names the field, never a 500, and no row. Contract 2.1, 2.2, 2.3 and 8."""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from app import db, metrics
from app.models.claim import Claim
from app.models.workflow import Workflow
from tests.api.factories import claim, everything, flight, receipt

VISIT = {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"}
DEEP = "[" * 65 + "]" * 65


def rows() -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(Workflow)) or 0


def visit(**changes: Any) -> dict[str, Any]:
    kept = {**VISIT, **changes}
    return claim(appointment={name: value for name, value in kept.items() if value is not ...})


def at(when: str) -> dict[str, Any]:
    return visit(dateTime=when)


def expense(type: str, **members: Any) -> dict[str, Any]:
    return claim(expenses=[{"type": type, **members}])


def parking(**members: Any) -> dict[str, Any]:
    return expense("parking", **{"costRequested": 1, **members})


def lodging(**members: Any) -> dict[str, Any]:
    stay = {"vendor": "Inn", "checkInDate": "2026-03-01", "checkOutDate": "2026-03-02"}
    return expense("lodging", costRequested=1, **{**stay, **members})


def air(**changes: Any) -> dict[str, Any]:
    return expense("airtravel", costRequested=1, **flight(**changes))


def with_receipt(**changes: Any) -> dict[str, Any]:
    return parking(receipt=receipt(**changes))


E0 = "/expenses/0"
R0 = f"{E0}/receipt"
TOO_BIG = base64.b64encode(b"\x00" * (5 * 1024 * 1024 + 1)).decode()

FIELDS = [
    # ICN and EDIPI
    (claim(icn=...), ("/icn", "required")),
    (claim(icn=None), ("/icn", "required")),
    (claim(icn=1012667122), ("/icn", "type")),
    (claim(icn="1012667122v019349"), ("/icn", "pattern")),
    (claim(icn=" 1012667122V019349"), ("/icn", "pattern")),
    (claim(icn="1012667122V019349\n"), ("/icn", "pattern")),
    (claim(icn="101266712V019349"), ("/icn", "pattern")),
    (claim(icn="\u0661\u0660\u0661\u0662\u0666\u0666\u0667\u0661\u0662\u0662V019349"), ("/icn", "pattern")),
    (claim(icn=""), ("/icn", "pattern")),
    (claim(icn=..., edipi="1234567890"), ("/edipi", "edipi-not-supported")),
    (claim(icn=None, edipi="1234567890"), ("/edipi", "edipi-not-supported")),
    (claim(edipi=1234567890), ("/edipi", "type")),
    # members that there are not
    (claim(product="pci"), ("/product", "unknown-field")),
    (claim(facilityType="vamc"), ("/facilityType", "unknown-field")),
    (claim(secret="x"), ("/secret", "unknown-field")),
    (claim(ICN="1012667122V019349"), ("/ICN", "unknown-field")),
    (claim(**{"a/b~c": 1}), ("/a~1b~0c", "unknown-field")),
    ({**claim(), "clientNumber": None}, ("/clientNumber", "unknown-field")),
    (visit(facility="x"), ("/appointment/facility", "unknown-field")),
    # the appointment
    (claim(appointment=...), ("/appointment", "required")),
    (claim(appointment="2026-03-02"), ("/appointment", "type")),
    (claim(appointment=[]), ("/appointment", "type")),
    (visit(dateTime=...), ("/appointment/dateTime", "required")),
    (visit(dateTime=20260302), ("/appointment/dateTime", "type")),
    (at("2026-03-02"), ("/appointment/dateTime", "time-required")),
    *(
        (at(when), ("/appointment/dateTime", "invalid-date-time"))
        for when in (
            "", "2026-02-30T10:00:00", "2025-02-29T10:00", "2026-03-02 10:00", "2026-03-02T24:00", "2026-03-02T10:60",
            "2026-03-02T10:00:60", "2026-W10-1T10:00", "20260302T1000", "2026-03-02T10", "2026-03-02t10:00:00",
            "2026-03-02T10:00:00z", "2026-03-02T10:00:00+5", "2026-03-02T10:00:00+0500", "2026-03-02T10:00:00+25:00",
            "0000-01-01T00:00", "2026-03-02T10:00:00.", "2026-03-02T10:00:00\n", " 2026-03-02T10:00",
            "02/03/2026 10:00",
            "\uff12\uff10\uff12\uff16-03-02T10:00",
        )
    ),
    (visit(stationNumber=...), ("/appointment/stationNumber", "required")),
    (visit(stationNumber="98"), ("/appointment/stationNumber", "pattern")),
    (visit(stationNumber="983gc"), ("/appointment/stationNumber", "pattern")),
    (visit(stationNumber="983GCXX"), ("/appointment/stationNumber", "pattern")),
    (visit(stationNumber=983), ("/appointment/stationNumber", "type")),
    (visit(type="other"), ("/appointment/type", "enum")),
    (visit(type=1), ("/appointment/type", "type")),
    (visit(complete="true"), ("/appointment/complete", "type")),
    (visit(complete=1), ("/appointment/complete", "type")),
    (visit(name="x" * 101), ("/appointment/name", "too-long")),
    # rollback, phone, callback
    (claim(rollback="true"), ("/rollback", "type")),
    (claim(rollback=0), ("/rollback", "type")),
    (claim(phone="2025550143"), ("/phone", "pattern")),
    (claim(phone="+0025550143"), ("/phone", "pattern")),
    (claim(phone="+1 202 555 0143"), ("/phone", "pattern")),
    (claim(phone="+1202555"), ("/phone", "pattern")),
    (claim(phone=12025550143), ("/phone", "type")),
    (claim(callbackUrl="http://hooks.example/x"), ("/callbackUrl", "not-https")),
    (claim(callbackUrl="https://hooks.example/x"), ("/callbackUrl", "callback-url-not-allowed")),
    (claim(callbackUrl="https://user@host/"), ("/callbackUrl", "callback-url-not-allowed")),
    (claim(callbackUrl="https://[broken"), ("/callbackUrl", "not-https")),
    (claim(callbackUrl="https://h/" + "x" * 2048), ("/callbackUrl", "too-long")),
    # expenses
    (claim(expenses=[]), ("/expenses", "min-items")),
    (claim(expenses=[{"type": "mileage"}] * 21), ("/expenses", "max-items")),
    (claim(expenses={"type": "mileage"}), ("/expenses", "type")),
    (claim(expenses=["mileage"]), (E0, "type")),
    (claim(expenses=[None]), (E0, "type")),
    (claim(expenses=[{}]), (f"{E0}/type", "required")),
    (claim(expenses=[{"type": None}]), (f"{E0}/type", "required")),
    (claim(expenses=[{"type": ["mileage"]}]), (f"{E0}/type", "type")),
    (expense("hotel"), (f"{E0}/type", "enum")),
    (expense("Mileage"), (f"{E0}/type", "enum")),
    (expense("mileage", costRequested=1), (f"{E0}/costRequested", "unknown-field")),
    (expense("mileage", receipt=receipt()), (f"{E0}/receipt", "unknown-field")),
    (expense("mileage", tripType="Round Trip"), (f"{E0}/tripType", "enum")),
    (expense("mileage", mileage=1), (f"{E0}/mileage", "unknown-field")),
    (expense("parking"), (f"{E0}/costRequested", "required")),
    (parking(costRequested="12"), (f"{E0}/costRequested", "type")),
    (parking(costRequested=True), (f"{E0}/costRequested", "type")),
    (parking(costRequested=[1]), (f"{E0}/costRequested", "type")),
    (parking(costRequested=0), (f"{E0}/costRequested", "not-positive")),
    (parking(costRequested=-0.0), (f"{E0}/costRequested", "not-positive")),
    (parking(costRequested=-1), (f"{E0}/costRequested", "not-positive")),
    (parking(costRequested=1.234), (f"{E0}/costRequested", "too-many-decimals")),
    (parking(costRequested=100000), (f"{E0}/costRequested", "out-of-range")),
    (parking(costRequested=10**4000), (f"{E0}/costRequested", "out-of-range")),
    (parking(description=""), (f"{E0}/description", "too-short")),
    (parking(description="x" * 2001), (f"{E0}/description", "too-long")),
    (parking(dateIncurred="2026-02-30"), (f"{E0}/dateIncurred", "invalid-date")),
    (parking(dateIncurred="2026-03-02T10:00"), (f"{E0}/dateIncurred", "invalid-date")),
    (parking(dateIncurred="20260302"), (f"{E0}/dateIncurred", "invalid-date")),
    (expense("meal", costRequested=1), (f"{E0}/vendorName", "required")),
    (expense("meal", costRequested=1, vendorName=" \t"), (f"{E0}/vendorName", "blank")),
    (expense("meal", costRequested=1, vendorName="x" * 256), (f"{E0}/vendorName", "too-long")),
    (lodging(checkOutDate="2026-03-01"), (f"{E0}/checkOutDate", "not-after")),
    (air(returnDate=...), (f"{E0}/returnDate", "required")),
    (air(returnDate="2026-02-28"), (f"{E0}/returnDate", "not-after")),
    (air(arrivedTo=" DENVER "), (f"{E0}/arrivedTo", "not-different")),
    (air(tripType=...), (f"{E0}/tripType", "required")),
    # receipts
    (parking(receipt=[]), (R0, "type")),
    (with_receipt(contentType="image/heic", fileName="a.heic"), (f"{R0}/contentType", "receipt-kind")),
    (with_receipt(fileName="a.heic"), (f"{R0}/fileName", "receipt-kind")),
    (with_receipt(fileName="a.png"), (f"{R0}/fileName", "receipt-kind")),
    (with_receipt(fileName="pdf"), (f"{R0}/fileName", "receipt-kind")),
    (with_receipt(fileName="../a.pdf"), (f"{R0}/fileName", "pattern")),
    (with_receipt(fileName="a\\b.pdf"), (f"{R0}/fileName", "pattern")),
    (with_receipt(fileName="a\r\nb.pdf"), (f"{R0}/fileName", "pattern")),
    (with_receipt(fileName="x" * 252 + ".pdf"), (f"{R0}/fileName", "too-long")),
    (with_receipt(fileData="not base64!"), (f"{R0}/fileData", "not-base64")),
    (with_receipt(fileData="QUI"), (f"{R0}/fileData", "not-base64")),
    (with_receipt(fileData="QUI_"), (f"{R0}/fileData", "not-base64")),
    (with_receipt(fileData="Ä" * 4), (f"{R0}/fileData", "not-base64")),
    (with_receipt(fileData=""), (f"{R0}/fileData", "too-short")),
    (with_receipt(fileData=TOO_BIG), (f"{R0}/fileData", "receipt-too-large")),
    (with_receipt(length=3), (f"{R0}/length", "unknown-field")),
]  # fmt: skip


@pytest.mark.parametrize(("body", "fault"), FIELDS, ids=lambda value: str(value)[:60])
def test_a_faulty_field_is_named(post, body, fault, dispatched):
    answer = post(body)
    assert answer.status_code == 422, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json["type"] == "/problems/validation-failed"
    assert answer.json["detail"] == "1 field is at fault."
    assert [(one["pointer"], one["code"]) for one in answer.json["errors"]] == [fault]
    assert rows() == len(dispatched) == 0


def test_refused_input_is_answered_as_in_the_contracts_example(post):
    body = {
        "edipi": "1234567890",
        "appointment": {"dateTime": "2026-03-02", "stationNumber": "983"},
        "expenses": [{"type": "hotel"}],
    }
    answer = post(body, headers={"X-Correlation-ID": "3b7e0c55-91d4-4a3f-8c20-f2a6d8e91b07"})
    assert answer.status_code == 422
    expected = {
        "type": "/problems/validation-failed", "title": "The request is not valid", "status": 422,
        "detail": "3 fields are at fault.", "instance": "/travel-claims",
        "correlationId": "3b7e0c55-91d4-4a3f-8c20-f2a6d8e91b07",
        "errors": [
            {
                "pointer": "/edipi", "code": "edipi-not-supported",
                "detail": "An EDIPI cannot be used on its own; send the veteran's ICN in icn.",
            },
            {
                "pointer": "/appointment/dateTime", "code": "time-required",
                "detail": "Give date and time, e.g. 2026-03-02T10:00:00.",
            },
            {
                "pointer": "/expenses/0/type", "code": "enum",
                "detail": "Must be one of: airtravel, commoncarrier, lodging, meal, mileage, other, parking, toll",
            },
        ],
    }  # fmt: skip
    assert list(answer.json.items()) == list(expected.items())


def test_all_faults_are_told_together_each_counted_once(post):
    refused = metrics.claims_refused.labels(product="pci", code="required")._value.get()
    answer = post({"appointment": {}, "phone": 5, "expenses": [{"type": "mileage"}, {"type": "meal"}], "x": 1})
    assert {(one["pointer"], one["code"]) for one in answer.json["errors"]} == {
        ("/icn", "required"), ("/appointment/dateTime", "required"), ("/appointment/stationNumber", "required"),
        ("/expenses/1/costRequested", "required"), ("/expenses/1/vendorName", "required"),
        ("/phone", "type"), ("/x", "unknown-field"),
    }  # fmt: skip
    assert metrics.claims_refused.labels(product="pci", code="required")._value.get() == refused + 5


def test_one_fault_in_the_third_of_four_expenses_stores_nothing(post):
    expenses = everything()["expenses"][:4]
    expenses[2] = {**expenses[2], "costRequested": -1}
    answer = post(claim(expenses=expenses))
    assert [one["pointer"] for one in answer.json["errors"]] == ["/expenses/2/costRequested"]
    assert rows() == 0


def test_a_flood_of_faults_is_cut_off(post):
    answer = post({**claim(), **{f"x{number}": 1 for number in range(5000)}, "y" * 3000: 1})
    assert answer.status_code == 422
    assert len(answer.json["errors"]) <= 100
    assert len(answer.data) < 50_000


MALFORMED = {
    "empty": b"",
    "blank": b"  \n",
    "no json": b"icn=1",
    "cut off": b'{"icn": "1012667122V0',
    "two values": b"{} {}",
    "trailing comma": b'{"icn": 1,}',
    "single quotes": b"{'icn': 1}",
    "comment": b"{} // hello",
    "NaN": b'{"rollback": NaN}',
    "Infinity": b'{"rollback": -Infinity}',
    "a key twice": b'{"icn": "1", "icn": "2"}',
    "a key twice, spelled differently": b'{"icn": "1", "\\u0069cn": "2"}',
    "a key twice, deep inside": b'{"appointment": {"x": [{"a": 1, "a": 1}]}}',
    "bad utf-8": b'{"icn": "\xff"}',
    "overlong utf-8": b'{"icn": "\xc0\x80"}',
    "utf-16": '{"icn": "1"}'.encode("utf-16"),
    "utf-32 without a mark": '{"icn": "1"}'.encode("utf-32-le"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "U+0000": b'{"icn": "\\u0000"}',
    "U+0000 in a key": b'{"\\u0000": 1}',
    "raw control character": b'{"icn": "\x01"}',
    "lone surrogate": b'{"icn": "\\ud83d"}',
    "surrogates the wrong way round": b'{"icn": "\\udca9\\ud83d"}',
    "lone surrogate in utf-8": b'{"icn": "\xed\xa0\xbd"}',
    "too deep": DEEP.encode(),
    "far too deep": b"[" * 100_000,
    "far too deep, closed": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "leading zero": b'{"rollback": 01}',
    "plus sign": b'{"rollback": +1}',
    "bare fraction": b'{"rollback": .5}',
    "digits that are not ascii": '{"rollback": \u0661}'.encode(),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_strictly_json_is_malformed(post, data):
    answer = post(data=data, content_type="application/json")
    assert answer.status_code == 400, answer.text
    assert answer.json["type"] == "/problems/malformed-json"
    assert rows() == 0


@pytest.mark.parametrize("data", ["[]", "null", "5", '"text"', "true", json.dumps(json.dumps(claim()))])
def test_json_that_is_no_object_is_a_fault_of_the_whole_body(post, data):
    answer = post(data=data, content_type="application/json")
    assert (answer.status_code, answer.json["errors"]) == (
        422,
        [{"pointer": "", "code": "type", "detail": "Must be an object."}],
    )
    assert rows() == 0


def test_sixty_four_levels_are_not_too_deep(post):
    nested = '{"x":' + "[" * 63 + "]" * 63 + "}"
    assert post(data=nested, content_type="application/json").status_code == 422
    nested = '{"x":' + "[" * 64 + "]" * 64 + "}"
    assert post(data=nested, content_type="application/json").status_code == 400


@pytest.mark.parametrize("number", ["1e999999999999999999999", "9" * 5000, "1e400", "-1e400", "1" + "0" * 400 + ".5"])
def test_numbers_beyond_all_measure_are_faults_not_crashes(post, number):
    body = json.dumps(parking()).replace('"costRequested": 1', f'"costRequested": {number}')
    answer = post(data=body, content_type="application/json")
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "/expenses/0/costRequested"


@pytest.mark.parametrize(
    ("typed", "kept"), [("12.50", "12.50"), ("12", "12"), ("0.01", "0.01"), ("99999.99", "99999.99"), ("1e2", "1E+2")]
)
def test_an_amount_keeps_the_digits_that_were_typed(post, typed, kept):
    body = json.dumps(parking()).replace('"costRequested": 1', f'"costRequested": {typed}')
    assert post(data=body, content_type="application/json").status_code == 202
    with db.transaction() as session:
        details = session.scalars(select(Claim)).one().expense_details or []
    assert details[0]["costRequested"] == kept


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
     "application/jsonx", "text/json", "application/+json", "json", "application/json, text/plain"],
)  # fmt: skip
def test_another_type_than_json_is_not_taken(post, content_type):
    answer = post(data=json.dumps(claim()), content_type=content_type)
    assert (answer.status_code, answer.json["type"]) == (415, "/problems/unsupported-media-type")
    assert rows() == 0


@pytest.mark.parametrize(
    "content_type", [None, "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
def test_json_by_any_of_its_names_is_taken(post, content_type):
    assert post(data=json.dumps(claim()), content_type=content_type).status_code == 202


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
def test_a_packed_body_is_not_taken(post, encoding):
    answer = post(claim(), headers={"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert post(claim(), headers={"Content-Encoding": "identity"}).status_code == 202


def test_eight_mebibytes_are_taken_and_one_byte_more_is_not(post):
    most = 8 * 1024 * 1024
    body = json.dumps(claim())
    assert post(data=body + " " * (most - len(body)), content_type="application/json").status_code == 202
    answer = post(data=body + " " * (most + 1 - len(body)), content_type="application/json")
    assert (answer.status_code, answer.json["type"]) == (413, "/problems/too-large")


class Endless:
    """A body that never ends, and that notes how much of it was read."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.count += size
        return b" " * size


@pytest.mark.parametrize("length", [9 * 1024 * 1024, None])
def test_a_body_that_is_too_long_is_read_no_further(http, key, length):
    stream = Endless()
    environ = {"wsgi.input": stream, "wsgi.input_terminated": length is None}
    sized = {"HTTP_TRANSFER_ENCODING": "chunked"} if length is None else {"CONTENT_LENGTH": str(length)}
    answer = http.post("/travel-claims", headers={"x-api-key": key}, environ_overrides=environ | sized)
    assert answer.status_code == 413
    assert stream.count <= (0 if length else 9 * 1024 * 1024)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, longest in (("X-Correlation-ID", 64), ("Idempotency-Key", 255))
        for value in ("x" * (longest + 1), "", "a b", "ä")
    ],
)
def test_a_header_that_cannot_be_used_is_named(post, name, value):
    answer = post(claim(), headers={name: value})
    assert answer.status_code == 400
    assert answer.json["errors"][0]["pointer"] == f"header:{name}"
    assert answer.headers["X-Correlation-ID"] == answer.json["correlationId"] != value
    assert rows() == 0


# Fuzz

texts = st.text(st.characters(exclude_categories=()), max_size=30)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.just("2026-03-02T10:00")
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
MEMBERS = ["icn", "edipi", "appointment", "expenses", "rollback", "phone", "callbackUrl"]
PLACES = ["type", "costRequested", "tripType", "receipt", "dateIncurred", "description", "vendorName", "returnDate"]
expenses = st.lists(
    st.dictionaries(st.sampled_from(PLACES), anything | st.sampled_from(["mileage", "parking", "airtravel", 1.5])),
    max_size=3,
)
bodies = st.dictionaries(st.sampled_from(MEMBERS) | texts, anything | expenses, max_size=8)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(bodies | anything)
def test_whatever_json_comes_it_is_answered_and_only_a_claim_leaves_a_row(post, body):
    before = rows()
    answer = post(data=json.dumps(body), content_type="application/json")
    assert answer.status_code in {200, 202, 400, 422}, answer.text
    assert rows() - before == (answer.status_code == 202)


@FUZZ
@given(st.binary(max_size=300))
def test_whatever_bytes_come_they_are_answered(post, data):
    assert post(data=data, content_type="application/json").status_code in {400, 422}


@FUZZ
@given(st.sampled_from(MEMBERS[1:]), anything)
def test_one_wild_member_in_a_good_body_names_that_member(post, name, value):
    answer = post(claim(**{name: value}))
    assert answer.status_code in {200, 202, 400, 422}, answer.text
    if answer.status_code == 422:
        assert all(one["pointer"].startswith(f"/{name}") for one in answer.json["errors"])
