"""What somebody who asks for a replay may say. Source: declarations contract, 2.5."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from app import charge_references
from app.fields import Body, fault
from app.store import replays

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[-+][0-9]{2}:[0-9]{2})")


def _moment(text: Any) -> datetime:
    if not isinstance(text, str):
        raise fault("type", "Must be a string.")
    try:
        if not _MOMENT.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise fault("invalid-date-time", "Must be a moment with its zone, e.g. 2026-11-20T00:00:00Z.") from error


def _reference(text: str) -> str:
    if not charge_references.is_valid(text):
        raise fault("pattern", "Must be a charge reference.")
    return text


def _later(moment: datetime, info: ValidationInfo) -> datetime:
    first = info.data.get("failed_from")
    if first and moment <= first:
        raise fault("not-after", "Must be after failedFrom.")
    return moment


Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
Reference = Annotated[
    str, AfterValidator(_reference), WithJsonSchema({"type": "string", "pattern": "^X[A-Z]PR[0-9]{10}$"})
]
Word = Annotated[str, Field(max_length=200)]


class _Body(Body):
    """Here `null` is a wrong type: what was to narrow a replay must not get lost."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, members: Any) -> Any:
        if isinstance(members, dict):
            for name, value in members.items():
                if value is None:
                    raise fault("type", "Must not be null.", member=name)
        return members


class Filter(_Body):
    """All given parts must hold; none: every failed submission."""

    release: Word | None = Field(default=None, description="The release that made it fail.")
    failed_from: Moment | None = Field(default=None, description="Failed then or later.")
    failed_to: Annotated[Moment | None, AfterValidator(_later)] = Field(default=None, description="Failed before then.")
    error: Word | None = Field(default=None, description="The last error code, such as mdg-400.")
    client: Word | None = Field(default=None, description="The client's name.")
    references: Annotated[list[Reference], Field(min_length=1, max_length=1000)] | None = None

    def as_filter(self) -> replays.Filter:
        """The same as the store understands it."""
        return replays.Filter(**self.model_dump())

    def shown(self) -> dict[str, Any]:
        """What was given, as JSON, to be kept."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _reason(reason: str | None, info: ValidationInfo) -> str | None:
    if reason is None and not info.data.get("dry_run"):
        raise fault("required", "This field is required unless dryRun is true.")
    return reason


class Asked(_Body):
    """A replay, or with `dryRun` the question what it would move."""

    filter: Filter
    dry_run: bool = Field(default=False, description="Only tell what would be replayed.")
    reason: Annotated[
        Annotated[str, Field(min_length=1, max_length=200)] | None,
        AfterValidator(_reason),
        Field(validate_default=True, description="Why; required unless dryRun. Kept with the operator's name."),
    ] = None
