"""The order in which a request is checked, for all routes that are not open to all. The first check that fails answers.

Route and method come before, the body's fields and the row's state after. Source: travel-claims contract, 2.1.
"""

from collections.abc import Callable

from flask import Flask, Response, current_app, g, request

from app import errors
from app.api import auth, bodies, headers, idempotency

Checks = tuple[Callable[[], Response | None], ...]
CHECKS: Checks = (
    auth.check_key,
    auth.check_scope,
    auth.check_toggle,
    bodies.check_size,
    bodies.check_type,
    headers.check_correlation_id,
    headers.check_idempotency_key,
    idempotency.check_stored_answer,
    bodies.check_json,
)
NOTIFYS: Checks = (
    auth.check_token,
    bodies.check_size,
    bodies.check_type,
    headers.check_correlation_id,
    bodies.check_json,
)


def install(app: Flask) -> None:
    """Check every request before its view runs."""
    app.before_request(_check)


def _check() -> Response | None:
    if request.url_rule is None:  # unknown route or method: answered next
        return None
    access = auth.access_to(current_app, request.endpoint)
    if access is None:
        raise errors.Refused(403, "forbidden", "Nobody is allowed here.")
    if access is auth.OPEN:
        return None
    g.access = access
    for check in NOTIFYS if access is auth.NOTIFY else CHECKS:
        answer = check()
        if answer is not None:
            return answer
    return None
