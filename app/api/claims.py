"""Travel claims over HTTP. Source: travel-claims contract, section 2."""

from collections.abc import Callable, Mapping
from functools import partial
from uuid import UUID

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app import db, errors, logs, metrics
from app.api import auth, claim_answers, claim_query, examples, headers, idempotency, openapi, problems
from app.api.claim_bodies import Cancel, ClaimPath, Intake, ListQuery, Retry
from app.api.claim_schema import TravelClaim, TravelClaims
from app.api.openapi import Good
from app.flows import claim_requests, claim_view, dispatch
from app.store import claims
from app.store.clients import Caller

api = APIBlueprint("claims", __name__, abp_tags=[Tag(name="Travel claims")], abp_security=openapi.KEY)
log = logs.get("api.claims")
_PLACED = ("Location", "Preference-Applied")
_WAITED = ("Preference-Applied",)
_NO_PRODUCT = "none"  # an operator has none
_CONFLICTS: Mapping[str, str] = {
    "not-cancellable": "The claim is final or being undone, or its submission has begun.",
    "not-retryable": "Only a failed claim can be retried.",
    "superseded": "The client has a newer claim for the same visit.",
    "data-erased": "The personal data of this claim are erased.",
}


@api.post(
    "/travel-claims",
    summary="File a claim",
    description="One claim per visit: while the visit has a claim that is not failed, rolled-back or cancelled, the "
    "answer is 200 with that one, and nothing of the new body is applied.",
    operation_id="fileClaim",
    responses=openapi.answers(
        Good(
            status=200,
            says="The visit has this claim already.",
            model=TravelClaim,
            examples={"submitted": examples.SUBMITTED},
            headers=_PLACED,
        ),
        Good(
            status=201,
            says="Accepted, waited for, and final: whatever its state is.",
            model=TravelClaim,
            examples={"submitted": examples.SUBMITTED, "failed": examples.FAILED},
            headers=_PLACED,
        ),
        Good(
            status=202,
            says="Accepted.",
            model=TravelClaim,
            examples={"accepted": examples.ACCEPTED},
            headers=_PLACED,
        ),
        refused=openapi.POST_REFUSALS,
        instance="/travel-claims",
    ),
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
        response = claim_answers.answer(claims.view(session, claim_id, client.id), status=202 if created else 200)
        response.headers["Location"] = claim_answers.path_of(claim_id)
        if created:
            idempotency.keep(session, response, final=wait is None)
            db.after_commit(session, lambda: _accepted(claim_id, client))
    return response if wait is None else claim_answers.waited(claim_id, wait, response, final=201)


def _accepted(claim_id: UUID, client: Caller) -> None:
    metrics.claims_accepted.labels(product=client.product).inc()
    log.info("claims.accepted", line="claims", claim=str(claim_id), product=client.product, run=1)
    dispatch.enqueue(claim_id)


@api.get(
    "/travel-claims",
    summary="List claims",
    description="Newest first. Clients see their own claims, operators all. Claims that are added meanwhile neither "
    "shift nor repeat what the following pages hold.",
    operation_id="listClaims",
    responses=openapi.answers(
        Good(
            status=200,
            says="A page of claims.",
            model=TravelClaims,
            examples={"last": examples.PAGE, "more": examples.MORE, "none": {"items": [], "next": None}},
        ),
        refused=openapi.LIST_REFUSALS,
        instance="/travel-claims",
    ),
)
@auth.needs("claims", "operator", line="claims")
def list_claims(header: openapi.GetHeaders, query: ListQuery) -> Response:  # noqa: ARG001 - both stand for the docs
    """One more than fits is read, to know whether a page follows."""
    page = claim_query.read(request.args, whose=auth.caller().id, client_id=claim_answers.owner())
    with db.transaction() as session:
        found = claims.listed(session, page.wanted, limit=page.limit + 1)
    shown = found[: page.limit]
    following = page.cursor_after(shown[-1]) if len(found) > page.limit else None
    return claim_answers.json_answer({"items": [claim_view.render(one) for one in shown], "next": following})


@api.get(
    "/travel-claims/<id>",
    summary="Show a claim",
    description="Clients see their own claims, operators all.",
    operation_id="showClaim",
    responses=openapi.answers(
        Good(
            status=200,
            says="The claim as it is now.",
            model=TravelClaim,
            examples={"accepted": examples.ACCEPTED, "submitted": examples.SUBMITTED, "failed": examples.FAILED},
            headers=_WAITED,
        ),
        refused=openapi.GET_REFUSALS,
        instance=examples.PLACE,
    ),
)
@auth.needs("claims", "operator", line="claims")
def show_claim(path: ClaimPath, header: openapi.GetHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    """What is no claim of the caller's is not found, whatever else it is."""
    claim_id = claim_answers.claim_id(path.id)
    with db.transaction() as session:
        response = claim_answers.answer(claims.view(session, claim_id, claim_answers.owner()))
    wait = headers.wait()
    return response if wait is None else claim_answers.waited(claim_id, wait, response, final=200)


@api.post(
    "/travel-claims/<id>/cancel",
    summary="Cancel a claim",
    description="Possible until its submission begins. What was made so far is undone where the claim asked for it.",
    operation_id="cancelClaim",
    responses=openapi.answers(
        Good(
            status=200,
            says="Cancelled, or being undone.",
            model=TravelClaim,
            examples={"cancelled": examples.CANCELLED},
            headers=_WAITED,
        ),
        Good(
            status=202,
            says="A call is in flight; when it has ended, no further step starts.",
            model=TravelClaim,
            examples={"requested": examples.CANCEL_REQUESTED},
            headers=_WAITED,
        ),
        refused=(*openapi.POST_REFUSALS, "not-found", "not-cancellable"),
        instance=f"{examples.PLACE}/cancel",
    ),
)
@auth.needs("claims", line="claims", body="bare")
def cancel_claim(path: ClaimPath, header: openapi.PostHeaders, body: Cancel) -> Response:  # noqa: ARG001 - for the docs
    claim_id, owner = claim_answers.claim_id(path.id), auth.caller().id
    _must_own(claim_id, owner)
    return _carried_out(claim_id, partial(claim_requests.cancel, claim_id), {"done": 200, "asked": 202})


@api.post(
    "/travel-claims/<id>/retry",
    summary="Retry a failed claim",
    description="The claim goes on where it failed, in another run. For its owner and for operators.",
    operation_id="retryClaim",
    responses=openapi.answers(
        Good(
            status=200,
            says="Retried, waited for, and final.",
            model=TravelClaim,
            examples={"submitted": examples.SUBMITTED | {"run": 2}},
            headers=_PLACED,
        ),
        Good(
            status=202,
            says="Another run has begun.",
            model=TravelClaim,
            examples={"retried": examples.RETRIED},
            headers=_PLACED,
        ),
        refused=(*openapi.POST_REFUSALS, "not-found", "not-retryable", "superseded", "data-erased"),
        instance=f"{examples.PLACE}/retry",
    ),
)
@auth.needs("claims", "operator", line="claims", body="bare")
def retry_claim(path: ClaimPath, header: openapi.PostHeaders, body: Retry) -> Response:  # noqa: ARG001 - for the docs
    claim_id = claim_answers.claim_id(path.id)
    owner = _must_own(claim_id, claim_answers.owner())
    actor = "client" if owner == auth.caller().id else "operator"
    retry = partial(claim_requests.retry, claim_id, notify=bool(body.notify), actor=actor)
    return _carried_out(claim_id, retry, {"done": 202}, location=claim_answers.path_of(claim_id))


def _must_own(claim_id: UUID, client_id: UUID | None) -> UUID:
    """Whose claim it is. Raises Refused where the caller may not see it."""
    with db.transaction() as session:
        owner = claims.owner_of(session, claim_id)
    if owner is None or client_id not in {None, owner}:
        raise claim_answers.not_found()
    claim_answers.name(claim_id)
    return owner


def _carried_out(
    claim_id: UUID, carry_out: Callable[..., str], statuses: Mapping[str, int], *, location: str = ""
) -> Response:
    """Show what became of a request, by the status for what was done; 409 for what was not.

    The answer is committed with what is done: from then on a repeat with the same key is told at least this.
    """
    wait = headers.wait()
    kept: list[Response] = []

    def keep(session: db.Session, done: str) -> None:
        response = claim_answers.answer(claims.view(session, claim_id, None), status=statuses[done])
        if location:
            response.headers["Location"] = location
        idempotency.keep(session, response, final=wait is None)
        kept.append(response)

    done = carry_out(keep=keep)
    if done not in statuses:
        kind = "not-cancellable" if done == "refused" else done
        raise errors.Refused(409, kind, _CONFLICTS[kind])
    (response,) = kept
    return response if wait is None else claim_answers.waited(claim_id, wait, response, final=200)


@api.errorhandler(errors.Refused)
def _count_faults(refused: errors.Refused) -> Response:
    """Count each fault of a refused body."""
    if refused.kind == "validation-failed":
        for fault in refused.faults:
            product = auth.caller().product or _NO_PRODUCT
            metrics.claims_refused.labels(product=product, code=fault["code"]).inc()
    return problems.answer(refused)
