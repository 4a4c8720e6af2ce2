"""Idempotency-Key on a request: the stored answer before anything runs, storing the answer at its end.

An answer is stored in the transaction that accepts something (`keep`), else after the request. Only what a repeat must
not do again is stored; a key whose request came to nothing may be used again.
"""

import hashlib
from typing import Any

from flask import Flask, Response, g, request

from app import crypto, db, errors, logs
from app.api.auth import access, caller
from app.store import idempotency
from app.store.idempotency import Answer, Running

_KEPT_HEADERS = ("Content-Type", "Location")
log = logs.get("api")


def install(app: Flask) -> None:
    """Settle each request with a key once its answer is known."""
    app.after_request(_settle)


def check_stored_answer() -> Response | None:
    """The answer of the first request with this key, if it has one."""
    key = request.headers.get("Idempotency-Key")
    if key is None or request.method != "POST":
        return None
    with db.transaction() as session:
        found = idempotency.begin(session, caller().id, key, _fingerprint())
    if isinstance(found, Running):
        g.idempotent = found
        return None
    return Response(found.body, found.status, dict(found.headers))


def _fingerprint() -> str:
    """Method, path and body bytes; keyed, because a body can be guessed."""
    body = hashlib.sha256(request.get_data()).hexdigest()
    return crypto.keyed_hash("idempotency", request.method, request.path, body)


def keep(session: Any, response: Response, *, final: bool) -> None:
    """Store this answer with what the transaction accepts; not `final`: a better one follows after waiting.

    Raises Refused, and so rolls back, when the same request has been taken over meanwhile.
    """
    running: Running | None = g.get("idempotent")
    if running is None:
        return
    store = idempotency.finish if final else idempotency.promise
    if not store(session, running, _answer(response)):
        g.idempotent = None
        raise errors.Refused(409, "idempotency-in-progress", "The same request is being accepted by now.")
    if final:
        db.after_commit(session, _done)


def _done() -> None:
    g.idempotent = None


def _answer(response: Response) -> Answer:
    kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(status=response.status_code, headers=kept, body=response.get_data(as_text=True))


def _settle(response: Response) -> Response:
    """Store the answer, or free the key. Postgres away: the row goes stale and is taken over."""
    running: Running | None = g.pop("idempotent", None)
    if running is None:
        return response
    try:
        with db.transaction() as session:
            if response.status_code < 300 or response.status_code in access().kept:
                idempotency.finish(session, running, _answer(response))
            else:
                idempotency.give_up(session, running)
    except Exception as error:
        if not db.unreachable(error):
            raise
        log.warning("http.idempotency-unsettled", error_class=type(error).__name__)
    return response
