"""Bodies and rows that the tests of the API begin with."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, null, update

from app import db, states
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.workflow import Workflow

ICN = "1012667122V019349"


def claim(**changes: Any) -> dict[str, Any]:
    """A good body; `...` as a value takes the member away."""
    body = {"icn": ICN, "appointment": {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"}, **changes}
    return {name: value for name, value in body.items() if value is not ...}


def everything() -> dict[str, Any]:
    """Expenses of every type."""
    cost = {"costRequested": 12.5}
    return {
        "expenses": [
            {"type": "mileage"},
            {"type": "parking", "costRequested": 12.50, "description": "Garage"},
            {"type": "toll", **cost, "receipt": receipt()},
            {"type": "other", **cost, "dateIncurred": "2026-03-01"},
            {"type": "meal", **cost, "vendorName": " Diner "},
            {"type": "lodging", **cost, "vendor": "Inn", "checkInDate": "2026-03-01", "checkOutDate": "2026-03-02"},
            {"type": "commoncarrier", **cost, "carrierType": "Bus", "reasonNotUsingPOV": "medically_indicated"},
            {"type": "airtravel", **cost, **flight()},
        ]
    }


def flight(**changes: Any) -> dict[str, Any]:
    """The fields of air travel."""
    trip = {
        "vendorName": "Air",
        "tripType": "RoundTrip",
        "departedFrom": "Denver",
        "arrivedTo": "Cheyenne",
        "departureDate": "2026-03-01",
        "returnDate": "2026-03-03",
        **changes,
    }
    return {name: value for name, value in trip.items() if value is not ...}


def receipt(**changes: Any) -> dict[str, Any]:
    """A small receipt."""
    return {"contentType": "application/pdf", "fileName": "receipt.pdf", "fileData": "JVBERi0=", **changes}


def put_into(id: str, state: str, **columns: Any) -> None:
    """Set a claim's state directly, as the engine would leave the row."""
    columns |= {"state": state, "updated_at": func.clock_timestamp()}
    if states.CLAIM.is_finished(state):
        columns |= {"due_at": None, "wake_at": None}
    if states.CLAIM.is_free(state):
        columns["slot"] = None
    with db.transaction() as session:
        session.execute(update(Workflow.__table__).where(Workflow.__table__.c.id == UUID(id)).values(**columns))


def visit(number: int) -> dict[str, Any]:
    """A claim's body for a visit of its own."""
    return claim(appointment={"dateTime": f"2026-03-02T10:{number:02}:00", "stationNumber": "983GC"})


def add_text(claim_id: str, state: str = "sent", *, template: str = "error", **columns: Any) -> str:
    """A text about a claim, as the engine would leave its row. Returns its id."""
    if states.NOTIFICATION.is_finished(state):
        columns = {"due_at": null(), "wake_at": null(), **columns}
    with db.transaction() as session:
        about = session.get_one(Claim, UUID(claim_id))
        row = Notification(
            state=state,
            template=template,
            client_id=about.client_id,
            correlation_id=about.correlation_id,
            claim_id=about.id,
            **{"run": about.run, "product": about.product, **columns},
        )
        session.add(row)
        session.flush()
        return str(row.id)
