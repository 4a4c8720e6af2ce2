"""What requests about travel claims hold, as the API documents it. The rules of a new claim: `flows.claim_intake`."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app import states
from app.api import claim_query, examples, openapi
from app.fields import Body
from app.flows import claim_intake

_Value = dict[str, Any]


class ClaimPath(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})


@openapi.documented(examples={"claim": {"value": examples.NEW_CLAIM}})
class Intake(claim_intake.Intake):
    """A travel claim of one veteran for one visit."""


@openapi.documented(required=False, examples={"nothing": {"value": {}}})
class Cancel(Body):
    """No members: what is asked for is in the path."""


@openapi.documented(required=False, examples={"nothing": {"value": {}}, "notify": {"value": {"notify": True}}})
class Retry(Body):
    notify: bool | None = Field(
        default=None, description="Tell the veteran the new outcome also where the old one was told already."
    )


def _is(**schema: Any) -> Any:
    """The schema of a parameter that `claim_query` reads."""

    def replace(made: _Value) -> None:
        made.clear()
        made.update(schema)

    return Field(default="", json_schema_extra=replace)


def _moment(says: str) -> Any:
    return _is(type="string", anyOf=[{"format": "date"}, {"format": "date-time"}], description=says)


class ListQuery(BaseModel):
    """For the description only; `claim_query` reads the query."""

    state: Annotated[
        list[str],
        Field(
            json_schema_extra={"items": {"type": "string", "enum": [str(state) for state in states.Claim]}},
            description="Repeat it, or separate states by commas.",
        ),
    ] = []
    since: Annotated[str, Field(alias="from")] = _moment("Made then or later; a day is a whole UTC day.")
    to: str = _moment("Made then or before; a day is a whole UTC day.")
    limit: str = _is(type="integer", minimum=1, maximum=claim_query.MOST, default=claim_query.DEFAULT_LIMIT)
    cursor: str = _is(type="string", description="`next` of the page before, with the same filters.")
