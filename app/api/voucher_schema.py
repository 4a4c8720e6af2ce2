"""Bodies, parameters and answers of the voucher routes as the API documents them; what is read is read elsewhere."""

from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator
from pydantic.alias_generators import to_camel

from app import states, vouchers
from app.api import headers, openapi, voucher_examples
from app.api.openapi import documented
from app.fields import untitled
from app.flows.voucher_changes import SUBSCRIPTION_ID

_Value = dict[str, Any]
_DATE: _Value = {"format": "date"}
_TIME: _Value = {"format": "date-time"}


def _optional(schema: _Value) -> None:
    schema.pop("default")
    schema.pop("title", None)


def _is(**schema: Any) -> Any:
    """The schema of a parameter that the route reads by itself."""

    def replace(made: _Value) -> None:
        made.clear()
        made.update(schema)

    return Field(default="", json_schema_extra=replace)


# Parameters and headers


class SubscriptionPath(BaseModel):
    id: str = Field(json_schema_extra={"pattern": f"^{SUBSCRIPTION_ID}$"}, description="The subscription id.")


class OperationPath(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})


class ShowQuery(BaseModel):
    refresh: str = _is(type="boolean", default=False, description="true: read it at i-Movo in any case.")


class HistoryQuery(BaseModel):
    limit: str = _is(type="integer", minimum=1, maximum=100, default=20)


class OperationsQuery(HistoryQuery):
    cursor: str = _is(type="string", pattern="^[0-9]{1,9}$", description="`nextCursor` of the page before.")


class ReadHeaders(BaseModel):
    correlation_id: str = Field(
        default="",
        alias="X-Correlation-ID",
        pattern=f"^{headers.CORRELATION}$",
        json_schema_extra=_optional,
        description="Comes back on the answer and goes along to i-Movo; made up when absent.",
    )


class ChangeHeaders(openapi.PostHeaders):
    prefer: str = Field(
        default="",
        alias="Prefer",
        json_schema_extra=_optional,
        description="wait=N (at most 25, which is the default): answer when the outcome is known or after N seconds. "
        "respond-async: at once. handling=strict: no 202; what is not carried out in time is withdrawn.",
    )


# Bodies


class _Told(BaseModel):
    """Takes whatever is there: what is wrong with it is told in the contract's own words."""

    model_config = ConfigDict(alias_generator=to_camel, json_schema_extra=untitled)

    @model_validator(mode="wrap")
    @classmethod
    def _unread(cls, _members: Any, _read: ModelWrapValidatorHandler[Self]) -> Self:
        return cast("Self", cls.model_construct())


@documented(examples={"plan": {"value": voucher_examples.CREATE}})
class CreateVoucher(_Told):
    rate_plan_name: str = Field(json_schema_extra={"enum": list(vouchers.SCHEMES)})


def _two_forms(schema: _Value) -> None:
    untitled(schema)
    schema["anyOf"] = [{"required": ["subscriptionId", "replaceCard", "replaceLetter"]},
                       {"required": ["cardCode", "letterCode"]}]  # fmt: skip


def _member(**schema: Any) -> Any:
    return _is(**schema)


@documented(examples={name: {"value": value} for name, value in voucher_examples.REPLACE.items()})
class ReplaceVoucher(_Told):
    """By subscription, with the kinds to replace, or by both codes; then both kinds are replaced."""

    model_config = ConfigDict(json_schema_extra=_two_forms)

    subscription_id: str = _member(type="string", pattern=f"^{SUBSCRIPTION_ID}$")
    replace_card: str = _member(type="boolean")
    replace_letter: str = _member(type="boolean")
    card_code: str = _member(type="string", description="Ignored beside subscriptionId.")
    letter_code: str = _member(type="string", description="Ignored beside subscriptionId.")


@documented(examples={name: {"value": value} for name, value in voucher_examples.CANCEL.items()})
class CancelVoucher(_Told):
    subscription_id: str = Field(pattern=f"^{SUBSCRIPTION_ID}$")
    cancellation_date: str = _member(
        type="string", format="date", description="The first day without voucher; absent: at once."
    )


@documented(examples={"week": {"value": voucher_examples.SUSPEND}})
class SuspendVoucher(_Told):
    subscription_id: str = Field(pattern=f"^{SUBSCRIPTION_ID}$")
    start_date: str = Field(json_schema_extra=_DATE, description="Tomorrow or later.")
    end_date_exclusive: str = Field(json_schema_extra=_DATE, description="The voucher works again on this day.")


# Answers


class _Shown(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, json_schema_extra=untitled)


class Message(_Shown):
    message: str


class VoucherPair(_Shown):
    card_code: str
    letter_code: str


def _at_least_one(schema: _Value) -> None:
    untitled(schema)
    schema["minProperties"] = 1


class ReplacedCodes(_Shown):
    """The requested kinds only."""

    model_config = ConfigDict(json_schema_extra=_at_least_one)

    card_code: str = _member(type="string")
    letter_code: str = _member(type="string")


class Done(_Shown):
    """Nothing to tell."""


class Accepted(_Shown):
    message: str
    operation_id: str
    state: str = Field(json_schema_extra={"enum": [str(state) for state in states.VoucherOperation]})


class RedemptionAttempt(_Shown):
    voucher_code: str
    voucher_type: str
    action_date: str
    activity_type: str
    address: str | None
    post_code: str | None
    message: str
    value: float
    amount: float


class RedemptionHistory(_Shown):
    redemption_attempts: list[RedemptionAttempt]


class ListedOperation(_Shown):
    operation_id: str
    subscription_id: str
    kind: Literal["create", "replace", "cancel", "suspend"]
    parameters: dict[str, Any]
    origin: str
    state: str = Field(json_schema_extra={"enum": [str(state) for state in states.VoucherOperation]})
    outcome_code: str | None
    sends: int
    correlation_id: str
    created_at: str = Field(json_schema_extra=_TIME)
    updated_at: str = Field(json_schema_extra=_TIME)
    next_attempt_at: str | None
    finished_at: str | None


class OperationAnswer(_Shown):
    status: int
    body: dict[str, Any]


def _not_for_operators(schema: _Value) -> None:
    untitled(schema)
    schema["required"] = [name for name in schema["required"] if name != "answer"]


class ShownOperation(ListedOperation):
    model_config = ConfigDict(json_schema_extra=_not_for_operators)

    answer: OperationAnswer | None = Field(description="What a waiting caller gets. Not shown to operators.")


class RecordedSuspension(_Shown):
    start_date: str = Field(json_schema_extra=_DATE)
    end_date_exclusive: str = Field(json_schema_extra=_DATE)


class VoucherRecord(_Shown):
    subscription_id: str
    state: Literal["requested", "active", "suspended", "cancelled"] | None
    scheme: str | None
    last_replaced_on: str | None
    provisioned_at: str | None
    cancel_on: str | None
    confirmed_at: str | None
    suspensions: list[RecordedSuspension]
    operations: list[ListedOperation]
    next_cursor: str | None
