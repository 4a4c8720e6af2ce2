"""What all routes of travel claims share: finding the caller's claim, showing it, waiting for its end."""

import json
from uuid import UUID

import structlog
from flask import Response

from app import db, errors
from app.api import auth, waiting
from app.flows import claim_view
from app.store import claims
from app.store.claims import Shown

_KEPT_HEADERS = ("Location", "Preference-Applied")


def claim_id(text: str) -> UUID:
    """The id as a path holds it. Raises Refused for what is no id, as for an id that nobody has."""
    try:
        found = UUID(text)
    except ValueError:
        raise not_found() from None
    if str(found) != text.lower():
        raise not_found()
    return found


def name(id: UUID) -> None:
    """Let the records of this request say which claim it is about; only of one that the caller may see."""
    structlog.contextvars.bind_contextvars(claim=str(id))


def not_found() -> errors.Refused:
    return errors.Refused(404, "not-found", "There is no such claim.")


def owner() -> UUID | None:
    """Whose claims the caller may see; None: everybody's."""
    return None if auth.acts_as_operator() else auth.caller().id


def path_of(id: UUID) -> str:
    return f"/travel-claims/{id}"


def answer(shown: Shown | None, *, status: int = 200) -> Response:
    """The claim as JSON. Raises Refused where there is none."""
    if shown is None:
        raise not_found()
    name(shown.claim.id)
    return json_answer(claim_view.render(shown), status=status)


def json_answer(document: object, *, status: int = 200) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), status, content_type="application/json")


def waited(id: UUID, seconds: int, first: Response, *, final: int) -> Response:
    """The answer once the claim is final or the time is over; the first one if Postgres goes away meanwhile.

    `final`: the status in place of 202 when it has come to its end.
    """
    first.headers["Preference-Applied"] = f"wait={seconds}"
    try:
        waiting.at_a_place("claims", lambda: _is_final(id), seconds=seconds)
        with db.transaction() as session:
            shown = claims.view(session, id, None)
    except Exception as error:
        if db.unreachable(error):
            return first
        raise
    ended = shown is not None and first.status_code == 202 and claim_view.is_final(shown.claim.state)
    response = answer(shown, status=final if ended else first.status_code)
    response.headers.extend({name: first.headers[name] for name in _KEPT_HEADERS if name in first.headers})
    return response


def _is_final(id: UUID) -> bool:
    with db.transaction() as session:
        state = claims.state_of(session, id)
    return state is None or claim_view.is_final(state)
