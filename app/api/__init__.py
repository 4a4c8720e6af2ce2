"""The HTTP API; the only code besides the console that knows Flask."""

from flask import Flask

from app import config, logs
from app.api import (
    auth,
    checks,
    claims,
    declaration_replays,
    declarations,
    health,
    idempotency,
    openapi,
    problems,
    receipts,
    request_log,
    vouchers,
)


def create_app() -> Flask:
    """The API, ready to serve. Raises BadSettings, or LookupError for a route that does not say who may use it."""
    logs.configure(config.settings().log_level)
    app = openapi.application()
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    for part in (request_log, idempotency, checks, problems, health, openapi):
        part.install(app)
    app.register_api(claims.api)
    app.register_api(receipts.api)
    app.register_api(declarations.api)
    app.register_api(declaration_replays.api)
    vouchers.install(app)
    auth.verify(app)
    return app
