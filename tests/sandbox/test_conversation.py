"""The worked example of the contract, call by call, and what the ledger and the log make of it."""

import re


def test_a_claim_is_filed_and_told_as_in_the_worked_example(sandbox, veteran, texter):
    minted = veteran.get_veis()
    assert (minted.status_code, minted.json()["token_type"], minted.json()["expires_in"]) == (200, "Bearer", "3599")
    token = veteran.get_btsss().json()
    assert (token["success"], token["statusCode"], list(token["data"])) == (True, 200, ["accessToken"])

    found = veteran.find().json()
    assert found["totalRecordCount"] == 1
    [appointment] = found["data"]
    assert appointment["appointmentDateTime"] == "2026-03-02T10:00:00Z"
    assert appointment["facilityName"] == "Cheyenne VA Medical Center"
    assert appointment["associatedClaimId"] is appointment["associatedClaimNumber"] is None

    created = veteran.create(appointment["id"]).json()
    assert created["message"] == "Claim created successfully."
    assert created["correlationId"] == veteran.correlation_id
    claim_id = created["data"]["claimId"]
    assert veteran.read(claim_id).json()["data"]["claimStatus"] == "Incomplete"

    added = veteran.add(claim_id).json()
    assert added["message"] == "Expense added successfully."
    assert veteran.read(claim_id).json()["data"]["claimStatus"] == "Saved"

    submitted = veteran.submit(claim_id).json()
    assert submitted["data"].keys() == {"claimId", "status", "createdOn", "modifiedOn"}
    assert submitted["data"]["status"] == "ClaimSubmitted"

    read = veteran.read(claim_id).json()["data"]
    assert (read["claimId"], read["claimStatus"]) == (claim_id, "ClaimSubmitted")
    assert re.fullmatch(r"TC[0-9]{13,15}", read["claimNumber"])
    assert [one["id"] for one in read["expenses"]] == [added["data"]["expenseId"]]

    sent = texter.send("0197c2a4-8a02-7c11-8f60-b7d2e94c5a13")
    assert (sent.status_code, sent.json()["reference"]) == (201, "0197c2a4-8a02-7c11-8f60-b7d2e94c5a13")

    ledger = sandbox.ledger()
    assert ledger["totals"] == {
        "appointments": 1,
        "claims": 1,
        "expenses": 1,
        "submissions": 1,
        "deletions": 0,
        "texts": 1,
        "veis_mints": 1,
        "btsss_mints": 1,
        "receipts": 0,
        "declarations": 0,
        "vouchers": 0,
        "replacements": 0,
        "cancellations": 0,
        "holidays": 0,
    }
    assert not any(ledger["duplicates"].values())
    [claim] = ledger["claims"]
    assert claim["correlation_id"] == veteran.correlation_id
    assert (claim["icn"], claim["claimId"], claim["count"]) == (veteran.icn, claim_id, 1)


def test_calls_are_logged_in_order_with_headers_as_sent(sandbox, veteran):
    claim_id = veteran.claim_id()
    veteran.add(claim_id)
    veteran.submit(claim_id)
    calls = sandbox.calls()
    names = ["veis-token", "system-token", "find-or-add", "create-claim", "add-expense", "submit-claim"]
    assert [one["call"] for one in calls] == names
    assert {one["status"] for one in calls} == {200}
    assert {one["correlation_id"] for one in calls} == {veteran.correlation_id}
    assert calls[1]["headers"]["BTSSS-API-Client-Number"] == veteran.product.client_number
    assert calls[1]["body"] == {"secret": veteran.product.secret, "icn": veteran.icn}
    assert calls[2]["path"] == "/eis/api/btsss/travelclaim/api/v3/appointments/find-or-add"
    assert calls[5]["body"] is None


def test_the_log_can_be_narrowed_to_a_call_and_to_what_came_later(sandbox, veteran):
    veteran.claim_id()
    last = sandbox.calls(limit=1)[0]["number"]
    veteran.find()
    assert [one["call"] for one in sandbox.calls(after=last)] == ["find-or-add"]
    assert len(sandbox.calls(call="find-or-add", upstream="travel-pay")) == 2
    assert sandbox.calls(correlation_id="nobody") == []
