"""Travel Pay's words: status groups, classifiers of a no, and what a 200 may hide (contract 4.4 to 4.6)."""

import json

import pytest

from app import steps
from app.upstreams import answers, outcomes
from app.upstreams import travel_pay_answers as said

UNFINISHED = ["Incomplete", "Saved"]
SUBMITTED = [
    *("ClaimSubmitted", "InProcess", "In-Process", "InProgress", "InManualReview", "OnHold", "Appealed", "Appeal"),
    *("PartialPayment", "PreApprovedForPayment", "ApprovedForPayment", "SubmittedForPayment", "ClaimPaid"),
]
DENIED = ["Denied", "ClosedWithNoPayment", "PaymentCanceled", "FiscalRescinded"]


def answer(body, status=200):
    return answers.Answer(status, {}, json.dumps(body).encode())


def ended(status, message="", code=""):
    what = steps.Failure(code="rejected", http_status=400, message=message)
    return steps.Ended(steps.Rejected(failure=what), status=status, message=message, code=code)


@pytest.mark.parametrize(
    ("words", "group", "is_submitted"),
    [
        (UNFINISHED, "unfinished", False),
        (SUBMITTED, "submitted", True),
        (DENIED, "denied", True),
        (["Shredded", "saved", "", None], "other", False),
    ],
)
def test_every_status_has_its_group(words, group, is_submitted):
    for word in words:
        assert (said.group(word), said.is_submitted(word)) == (group, is_submitted), word


@pytest.mark.parametrize(
    ("refusal", "duplicate"),
    [
        (ended(400, "Validation failed: A claim has already been created for this appointment."), True),
        (ended(409, "The visit already has a claim"), True),
        (ended(422, "x: it ALREADY EXISTS; y"), True),
        (ended(400, "Duplicate claim"), True),
        (ended(400, "No", "CLM_002_CLAIM_EXISTS"), True),
        (ended(400, "CLM_002_claim_exists"), True),
        (ended(403, "Duplicate claim"), False),
        (ended(500, "Duplicate claim"), False),
        (ended(None, "Duplicate claim"), False),
        (ended(409, "The contact does not match."), False),
    ],
)
def test_one_classifier_tells_duplicates(refusal, duplicate):
    assert said.is_duplicate(refusal) is duplicate


@pytest.mark.parametrize(
    ("refusal", "already"),
    [
        (ended(400, "Claim has Already Been Submitted"), True),
        (ended(409, "No", "CLAIM_ALREADY_SUBMITTED"), True),
        (ended(500, "No", "CLAIM_ALREADY_SUBMITTED"), False),
        (ended(400, "The claim does not have any expenses."), False),
    ],
)
def test_one_classifier_tells_what_was_already_submitted(refusal, already):
    assert said.is_already_submitted(refusal) is already


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"success": True, "statusCode": 200, "data": {}}, 200),
        ({"data": {}}, 200),
        ({"success": False, "statusCode": 404}, 404),
        ({"success": False, "statusCode": "422"}, 422),
        ({"success": False, "statusCode": 200}, 502),
        ({"success": False}, 502),
        ({"statusCode": 500, "data": {}}, 500),
        ({"success": False, "statusCode": 7000}, 502),
        ([], 200),
    ],
)
def test_the_inner_status_counts(body, status):
    assert said.status_of(answer(body)) == status


def test_the_inner_status_of_an_error_does_not_matter():
    assert said.status_of(answer({"statusCode": 200}, status=500)) == 500


def test_only_the_wall_clock_minute_is_compared():
    assert said.same_minute("2026-03-02T10:00:00", "2026-03-02T10:00:59.123Z")
    assert said.same_minute("2026-03-02T10:00:00-05:00", "2026-03-02T10:00:00Z")
    assert not said.same_minute("2026-03-02T10:00:00", "2026-03-02T10:01:00")
    assert not said.same_minute("2026-03-02T10:00:00", None)
    assert said.wire_time("2026-03-02T10:00:00") == "2026-03-02T10:00:00Z"


@pytest.mark.parametrize(
    ("reader", "body"),
    [
        (said.identified("id"), {"id": "1"}),
        (said.identified("id"), {"data": None}),
        (said.identified("id"), {"data": {"id": ""}}),
        (said.identified("id"), {"data": [{"id": "1"}, {"id": "2"}]}),
        (said.appointments, {"data": [{"appointmentDateTime": "2026-03-02T10:00:00Z"}]}),
        (said.appointments, {"data": None, "success": True}),
        (said.appointments, {"data": ["x"]}),
        (said.claim_details, {"data": {"claimId": "1"}}),
        (said.submitted, {"result": "ok"}),
        (said.submitted, {"success": True}),
        (said.submitted, {"data": {}}),
        (said.submitted, {"data": {"status": "Saved"}}),
        (said.submitted, {"data": {"status": "Incomplete"}}),
    ],
)
def test_an_answer_that_lacks_what_is_needed_is_not_understood(reader, body):
    with pytest.raises(outcomes.NotUnderstood):
        reader(answer(body))


def test_what_is_not_needed_may_be_missing_or_more():
    assert said.identified("id")(answer({"data": [{"id": 7, "other": 1}]})) == "7"
    assert said.appointments(answer({"data": {"id": "a"}})) == [said.Appointment(id="a")]
    assert said.appointments(answer({"data": []})) == []
    assert said.claim_summaries(answer({"data": None, "success": True})) == []
    assert said.submitted(answer({"data": {"claimId": "c"}})) is None
    assert said.submitted(answer({"data": {"status": "Shredded"}})) == "Shredded"
    details = said.claim_details(answer({"data": {"claimId": "c", "claimStatus": "Saved", "expenses": None}}))
    assert details == said.ClaimDetails(id="c", status="Saved")


def test_a_cancelled_appointment_is_told_by_either_status():
    assert said.Appointment(id="a", status="CANCELLED BY CLINIC").cancelled
    assert said.Appointment(id="a", status="Scheduled", current_status="Cancelled").cancelled
    assert not said.Appointment(id="a", status="Checked In").cancelled
