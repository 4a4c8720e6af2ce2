"""A travel claim in the API's documentation: the shape of what `claim_view.render` returns."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app import states
from app.fields import untitled

Result = Literal["none", "succeeded", "partial", "failed", "unsupported"]
Time = Field(json_schema_extra={"format": "date-time"}, examples=["2026-03-02T15:04:05.120Z"])


class _Shown(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, json_schema_extra=untitled)


class ShownAppointment(_Shown):
    date_time: str
    station_number: str
    type: str | None = None
    complete: bool | None = None
    name: str | None = None


class ShownExpense(_Shown):
    index: int
    type: str
    state: Literal["pending", "added", "adopted", "removed", "in-doubt"]
    expense_id: str | None


class ShownRollback(_Shown):
    requested: bool
    result: Result
    detail: str | None


class UpstreamClaim(_Shown):
    id: str | None
    state: str = Field(description="none, Incomplete, Saved, deleted, unknown, or the status as last read.")


class ClaimError(_Shown):
    step: str
    http_status: int
    code: str
    message: str
    expense_index: int | None = None
    claim: UpstreamClaim
    rollback: ShownRollback
    retryable: bool
    correlation_id: str


class ShownText(_Shown):
    state: Literal["none", "pending", "sent", "delivered", "undelivered", "skipped", "failed"]
    template: Literal["success", "duplicate", "error", "failure", "timeout"] | None
    reason: str | None


class ShownCallback(_Shown):
    state: Literal["none", "pending", "delivered", "undelivered"]
    attempts: int
    last_status: int | None


class TravelClaim(_Shown):
    id: str
    state: str = Field(json_schema_extra={"enum": [str(state) for state in states.Claim]})
    final: bool
    product: Literal["pci", "oh"]
    correlation_id: str
    run: int
    created_at: str = Time
    updated_at: str = Time
    due_at: str | None
    appointment: ShownAppointment
    appointment_id: str | None
    claim_id: str | None
    claim_number: str | None
    status: str | None = Field(description="Travel Pay's own word, also one that is new.")
    step: str | None
    attempt: int
    expenses: list[ShownExpense]
    rollback: ShownRollback
    cancel_requested: bool
    error: ClaimError | None
    text: ShownText
    callback: ShownCallback | None


class TravelClaims(_Shown):
    items: list[TravelClaim]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")
