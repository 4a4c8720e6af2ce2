"""What Travel Pay remembers: appointments by visit, at most one claim for each, and the claim's expenses."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from sandbox.messages import timestamp

FACILITIES = {"983": "Cheyenne VA Medical Center", "983GC": "Cheyenne VA Medical Center"}
UNFINISHED = ("Incomplete", "Saved")
MILEAGE_PAID = 21.58
SHOWN_TYPES = {"parking": "Other", "commoncarrier": "CommonCarrier", "airtravel": "AirTravel"}


@dataclass(slots=True)
class Expense:
    id: str
    type: str
    fields: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        """As a claim read back shows it: parking appears as Other, with the name telling the type."""
        word = self.type.capitalize()
        return {
            "id": self.id,
            "expenseType": SHOWN_TYPES.get(self.type, word),
            "name": word,
            "dateIncurred": f"{self.fields['dateIncurred']}T00:00:00Z",
            "description": self.fields["description"],
            "costRequested": self.fields.get("costRequested", MILEAGE_PAID),
        }


@dataclass(slots=True, eq=False)
class Appointment:
    id: str
    icn: str
    station: str
    date_time: str
    claim: "Claim | None" = None

    @property
    def facility_name(self) -> str:
        return FACILITIES.get(self.station, f"VA facility {self.station}")

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "appointmentDateTime": f"{self.date_time}Z",
            "appointmentName": None,
            "appointmentStatus": "Checked In",
            "currentStatus": "CHECKED IN",
            "facilityId": f"facility-{self.station}",
            "facilityName": self.facility_name,
            "associatedClaimId": self.claim.id if self.claim else None,
            "associatedClaimNumber": self.claim.number if self.claim else None,
        }


@dataclass(slots=True, eq=False)
class Claim:
    id: str
    number: str
    appointment: Appointment
    status: str = "Incomplete"
    expenses: list[Expense] = field(default_factory=list)
    created_on: float = field(default_factory=time.time)
    modified_on: float = field(default_factory=time.time)

    @property
    def is_unfinished(self) -> bool:
        return self.status in UNFINISHED

    def touch(self, status: str) -> None:
        self.status = status
        self.modified_on = time.time()

    def summary(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "claimNumber": self.number,
            "claimStatus": self.status,
            "appointmentDateTime": f"{self.appointment.date_time}Z",
            "facilityName": self.appointment.facility_name,
            "createdOn": timestamp(self.created_on),
            "modifiedOn": timestamp(self.modified_on),
        }

    def details(self) -> dict[str, Any]:
        return {
            "claimId": self.id,
            "claimNumber": self.number,
            "claimStatus": self.status,
            "appointmentDate": f"{self.appointment.date_time}Z",
            "facilityName": self.appointment.facility_name,
            "rejectionReason": None,
            "appointment": self.appointment.shown(),
            "expenses": [one.shown() for one in self.expenses],
            "createdOn": timestamp(self.created_on),
            "modifiedOn": timestamp(self.modified_on),
        }


class Book:
    """Read and changed only under the world's lock."""

    def __init__(self) -> None:
        self._visits: dict[tuple[str, str, str], Appointment] = {}
        self._appointments: dict[str, Appointment] = {}
        self._claims: dict[str, Claim] = {}
        self._of_icn: dict[str, list[Claim]] = {}
        self._claim_of_expense: dict[str, str] = {}
        self._numbers = 13_889

    def find_or_add(self, icn: str, station: str, date_time: str) -> tuple[Appointment, bool]:
        """The appointment of that minute, and whether it is new."""
        visit = (icn, station, date_time[:16])
        found = self._visits.get(visit)
        if found is not None:
            return found, False
        added = Appointment(str(uuid.uuid4()), icn, station, date_time)
        self._visits[visit] = self._appointments[added.id] = added
        return added, True

    def appointment(self, id: Any, icn: str | None = None) -> Appointment | None:
        """The appointment, if it is that veteran's (or anyone's when not told)."""
        found = self._appointments.get(id) if isinstance(id, str) else None
        return found if found is not None and icn in (None, found.icn) else None

    def claim(self, id: Any, icn: str | None = None) -> Claim | None:
        """The claim, if it is that veteran's (or anyone's when not told)."""
        found = self._claims.get(id) if isinstance(id, str) else None
        return found if found is not None and icn in (None, found.appointment.icn) else None

    def add_claim(self, appointment: Appointment, *, number: str | None = None, status: str = "Incomplete") -> Claim:
        """A new claim of an appointment that has none."""
        claim = Claim(str(uuid.uuid4()), number or self._number(), appointment, status)
        appointment.claim = self._claims[claim.id] = claim
        self._of_icn.setdefault(appointment.icn, []).append(claim)
        return claim

    def add_expense(self, claim: Claim, type: str, fields: dict[str, Any]) -> Expense:
        expense = Expense(str(uuid.uuid4()), type, fields)
        claim.expenses.append(expense)
        claim.touch("Saved")
        self._claim_of_expense[expense.id] = claim.id
        return expense

    def expense(self, id: str, icn: str) -> tuple[Claim, Expense] | None:
        """That veteran's expense and its claim; None for one that is gone, unknown or another's."""
        claim = self.claim(self._claim_of_expense.get(id), icn)
        found = next((one for one in claim.expenses if one.id == id), None) if claim else None
        return (claim, found) if claim and found else None

    def remove_expense(self, claim: Claim, expense: Expense) -> None:
        claim.expenses.remove(expense)
        claim.touch("Saved" if claim.expenses else "Incomplete")
        del self._claim_of_expense[expense.id]

    def remove_claim(self, claim: Claim) -> None:
        del self._claims[claim.id]
        self._of_icn[claim.appointment.icn].remove(claim)
        claim.appointment.claim = None

    def claims_between(self, icn: str, start: str, end: str) -> list[Claim]:
        """The veteran's claims for appointments from start to end, both included, earliest appointment first."""
        found = [one for one in self._of_icn.get(icn, ()) if start <= one.appointment.date_time <= end]
        return sorted(found, key=lambda one: one.appointment.date_time)

    def _number(self) -> str:
        self._numbers += 1
        return f"TC{time.strftime('%Y%m')}{self._numbers:09d}"
