"""Passenger declarations over HTTP. Source: declarations contract, 2.1 to 2.4."""

from functools import partial

from flask import Response, request
from flask.blueprints import BlueprintSetupState
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from werkzeug.routing import BaseConverter

from app import db, declaration_faults, errors, logs, metrics
from app.api import auth, declaration_answers, declaration_docs, headers, idempotency, openapi, problems, waiting
from app.api.declaration_answers import PREFIX
from app.api.declaration_bodies import DataQuery, ReferencePath
from app.charge_references import is_valid
from app.flows import declaration_notices, declaration_view
from app.flows.declaration_notices import Notice
from app.models.declaration import Declaration
from app.store import declarations

api = APIBlueprint("declarations", __name__, abp_tags=[Tag(name="Passenger declarations")], abp_security=openapi.KEY)
log = logs.get("api.declarations")


class _NoFixedName(BaseConverter):
    """A segment of a path that is not the name of a route of this line: those are not to be read as references."""

    part_isolating = True
    regex = "(?!(?:submit|update|replay)$)[^/]+"


@api.record
def _know_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["reference"] = _NoFixedName


@api.post(
    f"{PREFIX}/submit",
    summary="Submit a declaration",
    description="It is stored under a charge reference of its own, and waits for its payment. Two requests without an "
    "Idempotency-Key are two declarations.",
    operation_id="submitDeclaration",
    responses=declaration_docs.SUBMIT,
    openapi_extensions={"requestBody": declaration_docs.BODY},
)
@auth.needs(
    "declarations",
    line="declarations",
    body="any",
    voice=declaration_answers.speak_of_submissions,
    kept=frozenset({400}),
)
def submit(header: openapi.PostHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    """The number of the declaration is taken only once its payload is found to be valid."""
    payload = request.get_json()
    if faults := declaration_faults.of(payload):
        return declaration_answers.faulty(faults)
    with db.transaction() as session:
        made = declarations.accept(session, auth.caller().id, payload, headers.correlation_id())
        answer = {
            "_id": made.charge_reference,
            "data": made.payload,
            "lastUpdated": declaration_view.time(made.created_at),
            "state": made.state,
        }
        response = declaration_answers.json_answer(answer, 202)
        response.headers["Location"] = declaration_answers.path_of(made.charge_reference)
        idempotency.keep(session, response, final=True)
        db.after_commit(session, partial(_accepted, made))
    return response


def _accepted(made: Declaration) -> None:
    metrics.declarations_accepted.labels("submit").inc()
    declaration_answers.name(made.charge_reference)
    log.info("accepted", number=made.number, correlationId=made.correlation_id, to=made.state)


@api.post(
    f"{PREFIX}/update/<reference>",
    summary="Tell that a declaration is paid",
    description="The body is not read. From then on the declaration is carried to MDG. Open while the client's toggle "
    "is off, so that no payment is lost. What is unknown or locked is answered without a body.",
    operation_id="updateDeclaration",
    responses=declaration_docs.UPDATE,
)
@auth.needs("declarations", line="declarations", body="unread", kept=frozenset({404, 409}), always=True)
def update(path: ReferencePath, header: openapi.PostHeaders) -> Response:  # noqa: ARG001 - headers stand for the docs
    wait = headers.wait()
    notice = Notice(
        reference=path.reference,
        client_id=auth.caller().id,
        correlation_id=headers.correlation_id(),
        urgent=wait is not None,
    )
    result = declaration_notices.take(notice)
    if result == "not-found":
        return declaration_answers.empty(404)
    declaration_answers.name(path.reference)
    if result == "locked":
        locked = declaration_answers.empty(423)
        locked.headers["Retry-After"] = "1"
        return locked
    if result == "refused":
        return declaration_answers.empty(409)
    taken = declaration_answers.empty(202)
    taken.headers["Location"] = declaration_answers.path_of(path.reference)
    return taken if wait is None else _waited(path.reference, wait, taken)


def _waited(reference: str, seconds: int, taken: Response) -> Response:
    """What became of it, if that is known in time; the first answer if Postgres goes away meanwhile."""
    try:
        waiting.at_a_place("declarations", lambda: _is_settled(reference), seconds=seconds)
        with db.transaction() as session:
            shown = declarations.view(session, reference, client_id=auth.caller().id, newest=declaration_view.NEWEST)
    except Exception as error:
        if db.unreachable(error):
            return taken
        raise
    if shown is None or not declaration_view.is_settled(shown.declaration.state):
        return taken
    response = declaration_answers.json_answer(declaration_view.render(shown), 200)
    response.headers["Preference-Applied"] = f"wait={seconds}"
    return response


def _is_settled(reference: str) -> bool:
    with db.transaction() as session:
        return declaration_view.is_settled(declarations.state_of(session, reference))


@api.get(
    f"{PREFIX}/<reference:reference>",
    summary="Show a declaration",
    description="Clients see their own declarations, operators all, without the data. `include=data` adds them, for "
    "the owner alone, and leaves an entry in the audit.",
    operation_id="showDeclaration",
    responses=declaration_docs.SHOW,
)
@auth.needs("declarations", "operator", line="declarations")
def show(path: ReferencePath, query: DataQuery, header: openapi.GetHeaders) -> Response:  # noqa: ARG001 - for the docs
    """What is no declaration that the caller may see is not found, whatever else it is."""
    caller, with_data = auth.caller(), _asks_for_data()
    if with_data and "declarations" not in caller.scopes:
        raise _not_your_data()
    if not is_valid(path.reference):
        raise declaration_answers.not_found()
    owner = None if auth.acts_as_operator() else caller.id
    with db.transaction() as session:
        shown = declarations.view(
            session, path.reference, client_id=owner, newest=declaration_view.NEWEST, sealed=with_data
        )
        if shown is None:
            raise declaration_answers.not_found()
        if with_data and shown.declaration.client_id != caller.id:
            raise _not_your_data()
        document = declaration_view.render(shown)
        if with_data:
            document |= declaration_view.data(shown.declaration)
            declarations.note_read(session, caller.name, path.reference, correlation_id=headers.correlation_id())
    declaration_answers.name(path.reference)
    return declaration_answers.json_answer(document, 200)


def _asks_for_data() -> bool:
    """Whether the query is `include=data`. Raises Refused for any other query."""
    told = {"unknown-parameter": [name for name in request.args if name != "include"]}
    told["enum"] = ["include"] if request.args.getlist("include") not in ([], ["data"]) else []
    says = {"unknown-parameter": "There is include.", "enum": "Must be: data"}
    faults = [
        {"pointer": f"?{name[:64]}", "code": code, "detail": says[code]}
        for code, names in told.items()
        for name in names
    ]
    if faults:
        detail = problems.at_fault(len(faults), "parameter")
        raise errors.Refused(400, "invalid-parameter", detail, faults=faults[: declaration_answers.MOST_FAULTS])
    return "include" in request.args


def _not_your_data() -> errors.Refused:
    return errors.Refused(403, "forbidden", "The data of a declaration are for its owner alone.")


@api.after_request
def _without_type(response: Response) -> Response:
    """Also a stored answer that had no body."""
    return declaration_answers.untyped(response)
