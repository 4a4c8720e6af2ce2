"""Idempotency-Key on a request: the stored answer before anything runs, storing the answer at its end.

An answer is stored in the transaction that accepts something (`keep`), else after the request. Only what a repeat must
not do again is stored; a key whose request came to nothing may be used again. A route whose outcome may be a 5xx that
is not stored ties its key to the operation instead (`tie`).
"""

import hashlib
from typing import Any
from uuid import UUID

from flask import Flask, Response, g, request

from app import crypto, db, errors, logs
from app.api import headers
from app.api.auth import access, caller
from app.store import idempotency
from app.store.idempotency import Answer, Running

_KEPT_HEADERS = ("Content-Type", "Link", "Location", "Retry-After")
log = logs.get("api")


def install(app: Flask) -> None:
    """Settle each request with a key once its answer is known."""
    app.after_request(_settle)


def check_stored_answer() -> Response | None:
    """The answer of the first request with this key, if it has one."""
    key = request.headers.get("Idempotency-Key")
    if key is None or request.method not in headers.IDEMPOTENCY_METHODS:
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
        raise _taken_over()
    if final:
        db.after_commit(session, _done)


def tied() -> UUID | None:
    """The operation that the first request with this key has started or joined, where that has no stored answer."""
    running: Running | None = g.get("idempotent")
    return running.operation_id if running else None


def tie(session: Any, operation_id: UUID) -> None:
    """Tie the key to the operation that this transaction starts or joins.

    Raises Refused, and so rolls back, when the same request has been taken over meanwhile.
    """
    running: Running | None = g.get("idempotent")
    if running is not None and not idempotency.tie(session, running, operation_id):
        raise _taken_over()


def run_anew() -> None:
    """The operation that the key is tied to came to nothing: go on as if it had never been. Raises Refused."""
    with db.transaction() as session:
        g.idempotent = idempotency.renew(session, g.idempotent)


def keep_refusals() -> None:
    """From here on a refusal of this request is stored for its key, whatever its status below 500."""
    g.keeps_refusals = True


def _taken_over() -> errors.Refused:
    g.idempotent = None
    return errors.Refused(409, "idempotency-in-progress", "The same request is being accepted by now.")


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
            if _is_kept(response.status_code):
                idempotency.finish(session, running, _answer(response))
            else:
                idempotency.give_up(session, running)
    except Exception as error:
        if not db.unreachable(error):
            raise
        log.warning("http.idempotency-unsettled", error_class=type(error).__name__)
    return response


def _is_kept(status: int) -> bool:
    return status < 300 or status in access().kept or (status < 500 and g.get("keeps_refusals", False))
