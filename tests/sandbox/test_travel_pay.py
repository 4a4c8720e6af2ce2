"""Travel Pay's rules: who is let in, one claim for each appointment, statuses, look-ups, removal."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from sandbox.upstreams.travel_pay_book import Book

DUPLICATE = "Validation failed: A claim has already been created for this appointment."
BODIES = {
    "toll": {},
    "other": {},
    "meal": {"vendorName": "Diner"},
    "lodging": {"vendor": "Inn", "checkInDate": "2026-03-01", "checkOutDate": "2026-03-02"},
    "commoncarrier": {"carrierType": "Bus", "reasonNotUsingPOV": "Other"},
    "airtravel": {
        "vendorName": "Air",
        "tripType": "OneWay",
        "departedFrom": "Here",
        "arrivedTo": "There",
        "departureDate": "2026-03-01",
    },
}


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "wrong"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "invalid_request"),
        ({"resource": "wrong"}, 400, "invalid_request"),
        ({"client_type": ""}, 400, "invalid_request"),
    ],
)
def test_a_veis_token_is_refused_to_wrong_credentials(*, sandbox, veteran, changes, status, error):
    answer = veteran.get_veis(**changes)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert sandbox.ledger()["totals"]["veis_mints"] == 0


def test_a_system_token_needs_secret_and_client_number_of_one_product(veteran, other):
    assert veteran.get_btsss(secret="wrong").status_code == 403
    assert veteran.get_btsss(client_number=other.product.client_number).status_code == 403
    assert veteran.get_btsss(icn="1012667122v019349").status_code == 400
    assert veteran.get_btsss(note="more").json()["data"] == ["The note field is not known."]


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Authorization", None, 401),
        ("Authorization", "Bearer wrong", 401),
        ("Authorization", "Basic wrong", 401),
        ("Ocp-Apim-Subscription-Key", None, 401),
        ("Ocp-Apim-Subscription-Key", "wrong", 401),
        ("BTSSS-Access-Token", None, 401),
        ("BTSSS-Access-Token", "wrong", 401),
        ("X-Correlation-ID", None, 400),
    ],
)
def test_a_header_missing_or_wrong_is_refused(veteran, header, value, status):
    assert veteran.find().status_code == 200
    assert veteran.find(headers={header: value}).status_code == status


def test_two_subscription_keys_stand_for_the_plain_one(sandbox, veteran):
    known = sandbox.credentials
    keys = {"Ocp-Apim-Subscription-Key": None, "Ocp-Apim-Subscription-Key-E": known.subscription_key_e}
    assert veteran.find().status_code == 200
    assert veteran.find(headers=keys).status_code == 401
    assert veteran.find(headers=keys | {"Ocp-Apim-Subscription-Key-S": known.subscription_key_s}).status_code == 200


def test_a_btsss_token_of_another_veis_token_is_a_contact_mismatch(veteran):
    claim_id = veteran.claim_id()
    veteran.get_veis()
    assert veteran.add(claim_id).status_code == 409
    veteran.get_btsss()
    assert veteran.add(claim_id).status_code == 200


def test_an_expired_veis_token_is_refused(sandbox, veteran):
    sandbox.change({"veis_lifetime": 0})
    veteran.get_veis()
    refused = veteran.get_btsss()
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


def test_an_empty_base_path_works_too(sandbox, veteran):
    veteran.claim_id()
    base = sandbox.url("travel-pay").removesuffix("/eis/api/btsss/travelclaim")
    url = f"{base}/api/v3/claims/search-by-appointment-date"
    query = {"startDate": "2026-03-02T00:00:00Z", "endDate": "2026-03-02T23:59:59Z"}
    answer = requests.get(url, params=query, headers=veteran.headers(), timeout=60)
    assert answer.json()["totalRecordCount"] == 1


def test_a_visit_is_icn_station_and_minute(veteran, other):
    first = veteran.appointment_id()
    visit = {"appointmentDateTime": "2026-03-02T10:00:30Z", "facilityStationNumber": "983GC"}
    assert veteran.appointment_id(visit) == first
    assert veteran.appointment_id(visit | {"appointmentDateTime": "2026-03-02T10:01:00Z"}) != first
    assert veteran.appointment_id(visit | {"facilityStationNumber": "983"}) != first
    assert other.appointment_id() != first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"appointmentDateTime": "2026-03-02T10:00:00-05:00"}, "Invalid appointment date format"),
        ({"appointmentDateTime": "2026-02-30T10:00:00Z"}, "Invalid appointment date format"),
        ({"facilityStationNumber": "x"}, "Validation failed: Invalid facility station number."),
        ({"appointmentName": ""}, "Validation failed: The appointment name must not be empty."),
        ({"appointmentType": "Party"}, "Validation failed: Invalid appointment type."),
        ({"isComplete": "yes"}, "Validation failed: isComplete must be a boolean."),
    ],
)
def test_a_malformed_appointment_is_refused(veteran, change, said):
    answer = veteran.find({"appointmentDateTime": "2026-03-02T10:00:00Z", "facilityStationNumber": "983GC"} | change)
    assert (answer.status_code, answer.json()["message"], answer.json()["success"]) == (400, said, False)


def test_an_appointment_has_one_claim_and_shows_it(sandbox, veteran):
    claim_id = veteran.claim_id()
    [appointment] = veteran.find().json()["data"]
    assert appointment["associatedClaimId"] == claim_id
    again = veteran.create(appointment["id"])
    assert (again.status_code, again.json()["message"], again.json()["data"]) == (400, DUPLICATE, None)
    assert sandbox.ledger()["totals"]["claims"] == 1


def test_of_many_creates_at_once_one_succeeds(sandbox, veteran, monkeypatch):
    add = Book.add_claim
    monkeypatch.setattr(Book, "add_claim", lambda *given: time.sleep(0.01) or add(*given))
    visit_id = veteran.appointment_id()
    with ThreadPoolExecutor(20) as pool:
        statuses = [one.status_code for one in pool.map(lambda _: veteran.create(visit_id), range(60))]
    assert sorted(statuses) == [200] + [400] * 59
    assert sandbox.ledger()["totals"]["claims"] == 1


def test_nobody_sees_what_is_another_veterans(veteran, other):
    claim_id = veteran.claim_id()
    expense_id = veteran.add(claim_id).json()["data"]["expenseId"]
    assert other.read(claim_id).status_code == other.add(claim_id).status_code == 404
    assert other.submit(claim_id).json()["message"] == "Claim not found"
    assert other.call("DELETE", f"api/v3/expenses/mileage/{expense_id}").status_code == 404
    assert other.create(veteran.appointment_id()).json()["message"] == "Invalid appointment ID"
    assert other.search().json()["data"] == []


def test_a_claim_is_submitted_once_and_only_with_an_expense(sandbox, veteran):
    claim_id = veteran.claim_id()
    early = veteran.submit(claim_id)
    assert early.status_code == 400
    assert early.json()["message"] == "Validation failed: The claim does not have any expenses."
    veteran.add(claim_id)
    assert veteran.submit(claim_id).status_code == 200
    again = veteran.submit(claim_id)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "CLAIM_ALREADY_SUBMITTED")
    assert veteran.add(claim_id).status_code == 400
    assert sandbox.ledger()["totals"]["submissions"] == 1


def test_unknown_ids_are_not_found(veteran):
    assert veteran.read("7d0f2c1e-5b0a-4b86-9c3d-0a1f6e2b8c44").status_code == 404
    assert veteran.submit("nonsense").status_code == 404
    assert veteran.add("7d0f2c1e-5b0a-4b86-9c3d-0a1f6e2b8c44").status_code == 404
    assert veteran.call("GET", "api/v3/nothing").status_code == 404


@pytest.mark.parametrize("type", BODIES)
def test_every_type_of_expense_is_taken(veteran, type):
    claim_id = veteran.claim_id()
    common = {"claimId": claim_id, "dateIncurred": "2026-03-02", "description": type}
    priced = {"costRequested": 10, "expenseType": type}
    added = veteran.call("POST", f"api/v1/expenses/{type}", common | priced | BODIES[type])
    [shown] = veteran.read(claim_id).json()["data"]["expenses"]
    assert shown["id"] == added.json()["data"]["id"]
    assert shown["expenseType"].lower() == type
    assert (shown["dateIncurred"][:10], shown["description"], shown["costRequested"]) == ("2026-03-02", type, 10)


def test_parking_is_shown_as_other_with_the_name_telling(veteran):
    claim_id = veteran.claim_id()
    veteran.add_parking(claim_id)
    [shown] = veteran.read(claim_id).json()["data"]["expenses"]
    assert (shown["expenseType"], shown["name"]) == ("Other", "Parking")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"costRequested": 0}, 400),
        ({"costRequested": "12"}, 400),
        ({"costRequested": 1.005}, 400),
        ({"expenseType": "toll"}, 422),
        ({"dateIncurred": "02.03.2026"}, 400),
        ({"description": ""}, 400),
        ({"tripType": "OneWay"}, 400),
        ({"expenseReceipt": {"contentType": "image/png", "length": 9, "fileName": "a.png", "fileData": "AAAA"}}, 400),
    ],
)
def test_a_malformed_expense_is_refused_without_effect(sandbox, veteran, change, status):
    claim_id = veteran.claim_id()
    assert veteran.add_parking(claim_id, **change).status_code == status
    assert sandbox.ledger()["expenses"] == []


def test_a_receipt_is_taken_when_its_length_is_true(veteran):
    data = base64.b64encode(b"receipt").decode()
    receipt = {"contentType": "image/png", "length": 7, "fileName": "a.png", "fileData": data}
    assert veteran.add_parking(veteran.claim_id(), expenseReceipt=receipt).status_code == 200


def test_an_unknown_type_of_expense_does_not_fit_the_claim(veteran):
    answer = veteran.call("POST", "api/v1/expenses/hotel", {"claimId": veteran.claim_id()})
    assert (answer.status_code, answer.json()["message"]) == (422, "Expense type is invalid for this claim.")


def test_the_ledger_counts_equal_expenses_of_one_claim(sandbox, veteran):
    claim_id = veteran.claim_id()
    veteran.add(claim_id)
    veteran.add(claim_id)
    veteran.add(claim_id, description="the way back")
    assert sorted(one["count"] for one in sandbox.ledger()["expenses"]) == [1, 2]
    assert sandbox.ledger()["duplicates"]["expenses"] == 1
    assert len(veteran.read(claim_id).json()["data"]["expenses"]) == 3


def test_a_claim_without_its_expenses_is_incomplete_again(sandbox, veteran):
    claim_id = veteran.claim_id()
    expense_id = veteran.add(claim_id).json()["data"]["expenseId"]
    assert veteran.call("DELETE", f"api/v1/expenses/parking/{expense_id}").status_code == 404
    path = f"api/v3/expenses/mileage/{expense_id}"
    assert [veteran.call("DELETE", path).status_code for _ in range(2)] == [200, 404]
    assert veteran.read(claim_id).json()["data"]["claimStatus"] == "Incomplete"
    [deletion] = sandbox.ledger()["deletions"]
    assert (deletion["what"], deletion["id"], deletion["count"]) == ("expense", expense_id, 1)


def test_a_claim_is_deleted_only_where_that_is_switched_on(sandbox, veteran):
    claim_id = veteran.claim_id()
    assert veteran.call("DELETE", f"api/v3/claims/{claim_id}").status_code == 405
    sandbox.change({"claim_delete": True})
    assert veteran.call("DELETE", f"api/v3/claims/{claim_id}").status_code == 200
    assert veteran.read(claim_id).status_code == 404
    assert veteran.find().json()["data"][0]["associatedClaimId"] is None
    veteran.claim_id()
    assert sandbox.ledger()["claims"][0]["count"] == 2


def test_a_submitted_claim_and_its_expenses_stay(sandbox, veteran):
    sandbox.change({"claim_delete": True})
    claim_id = veteran.claim_id()
    expense_id = veteran.add(claim_id).json()["data"]["expenseId"]
    veteran.submit(claim_id)
    assert veteran.call("DELETE", f"api/v3/claims/{claim_id}").status_code == 400
    assert veteran.call("DELETE", f"api/v3/expenses/mileage/{expense_id}").status_code == 400


def test_a_search_pages_through_the_claims_of_a_day(veteran):
    for minute in range(5):
        veteran.claim_id({"appointmentDateTime": f"2026-03-02T10:{minute:02}:00Z", "facilityStationNumber": "983"})
    veteran.claim_id({"appointmentDateTime": "2026-03-03T10:00:00Z", "facilityStationNumber": "983"})
    pages = [veteran.search(pageSize=2, pageNumber=number).json() for number in (1, 2, 3, 4)]
    assert [len(one["data"]) for one in pages] == [2, 2, 1, 0]
    assert {one["totalRecordCount"] for one in pages} == {5}
    assert pages[0]["data"][0].keys() >= {"id", "claimNumber", "claimStatus", "appointmentDateTime", "facilityName"}


@pytest.mark.parametrize("change", [{"startDate": None}, {"endDate": "2026-03-02"}, {"pageNumber": 0}])
def test_a_malformed_search_is_refused(veteran, change):
    assert veteran.search(**change).status_code == 400
