"""Digital vouchers over HTTP: the routes that change something. The others: `voucher_shows`.

Source: vouchers contract, section 2. The numbers are those of its routes.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from flask import Response, request
from flask_openapi3.openapi import OpenAPI

from app.api import (
    auth,
    headers,
    idempotency,
    problems,
    voucher_answers,
    voucher_told,
    voucher_waiting,
)
from app.api import voucher_examples as examples
from app.api.voucher_schema import (
    CancelVoucher,
    ChangeHeaders,
    CreateVoucher,
    Done,
    ReplacedCodes,
    ReplaceVoucher,
    SubscriptionPath,
    SuspendVoucher,
    VoucherPair,
)
from app.api.voucher_shows import Subscription, api
from app.flows import voucher_changes, voucher_requests
from app.flows.voucher_changes import Change, Codes
from app.flows.voucher_record import Answer
from app.flows.voucher_requests import Asked

_NO_REFUSALS: frozenset[int] = frozenset()  # those past the checks of form are kept, by `idempotency.keep_refusals`
_changes = auth.needs("vouchers", line="vouchers", voice=voucher_answers.as_message, kept=_NO_REFUSALS)


def install(app: OpenAPI) -> None:
    """Serve the line under its stage."""
    prefix = voucher_answers.prefix()
    app.url_map.converters["subscription"] = Subscription
    app.register_api(api, url_prefix=prefix)
    problems.speak_under(prefix, voucher_answers.outside)


def _carried_out(read: Callable[[], Change | Codes]) -> Response:
    """The request joins an operation, is answered at once, or becomes an operation; then its outcome is waited for."""
    patience = voucher_waiting.patience()
    asked = Asked(
        client_id=auth.caller().id,
        correlation_id=headers.correlation_id(),
        urgent=patience.seconds > 0,
        strict=patience.strict,
        tie=idempotency.tie,
    )
    found = _repeated(asked) or _submitted(asked, read)
    return voucher_answers.final(found) if isinstance(found, Answer) else voucher_waiting.outcome(found, patience)


def _repeated(asked: Asked) -> Answer | UUID | None:
    """What a request under a key goes by that is tied to an operation; None where it runs anew."""
    tied = idempotency.tied()
    if tied is None:
        return None
    idempotency.keep_refusals()
    found = voucher_requests.resume(asked, tied)
    if found is None:
        idempotency.run_anew()
    return found


def _submitted(asked: Asked, read: Callable[[], Change | Codes]) -> Answer | UUID:
    change = read()
    idempotency.keep_refusals()
    if isinstance(change, Change):
        structlog.contextvars.bind_contextvars(subscription_id=change.subscription_id, kind=change.operation)
    return voucher_requests.submit(asked, change)


def _body() -> dict[str, Any]:
    read: dict[str, Any] = request.get_json()
    return read


_CREATED = voucher_told.change(
    201, VoucherPair, {"pair": examples.PAIR}, says="The codes, new or not.", refused=examples.OF_CREATE
)


@api.put(
    "/create/<id>",
    summary="Create a voucher, as before",
    description="The same as `PUT /{id}`.",
    operation_id="createVoucherAsBefore",
    responses=_CREATED,
)
@_changes
def create_as_before(path: SubscriptionPath, header: ChangeHeaders, body: CreateVoucher) -> Response:  # noqa: ARG001
    """Route 2."""
    return _carried_out(lambda: voucher_changes.create(path.id, _body()))


@api.put(
    "/<subscription:id>",
    summary="Create a voucher",
    description="A live voucher of the same scheme is answered as it is.",
    operation_id="createVoucher",
    responses=_CREATED,
)
@_changes
def create(path: SubscriptionPath, header: ChangeHeaders, body: CreateVoucher) -> Response:  # noqa: ARG001 - for docs
    """Route 5."""
    return _carried_out(lambda: voucher_changes.create(path.id, _body()))


@api.post(
    "/replace",
    summary="Replace a voucher",
    description="Card, letter or both, once a day each. By both codes: both.",
    operation_id="replaceVoucher",
    responses=voucher_told.change(
        200,
        ReplacedCodes,
        examples.NEW_CODES,
        says="The new codes of the requested kinds.",
        refused=examples.OF_REPLACE,
    ),
)
@_changes
def replace(header: ChangeHeaders, body: ReplaceVoucher) -> Response:  # noqa: ARG001 - both stand for the docs
    """Routes 3 and 7."""
    return _carried_out(lambda: voucher_changes.replace(_body()))


@api.delete(
    "/<subscription:id>",
    summary="Cancel a voucher at once",
    description="The same as `POST /cancel` without a date.",
    operation_id="deleteVoucher",
    responses=voucher_told.bare_change(200, Done, {"done": {}}, says="Cancelled."),
)
@_changes
def delete(path: SubscriptionPath, header: ChangeHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    """Route 4."""
    return _carried_out(lambda: voucher_changes.cancel(voucher_changes.subscription(path.id)))


@api.post(
    "/cancel",
    summary="Cancel a voucher",
    description="At once, or with the first day without voucher. To cancel again changes nothing.",
    operation_id="cancelVoucher",
    responses=voucher_told.change(200, Done, {"done": {}}, says="Cancelled.", refused={}),
)
@_changes
def cancel(header: ChangeHeaders, body: CancelVoucher) -> Response:  # noqa: ARG001 - both stand for the docs
    """Route 8."""
    return _carried_out(lambda: voucher_changes.read_cancel(_body()))


@api.put(
    "/suspend",
    summary="Suspend a voucher",
    description="From tomorrow on at the earliest. There is no way to resume it before its end.",
    operation_id="suspendVoucher",
    responses=voucher_told.change(200, Done, {"done": {}}, says="Suspended.", refused=examples.OF_SUSPEND),
)
@_changes
def suspend(header: ChangeHeaders, body: SuspendVoucher) -> Response:  # noqa: ARG001 - both stand for the docs
    """Route 9."""
    return _carried_out(lambda: voucher_changes.suspend(_body()))
