"""Travel claims over HTTP. Source: travel-claims contract, section 2."""

import json
from uuid import UUID

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from app import db, errors, logs, metrics
from app.api import auth, headers, idempotency, openapi, problems, waiting
from app.api.claim_schema import TravelClaim
from app.flows import claim_view, dispatch
from app.flows.claim_intake import Intake
from app.store import claims
from app.store.clients import Caller

api = APIBlueprint("claims", __name__, abp_tags=[Tag(name="Travel claims")], abp_security=openapi.KEY)
log = logs.get("api.claims")
_KEPT_HEADERS = ("Location", "Preference-Applied")


class ClaimPath(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})


@api.post(
    "/travel-claims",
    summary="File a claim",
    description="One claim per visit: while the visit has a claim that is not failed, rolled-back or cancelled, the "
    "answer is 200 with that one, and nothing of the new body is applied. 201: the caller waited, and it is final.",
    operation_id="fileClaim",
    responses=openapi.answers(TravelClaim, 200, 201, 202, refused=openapi.POST_REFUSALS),
)
@auth.needs("claims", line="claims", most_bytes=8 * auth.MIB)
def file_claim(header: openapi.PostHeaders, body: Intake) -> Response:  # noqa: ARG001 - headers stand for the docs
    """The claim is committed, with the stored answer to its Idempotency-Key, before anything is answered."""
    client, wait = auth.caller(), headers.wait()
    with db.transaction() as session:
        claim_id, created = claims.accept(
            session,
            client,
            body.as_new_claim(),
            correlation_id=headers.correlation_id(),
            waiting=bool(wait),
        )
        response = _answer(claims.view(session, claim_id, client.id), status=202 if created else 200)
        response.headers["Location"] = f"/travel-claims/{claim_id}"
        if created:
            idempotency.keep(session, response, final=wait is None)
            db.after_commit(session, lambda: _accepted(claim_id, client))
    return response if wait is None else _waited(claim_id, wait, response)


def _accepted(claim_id: UUID, client: Caller) -> None:
    metrics.claims_accepted.labels(product=client.product).inc()
    log.info("claims.accepted", line="claims", claim=str(claim_id), product=client.product)
    dispatch.enqueue(claim_id)


@api.get(
    "/travel-claims/<id>",
    summary="Show a claim",
    description="Clients see their own claims, operators all.",
    operation_id="showClaim",
    responses=openapi.answers(TravelClaim, 200, refused=openapi.GET_REFUSALS),
)
@auth.needs("claims", "operator", line="claims")
def show_claim(path: ClaimPath, header: openapi.GetHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    """What is no claim of the caller's is not found, whatever else it is."""
    owner = None if auth.acts_as_operator() else auth.caller().id
    with db.transaction() as session:
        shown = claims.view(session, _claim_id(path.id), owner)
        response = _answer(shown)
    wait = headers.wait()
    return response if wait is None else _waited(_claim_id(path.id), wait, response)


def _claim_id(text: str) -> UUID:
    """The id as a path holds it. Raises Refused for what is no id, as for an id that nobody has."""
    try:
        found = UUID(text)
    except ValueError:
        raise _not_found() from None
    if str(found) != text.lower():
        raise _not_found()
    return found


def _not_found() -> errors.Refused:
    return errors.Refused(404, "not-found", "There is no such claim.")


def _answer(shown: claims.Shown | None, *, status: int = 200) -> Response:
    if shown is None:
        raise _not_found()
    return Response(json.dumps(claim_view.render(shown), ensure_ascii=False), status, content_type="application/json")


def _waited(claim_id: UUID, seconds: int, first: Response) -> Response:
    """The answer once the claim is final or the time is over; the first one if Postgres goes away meanwhile."""
    first.headers["Preference-Applied"] = f"wait={seconds}"
    try:
        waiting.until(lambda: _is_final(claim_id), seconds=seconds)
        with db.transaction() as session:
            shown = claims.view(session, claim_id, None)
    except Exception as error:
        if db.unreachable(error):
            return first
        raise
    created = shown is not None and first.status_code == 202 and claim_view.is_final(shown.claim.state)
    response = _answer(shown, status=201 if created else first.status_code)
    response.headers.extend({name: first.headers[name] for name in _KEPT_HEADERS if name in first.headers})
    return response


def _is_final(claim_id: UUID) -> bool:
    with db.transaction() as session:
        state = claims.state_of(session, claim_id)
    return state is None or claim_view.is_final(state)


@api.errorhandler(errors.Refused)
def _count_faults(refused: errors.Refused) -> Response:
    """Count each fault of a refused body."""
    if refused.kind == "validation-failed":
        for fault in refused.faults:
            metrics.claims_refused.labels(product=auth.caller().product, code=fault["code"]).inc()
    return problems.answer(refused)
