"""Travel Pay's bodies: the envelope it answers in, and the checks it makes of what it is sent."""

import base64
import binascii
import re
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from typing import Any

from sandbox.messages import Answer, Refusal, Request, json_answer, timestamp

APPOINTMENT_TYPES = ("Other", "CompensationAndPensionExamination")
TRIP_TYPES = ("OneWay", "RoundTrip", "Unspecified", "One Way", "Round Trip")
STATION = re.compile(r"[0-9]{3}[0-9A-Z]{0,3}")
MARKED_Z = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
ICN = re.compile(r"[0-9]{10}V[0-9]{6}")
PRICED = {"costRequested", "expenseType"}
EXPENSE_FIELDS: Mapping[str, set[str]] = {
    "mileage": {"tripType"},
    "parking": PRICED,
    "toll": PRICED,
    "other": PRICED,
    "meal": PRICED | {"vendorName"},
    "lodging": PRICED | {"vendor", "checkInDate", "checkOutDate"},
    "commoncarrier": PRICED | {"carrierType", "reasonNotUsingPOV"},
    "airtravel": PRICED | {"vendorName", "tripType", "departedFrom", "arrivedTo", "departureDate"},
}
RECEIPT_FIELDS = {"contentType", "length", "fileName", "fileData"}


def envelope(data: Any, message: str = "", *, correlation_id: str | None = None, **more: Any) -> Answer:
    """A success."""
    return json_answer(200, enveloped(data, message, correlation_id=correlation_id, **more))


def enveloped(
    data: Any, message: str, *, status: int = 200, correlation_id: str | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "correlationId": correlation_id or str(uuid.uuid4()),
        "timeStamp": timestamp(),
        "statusCode": status,
        "message": message,
        "success": status < 400,
        "data": data,
        **more,
    }


def error(status: int, message: str) -> Answer:
    return json_answer(status, enveloped(None, message, status=status))


def refuse(status: int, message: str) -> Refusal:
    return Refusal(error(status, message))


def coded(status: int, code: str, message: str) -> Refusal:
    return Refusal(json_answer(status, {"error": {"code": code, "message": message}}))


def body_of(
    request: Request, *, required: AbstractSet[str], optional: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """The body, when it is a JSON object with all of `required` and nothing that is neither. Raises Refusal 400."""
    if not (request.header("Content-Type") or "").startswith("application/json"):
        raise refuse(415, "Unsupported Media Type")
    try:
        body = request.json()
    except ValueError:
        raise refuse(400, "Validation failed: The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise refuse(400, "Validation failed: The body must be an object.")
    faults = [f"The {name} field is required." for name in sorted(required) if body.get(name) in (None, "")]
    faults += [f"The {name} field is not known." for name in sorted(body.keys() - required - optional)]
    if faults:
        raise Refusal(json_answer(400, enveloped(faults, "Bad Request", status=400)))
    return body


def date_time(text: Any) -> str:
    """`YYYY-MM-DDTHH:MM:SS` of a date and time marked Z. Raises Refusal 400."""
    invalid = refuse(400, "Invalid appointment date format")
    if not isinstance(text, str) or not MARKED_Z.fullmatch(text):
        raise invalid
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None).isoformat()
    except ValueError:
        raise invalid from None


def appointment_of(request: Request) -> tuple[str, str]:
    """Station number and wall-clock date and time of a find-or-add. Raises Refusal 400."""
    required = {"appointmentDateTime", "facilityStationNumber"}
    body = body_of(request, required=required, optional={"appointmentType", "isComplete", "appointmentName"})
    at = date_time(body["appointmentDateTime"])
    if not STATION.fullmatch(str(body["facilityStationNumber"])):
        raise refuse(400, "Validation failed: Invalid facility station number.")
    if "appointmentType" in body and body["appointmentType"] not in APPOINTMENT_TYPES:
        raise refuse(400, "Validation failed: Invalid appointment type.")
    if "isComplete" in body and not isinstance(body["isComplete"], bool):
        raise refuse(400, "Validation failed: isComplete must be a boolean.")
    if "appointmentName" in body and not str(body["appointmentName"] or "").strip():
        raise refuse(400, "Validation failed: The appointment name must not be empty.")
    return body["facilityStationNumber"], at


def expense_of(request: Request, type: str) -> dict[str, Any]:
    """The body of an expense of that type. Raises Refusal 400 or 422."""
    own = EXPENSE_FIELDS.get(type)
    if own is None:
        raise refuse(422, "Expense type is invalid for this claim.")
    optional = set() if type == "mileage" else {"expenseReceipt"}
    if type == "airtravel":
        optional.add("returnDate")
    body = body_of(request, required={"claimId", "dateIncurred", "description"} | own, optional=optional)
    try:
        date.fromisoformat(body["dateIncurred"])
    except (TypeError, ValueError):
        raise refuse(400, "Validation failed: Invalid date incurred.") from None
    if "tripType" in own and body["tripType"] not in TRIP_TYPES:
        raise refuse(400, "Validation failed: Invalid trip type.")
    if "expenseType" in own:
        _check_priced(body, type)
    return body


def _check_priced(body: Mapping[str, Any], type: str) -> None:
    cost = body["costRequested"]
    if body["expenseType"] != type:
        raise refuse(422, "Expense type is invalid for this claim.")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or cost <= 0 or round(cost, 2) != cost:
        raise refuse(400, "Validation failed: Invalid cost requested.")
    if "expenseReceipt" in body and not _is_receipt(body["expenseReceipt"]):
        raise refuse(400, "Validation failed: Invalid expense receipt.")


def _is_receipt(receipt: Any) -> bool:
    """True for the four members, with as many bytes in them as `length` says."""
    if not isinstance(receipt, dict) or receipt.keys() != RECEIPT_FIELDS:
        return False
    try:
        decoded = len(base64.b64decode(receipt["fileData"], validate=True))
    except (binascii.Error, TypeError, ValueError):
        return False
    return decoded > 0 and decoded == receipt["length"]
