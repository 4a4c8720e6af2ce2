"""The faults only Travel Pay has: duplicates, foreign and cancelled records, contact mismatches, false successes."""

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandbox.faults import Kind
from sandbox.messages import Answer, Reply, json_answer
from sandbox.turn import Turn
from sandbox.upstreams.travel_pay_shapes import enveloped, error

if TYPE_CHECKING:
    from sandbox.upstreams.travel_pay import TravelPay

Parameters = Mapping[str, Any]
FOREIGN_NUMBER = "TC202602000099121"
SHOWING_STATUS = ("read-claim", "search-claims", "submit-claim")
TALKING_ENVELOPE = (
    "system-token", "find-or-add", "create-claim", "read-claim", "search-claims", "add-expense", "delete-expense",
    "submit-claim", "delete-claim",
)  # fmt: skip


def contact(_turn: Turn, given: Parameters) -> Reply:
    return error(409, given["message"])


def duplicate(_turn: Turn, given: Parameters) -> Reply:
    return error(given["status"], given["message"])


def success_false(turn: Turn, given: Parameters) -> Reply:
    """A 200 that says inside that it is none; an inner status of null leaves `statusCode` out."""
    if given["effect"]:
        turn.perform()
    told = enveloped(None, given["message"], status=given["status"] or 500, correlation_id=turn.request.correlation_id)
    told["success"] = False
    if given["status"] is None:
        del told["statusCode"]
    return json_answer(200, told)


def cancelled_first(turn: Turn, _given: Parameters) -> Reply:
    """A cancelled appointment of the same minute before the right one. Nothing can be filed for it."""
    answer = turn.perform()
    told = json.loads(answer.body)
    if answer.status != 200 or not told["data"]:
        return answer
    gone = {"id": str(uuid.uuid4()), "appointmentStatus": "Cancelled By Patient", "currentStatus": "CANCELLED"}
    none = {"associatedClaimId": None, "associatedClaimNumber": None}
    told["data"].insert(0, told["data"][0] | gone | none)
    told["totalRecordCount"] = len(told["data"])
    return json_answer(200, told, answer.headers)


def claim_status(turn: Turn, given: Parameters) -> Reply:
    """Another status word than the claim really has, in this answer only."""
    answer = turn.perform()
    return json_answer(answer.status, _with_status(json.loads(answer.body), given["claim_status"]), answer.headers)


def _with_status(content: Any, word: str) -> Any:
    if isinstance(content, list):
        return [_with_status(one, word) for one in content]
    if isinstance(content, dict):
        return {
            name: word if name in ("claimStatus", "status") else _with_status(value, word)
            for name, value in content.items()
        }
    return content


def kinds(travel_pay: "TravelPay") -> dict[str, Kind]:
    def foreign_claim(turn: Turn, given: Parameters) -> Reply:
        """The appointment has a claim that nobody here made: it stays, and is in no ledger."""
        if turn.call.name == "find-or-add":
            answer: Answer = turn.perform()
            if answer.status != 200:
                return answer
            _plant(json.loads(answer.body)["data"][0]["id"], given)
        else:
            _plant(turn.request.members().get("appointmentId"), given)
        return turn.perform()

    def _plant(appointment_id: Any, given: Parameters) -> None:
        with travel_pay.world.lock:
            appointment = travel_pay.book.appointment(appointment_id)
            if appointment is not None and appointment.claim is None:
                number, status = given["claim_number"], given["claim_status"]
                travel_pay.book.add_claim(appointment, number=number, status=status)

    return {
        "contact-409": Kind(
            contact, {"message": "The contact of the access token does not match."}, calls=TALKING_ENVELOPE
        ),
        "duplicate": Kind(
            duplicate,
            {
                "status": 400,
                "message": "Validation failed: A claim has already been created for this appointment.",
            },
            calls=("create-claim",),
        ),
        "success-false": Kind(
            success_false,
            {"status": 500, "message": "Internal server error", "effect": False},
            calls=TALKING_ENVELOPE,
        ),
        "cancelled-first": Kind(cancelled_first, calls=("find-or-add",)),
        "foreign-claim": Kind(
            foreign_claim,
            {"claim_number": FOREIGN_NUMBER, "claim_status": "ClaimSubmitted"},
            calls=("find-or-add", "create-claim"),
        ),
        "claim-status": Kind(claim_status, {"claim_status": "Denied"}, calls=SHOWING_STATUS),
    }
