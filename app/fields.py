"""Fields of a request's body: kinds that several bodies use, and how faults are told.

Each check raises under the code that the contract gives the fault. All faults of a body are found in one go, so a check
that compares two fields looks at the other one only if that one is sound. Nothing here knows of HTTP.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MOST_FAULTS = 100
_LONGEST_NAME = 200
# What the library's own checks find, in the words of the contracts.
_TOLD: Mapping[str, tuple[str, str]] = {
    "missing": ("required", "This field is required."),
    "extra_forbidden": ("unknown-field", "There is no such field."),
    "string_type": ("type", "Must be a string."),
    "bool_type": ("type", "Must be true or false."),
    "list_type": ("type", "Must be an array."),
    "model_type": ("type", "Must be an object."),
    "string_pattern_mismatch": ("pattern", "Must match {pattern}"),
    "string_too_short": ("too-short", "Must have at least {min_length} characters."),
    "string_too_long": ("too-long", "Must have at most {max_length} characters."),
    "too_short": ("min-items", "Must have at least {min_length} items."),
    "too_long": ("max-items", "Must have at most {max_length} items."),
}


def fault(code: str, detail: str, **context: Any) -> PydanticCustomError:
    """What a check raises. `member` in the context names the member at fault of the object that was looked at."""
    return PydanticCustomError(code, detail, context or None)


def untitled(schema: dict[str, Any]) -> None:
    """Take away the titles that the library makes up of the members' names."""
    for member in schema.get("properties", {}).values():
        member.pop("title", None)


class Body(BaseModel):
    """An object of a request: strict types, no unknown members, and `null` counts as absent."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        json_schema_extra=untitled,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, members: Any) -> Any:
        if not isinstance(members, dict):
            return members
        known = {member.alias or name for name, member in cls.model_fields.items()}
        unknown = [name for name in members if name not in known][:MOST_FAULTS]
        given = {name: members[name] for name in members if name in known and members[name] is not None}
        return given | {name: members[name] for name in unknown}


def faults(error: ValidationError, *, tags: Sequence[str] = ()) -> list[dict[str, str]]:
    """The faults as `{pointer, code, detail}`. `tags`: union members, which the library names after an index."""
    return [_told(found, tags) for found in error.errors(include_url=False, include_input=False)]


def _told(found: Any, tags: Sequence[str]) -> dict[str, str]:
    context = found.get("ctx", {})
    place = [part for at, part in enumerate(found["loc"]) if not _is_tag(found["loc"], at, tags)]
    place += [context["member"]] if "member" in context else []
    code, detail = _TOLD.get(found["type"], (found["type"], found["msg"]))
    known = found["type"] in _TOLD
    return {"pointer": pointer(place), "code": code, "detail": detail.format_map(context) if known else detail}


def _is_tag(place: Sequence[str | int], at: int, tags: Sequence[str]) -> bool:
    return at > 0 and isinstance(place[at - 1], int) and place[at] in tags


def pointer(place: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901); overlong names are cut."""
    return "".join("/" + str(part)[:_LONGEST_NAME].replace("~", "~0").replace("/", "~1") for part in place)


# Kinds of fields


class OneOf:
    """For `Annotated[str, OneOf(...)]`: one of these words; `also` maps other spellings to them."""

    def __init__(self, *words: str, also: Mapping[str, str] | None = None) -> None:
        self.words = words
        self.spellings = {**{word: word for word in words}, **(also or {})}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": [*self.spellings]}

    def _check(self, word: str) -> str:
        if word not in self.spellings:
            raise fault("enum", f"Must be one of: {', '.join(self.words)}")
        return self.spellings[word]


def _day(text: str) -> str:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError(text)
        date.fromisoformat(text)
    except ValueError as error:
        raise fault("invalid-date", "Must be a date of the calendar, e.g. 2026-03-02.") from error
    return text


def _filled(text: str) -> str:
    trimmed = text.strip()
    if not trimmed:
        raise fault("blank", "Must not be blank.")
    if len(trimmed) > 255:
        raise fault("too-long", "Must have at most 255 characters.")
    return trimmed


def after(other: str) -> Callable[[str, ValidationInfo], str]:
    """A check: this day is strictly after that of the earlier field `other`."""

    def check(day: str, info: ValidationInfo) -> str:
        if other in info.data and day <= info.data[other]:
            raise fault("not-after", f"Must be after {other}.")
        return day

    return check


def different_from(other: str) -> Callable[[str, ValidationInfo], str]:
    """A check: this text differs from that of the earlier field `other`, whatever the case."""

    def check(text: str, info: ValidationInfo) -> str:
        if other in info.data and text.casefold() == info.data[other].casefold():
            raise fault("not-different", f"Must differ from {other}.")
        return text

    return check


Day = Annotated[str, AfterValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Filled = Annotated[
    str, AfterValidator(_filled), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"})
]
