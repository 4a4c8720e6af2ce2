"""Declarations in the API's documentation: the payload, by its tables, and the shape of every answer."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app import states
from app.charge_references import FORMAT
from app.declaration_schema import Array, Kind, Object, Text
from app.fields import untitled

_Value = dict[str, Any]


def payload(kind: Kind) -> _Value:
    """The tables as JSON schema. What we set ourselves may be anything."""
    if isinstance(kind, Object):
        ours: _Value = {kind.ours: {"description": "Set by us; what is sent is replaced."}} if kind.ours else {}
        return {
            "type": "object",
            "properties": {name: payload(inner) for name, inner in kind.properties.items()} | ours,
            "required": [*kind.required],
            "minProperties": kind.least,
            "additionalProperties": False,
        }
    if isinstance(kind, Array):
        return {"type": "array", "items": payload(kind.of)}
    return _of_text(kind) if isinstance(kind, Text) else {"type": "boolean"}


def _of_text(kind: Text) -> _Value:
    said: _Value = {
        "minLength": kind.least or None,
        "maxLength": kind.most,
        "enum": kind.words and [*kind.words],
        "pattern": kind.pattern,
        "description": kind.format and kind.format.shown,
    }
    return {"type": "string"} | {name: value for name, value in said.items() if value}


class ReferencePath(BaseModel):
    reference: str = Field(description="The charge reference.")


def _only_data(schema: _Value) -> None:
    schema.clear()
    schema.update(type="string", enum=["data"], description="Adds data, journeyData and faults; for the owner alone.")


class DataQuery(BaseModel):
    """For the description only."""

    include: str = Field(default="", json_schema_extra=_only_data)


class _Shown(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, json_schema_extra=untitled)


_Time = Field(json_schema_extra={"format": "date-time"})
_Reference = Field(pattern=f"^{FORMAT}$")


class AcceptedDeclaration(_Shown):
    id: str = Field(alias="_id", pattern=f"^{FORMAT}$", description="The charge reference.")
    data: _Value = Field(description="The payload with both references in place.")
    last_updated: str = _Time
    state: Literal["pending-payment"]


class FaultPlace(_Shown):
    pointer: str = Field(description="JSON pointer to the value, or to the object whose properties are at fault.")
    code: str


class DeclarationFaults(_Shown):
    errors: list[str] = Field(min_length=1, max_length=100)
    details: list[FaultPlace] = Field(min_length=1, max_length=100)
    truncated: Literal[True] = Field(default=True, description="There are more faults than these.")


class ShownSubmission(_Shown):
    attempts: int
    next_attempt_at: str | None
    error: str | None = Field(description="Why it failed, else the error of the last attempt that has ended.")
    uncertain: bool
    release: str | None


class TimelineEntry(_Shown):
    at: str = _Time
    event: str
    from_: str | None = Field(alias="from")
    to: str | None
    by: Literal["client", "worker", "timer", "operator"]
    detail: _Value


class PassengerDeclaration(_Shown):
    charge_reference: str = _Reference
    state: str = Field(json_schema_extra={"enum": [str(state) for state in states.Declaration]})
    correlation_id: str
    acknowledgement_reference: str
    created_at: str = _Time
    last_updated: str = _Time
    paid_at: str | None
    finished_at: str | None
    payment_due_at: str | None
    payment_timed_out: bool
    erased_at: str | None
    submission: ShownSubmission
    timeline: list[TimelineEntry]
    amendments: list[_Value]
    data: _Value | None = None
    journey_data: _Value | None = None
    faults: list[str] = Field(default=[], description="MDG's texts of the last refusal.")
