"""The body of POST /travel-claims. Source: travel-claims contract, 2.2. The expenses follow from `app.expenses`."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

from app import callback_urls, config, expenses
from app.expenses import Expense
from app.fields import Body, OneOf, fault
from app.store.claims import NewClaim

_DATE_TIME = re.compile(
    r"((?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9])"
    r"(:[0-5][0-9](?:\.[0-9]+)?)?(Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
)
_DATE_ONLY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EDIPI_ALONE = "An EDIPI cannot be used on its own; send the veteran's ICN in icn."
_URL_REFUSED: Mapping[str, str] = {
    "not-https": "Must be an https URL.",
    "callback-url-not-allowed": "Must be a plain URL (no user info, no fragment) of a host that may get callbacks.",
}
_ANY_ICN = "0000000000V000000"
_ROUND_TRIP = TypeAdapter(list[Expense]).validate_python([{"type": "mileage", "tripType": "RoundTrip"}])


def _wall_clock(text: str) -> str:
    """The time on the facility's wall, to the second; offset and fraction are dropped, nothing is converted."""
    if _DATE_ONLY.fullmatch(text):
        raise fault("time-required", "Give date and time, e.g. 2026-03-02T10:00:00.")
    parts = _DATE_TIME.fullmatch(text)
    try:
        if not parts:
            raise ValueError(text)
        minute, seconds = parts[1], (parts[2] or ":00")[:3]
        return datetime.fromisoformat(minute + seconds).isoformat()
    except ValueError as error:
        detail = "Must be a date and time of day, e.g. 2026-03-02T10:00:00 or 2026-03-02T10:00:00-05:00."
        raise fault("invalid-date-time", detail) from error


def _not_alone(edipi: Any) -> Any:
    if isinstance(edipi, _Alone):
        raise fault("edipi-not-supported", _EDIPI_ALONE)
    return edipi


def _callback_url(url: str) -> str:
    """Callbacks go to hosts of the allow-list only."""
    line = config.settings().travel_claims
    refusal = callback_urls.refusal(url, line.callback_hosts, insecure=line.callback_insecure)
    if refusal:
        raise fault(refusal, _URL_REFUSED[refusal])
    return url


class _Alone:
    """Stands for an EDIPI without an ICN."""


WallClock = Annotated[
    str,
    AfterValidator(_wall_clock),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_DATE_TIME.pattern}$",
            "description": "Wall-clock time at the facility. An offset is accepted and dropped, never converted.",
            "examples": ["2026-03-02T10:00:00"],
        }
    ),
]


class Appointment(Body):
    date_time: WallClock
    station_number: Annotated[str, StringConstraints(pattern=r"^[0-9]{3}[0-9A-Z]{0,3}$")]
    type: Annotated[str, OneOf("Other", "CompensationAndPensionExamination")] | None = None
    complete: bool | None = None
    name: Annotated[str, StringConstraints(max_length=100)] | None = None


class Intake(Body):
    """A travel claim of one veteran for one visit."""

    icn: Annotated[str, StringConstraints(pattern=r"^[0-9]{10}V[0-9]{6}$")]
    edipi: Annotated[str, BeforeValidator(_not_alone)] | None = Field(
        default=None, description="Ignored beside an ICN; not supported without one."
    )
    appointment: Appointment
    expenses: Annotated[list[Expense], Field(min_length=1, max_length=20)] | None = Field(
        default=None, description="Absent: one mileage expense for the round trip."
    )
    rollback: bool | None = Field(default=None, description="Undo what was made when a later step fails.")
    phone: Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{7,14}$")] | None = Field(
        default=None, description="E.164. Absent: no text message is sent."
    )
    callback_url: Annotated[str, StringConstraints(max_length=2048), AfterValidator(_callback_url)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _edipi_alone(cls, members: Any) -> Any:
        """An EDIPI without an ICN is one fault, not two: a stand-in keeps `icn` quiet in a body that is refused."""
        if not isinstance(members, dict) or members.get("edipi") is None or members.get("icn") is not None:
            return members
        return {**members, "icn": _ANY_ICN, "edipi": _Alone()}

    def as_new_claim(self) -> NewClaim:
        """What is stored of it, with every default filled in."""
        place = self.appointment
        appointment = place.model_dump(by_alias=True, exclude_none=True, exclude={"name"})
        day = place.date_time[:10]
        asked = self.expenses or _ROUND_TRIP
        return NewClaim(
            icn=self.icn,
            appointment=appointment,
            appointment_name=place.name if (place.name or "").strip() else None,
            expense_details=[expenses.details(one, visit_day=day) for one in asked],
            rollback=bool(self.rollback),
            phone=self.phone,
            callback_url=self.callback_url,
        )
