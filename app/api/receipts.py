"""Delivery receipts of Notify. Source: travel-claims contract, 2.8."""

from typing import Annotated, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

from app.api import auth, examples, openapi
from app.fields import Body, fault, untitled
from app.flows import receipts

api = APIBlueprint("receipts", __name__, abp_tags=[Tag(name="Receipts")], abp_security=openapi.NOTIFY)


def _needed(reference: str | None, info: ValidationInfo) -> str | None:
    if reference is None and info.data.get("id", "") is None:
        raise fault("required", "Either reference or id is required.")
    return reference


def _one_of_both(schema: dict[str, Any]) -> None:
    untitled(schema)
    schema["anyOf"] = [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("reference", "id")]


@openapi.documented(examples={"delivered": {"value": examples.RECEIPT}})
class DeliveryReceipt(Body):
    """What became of a text. Other members than these are ignored and not kept."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=_one_of_both)

    status: Annotated[str, Field(min_length=1, description="delivered, permanent-failure, ... Any word is taken.")]
    id: Annotated[str | None, Field(description="Notify's id of the text.")] = None
    reference: Annotated[
        str | None, AfterValidator(_needed), Field(validate_default=True, description="Our id of the text.")
    ] = None


@api.post(
    "/callbacks/notify",
    summary="Take a delivery receipt",
    description="For Notify alone. A receipt that is not ours or came before is taken too, and changes nothing.",
    operation_id="takeReceipt",
    responses=openapi.answers(
        openapi.Good(status=204, says="Taken."), refused=openapi.NOTIFY_REFUSALS, instance="/callbacks/notify"
    ),
)
@auth.for_notify
def take_receipt(body: DeliveryReceipt) -> Response:
    receipts.take(receipts.Receipt(status=body.status, reference=body.reference, id=body.id))
    return Response(status=204)
