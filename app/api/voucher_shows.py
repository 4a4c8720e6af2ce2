"""Digital vouchers over HTTP: the routes that show something, on the blueprint of all routes of the line.

Source: vouchers contract, section 2. The numbers are those of its routes.
"""

import re
from collections.abc import Callable
from uuid import UUID

import structlog
from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from werkzeug.routing import BaseConverter

from app import config, errors, metrics
from app.api import auth, headers, openapi, problems, voucher_answers, voucher_told, voucher_waiting
from app.api import voucher_examples as examples
from app.api.voucher_schema import (
    HistoryQuery,
    OperationPath,
    OperationsQuery,
    ReadHeaders,
    RedemptionHistory,
    ShownOperation,
    ShowQuery,
    SubscriptionPath,
    VoucherPair,
    VoucherRecord,
)
from app.flows import voucher_changes, voucher_queries, voucher_view
from app.flows.voucher_queries import Reader
from app.flows.voucher_record import Answer

api = APIBlueprint("vouchers", __name__, abp_tags=[Tag(name="Digital vouchers")], abp_security=openapi.KEY)
_HISTORY_LINES, _PAGE, _MOST = 20, 20, 100
_reads = auth.needs("vouchers", line="vouchers", voice=voucher_answers.as_message)
_shows = auth.needs("vouchers", "operator", line="vouchers")
_PLACE = f"/DEV/digital-voucher/{examples.SUBSCRIPTION}"


class Subscription(BaseConverter):
    """A segment that is not the whole path of another route: there that route's method decides."""

    regex = "(?!(?:replace|cancel|suspend)$)[^/]+"


@api.after_request
def _counted(response: Response) -> Response:
    """Every answer of the line, by its route."""
    route = request.url_rule.rule if request.url_rule else "-"
    metrics.voucher_requests.labels(route=route, status=response.status_code).inc()
    return response


# What is live at i-Movo


@api.get(
    "/<subscription:id>",
    summary="Show a voucher",
    description="From our record while that is fresh, else read at i-Movo.",
    operation_id="showVoucher",
    responses=voucher_told.read(
        VoucherPair, examples.PAIR, says="The codes.", refused=examples.OF_SHOW, headers=("Age",)
    ),
)
@_reads
def show(path: SubscriptionPath, query: ShowQuery, header: ReadHeaders) -> Response:  # noqa: ARG001 - for the docs
    """Routes 1 and 6."""
    refresh = request.args.get("refresh", "false")
    if refresh not in {"true", "false"}:
        raise voucher_changes.refused("refresh must be true or false")
    reader, subscription_id = _reader(), _named(path.id)
    known = voucher_queries.known(reader, subscription_id) if refresh == "false" else None
    return voucher_answers.final(known or _read(lambda: voucher_queries.read(reader, subscription_id)))


@api.get(
    "/redemption-history/<id>",
    summary="Show redemptions",
    description="Always read at i-Movo, also of a cancelled voucher; the latest ones.",
    operation_id="showRedemptions",
    responses=voucher_told.read(
        RedemptionHistory, examples.HISTORY, says="The redemptions.", refused=examples.OF_HISTORY
    ),
)
@_reads
def show_history(path: SubscriptionPath, query: HistoryQuery, header: ReadHeaders) -> Response:  # noqa: ARG001
    """Route 10."""
    reader, subscription_id = _reader(), _named(path.id)
    limit = _limit(_HISTORY_LINES)
    if limit is None:
        raise voucher_changes.refused(f"limit must be a whole number from 1 to {_MOST}")
    return voucher_answers.final(_read(lambda: voucher_queries.history(reader, subscription_id, limit)))


def _reader() -> Reader:
    ends = voucher_waiting.arrived() + config.settings().vouchers.wait_seconds
    return Reader(client_id=auth.caller().id, correlation_id=headers.correlation_id(), ends=ends)


def _named(id: str) -> str:
    """The subscription id of the path, in the records of this request too."""
    structlog.contextvars.bind_contextvars(subscription_id=voucher_changes.subscription(id))
    return id


def _read(read: Callable[[], Answer]) -> Answer:
    """A read takes a place among those who wait, so that a slow i-Movo leaves threads to others."""
    with voucher_waiting.place() as free:
        return read() if free else voucher_queries.unreachable()


def _limit(default: int) -> int | None:
    """None: it is at fault."""
    text = request.args.get("limit", str(default))
    return int(text) if re.fullmatch(rf"[1-9][0-9]?|{_MOST}", text, re.ASCII) else None


# What is recorded


@api.get(
    "/operations/<id>",
    summary="Show an operation",
    description="Clients see those that they have started or whose subscription is theirs; operators all.",
    operation_id="showVoucherOperation",
    responses=voucher_told.record(
        ShownOperation,
        examples.OPERATIONS,
        says="The operation as it is now.",
        query=False,
        instance=f"/DEV/digital-voucher/operations/{examples.OPERATION}",
    ),
)
@_shows
def show_operation(path: OperationPath, header: ReadHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    """Route 11."""
    shown = voucher_view.operation(_operation_id(path.id), auth.caller().id, as_operator=auth.acts_as_operator())
    if shown is None:
        raise _no_operation()
    retry = {} if shown["finishedAt"] else {"Retry-After": voucher_answers.RETRY_AFTER}
    return voucher_answers.of_operation(voucher_answers.json_answer(shown, headers=retry), UUID(path.id))


def _operation_id(text: str) -> UUID:
    try:
        found = UUID(text)
    except ValueError:
        raise _no_operation() from None
    if str(found) != text.lower():
        raise _no_operation()
    return found


def _no_operation() -> errors.Refused:
    return errors.Refused(404, "not-found", "There is no such operation.")


@api.get(
    "/<id>/operations",
    summary="List the operations of a subscription",
    description="With what is recorded of its voucher. Newest first.",
    operation_id="listVoucherOperations",
    responses=voucher_told.record(
        VoucherRecord,
        {"record": examples.RECORD},
        says="The record and a page of operations.",
        query=True,
        instance=f"{_PLACE}/operations",
    ),
)
@_shows
def list_operations(path: SubscriptionPath, query: OperationsQuery, header: ReadHeaders) -> Response:  # noqa: ARG001
    """Route 12."""
    limit, before = _limit(_PAGE), _cursor()
    subscription_id = _named(path.id)
    if limit is None:
        raise _invalid("limit", f"Must be a whole number from 1 to {_MOST}.")
    shown = voucher_view.subscription(
        subscription_id, auth.caller().id, as_operator=auth.acts_as_operator(), before=before, limit=limit
    )
    if shown is None:
        raise errors.Refused(404, "not-found", "There is no such subscription.")
    return voucher_answers.json_answer(shown)


def _cursor() -> int | None:
    text = request.args.get("cursor", "")
    if text and not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise _invalid("cursor", "Use nextCursor of the page before.")
    return int(text) if text else None


def _invalid(name: str, detail: str) -> errors.Refused:
    fault = {"pointer": f"?{name}", "code": "invalid", "detail": detail}
    return errors.Refused(422, "validation-failed", problems.at_fault(1, "parameter"), faults=[fault])


# Paths that another route begins with are no subscription, and nothing is there


@auth.open_to_all
def _nothing_here() -> Response:
    raise errors.Refused(404, "not-found", "There is nothing here.")


for _word, _method in (("create", "PUT"), ("operations", "GET"), ("redemption-history", "GET"), ("reports", "GET")):
    api.add_url_rule(f"/{_word}", f"no_{_word}", _nothing_here, methods=[_method])
