"""The API's own description: OpenAPI 3.1 at /openapi.json, made from the code, and pages to read it at /docs."""

from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from typing import Any

from flask import Response, send_from_directory
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.types import ResponseDict, SecuritySchemesDict
from pydantic import BaseModel, Field

from app.api import auth, bodies, problems
from app.api.headers import CORRELATION, IDEMPOTENCY

KEY: list[dict[str, list[Any]]] = [{"key": []}]
GET_REFUSALS = (400, 401, 403, 404, 500, 503)
POST_REFUSALS = (400, 401, 403, 404, 409, 413, 415, 422, 500, 503)
_SECURITY: SecuritySchemesDict = {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}
_UI = ("flask_openapi3_swagger", "templates/swagger")  # the pages' scripts and styles, served from the package
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Throughline API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/css/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="/docs/js/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null})</script>
</body>
</html>
"""


def _optional(schema: dict[str, Any]) -> None:
    """A header is absent or a string, never null."""
    schema.pop("default")
    schema.pop("title", None)


class GetHeaders(BaseModel):
    """Headers of every route that needs a key. For the description only; `app.api.headers` reads them."""

    correlation_id: str = Field(
        default="",
        alias="X-Correlation-ID",
        pattern=f"^{CORRELATION}$",
        json_schema_extra=_optional,
        description="Comes back on the answer and goes along to every upstream; made up when absent.",
    )
    prefer: str = Field(
        default="",
        alias="Prefer",
        json_schema_extra=_optional,
        description="wait=N (at most 25): answer when the outcome is final or after N seconds. respond-async: at once.",
    )


class PostHeaders(GetHeaders):
    idempotency_key: str = Field(
        default="",
        alias="Idempotency-Key",
        pattern=f"^{IDEMPOTENCY}$",
        json_schema_extra=_optional,
        description="The same key with the same request gets the first answer again, for 24 hours.",
    )


def application() -> OpenAPI:
    """A Flask application without routes, that will describe the routes it is given."""
    app = OpenAPI(
        __name__,
        info=Info(title="Throughline", version=version("throughline")),
        security_schemes=_SECURITY,
        validation_error_model=problems.Problem,
        validation_error_status=500,  # every route describes its refusals itself; one that all have adds none to them
        validation_error_callback=problems.refuse_body,
        doc_ui=False,
        static_folder=None,
    )
    app.request_class = bodies.Request
    return app


def answers(model: type[BaseModel], *statuses: int, refused: Sequence[int]) -> ResponseDict:
    """The documented answers of a route: `model` for these statuses, a problem for the refusals."""
    schema = {"$ref": "#/components/schemas/Problem"}
    problem = {"content": {problems.MEDIA_TYPE: {"schema": schema}}}
    return {**dict.fromkeys(statuses, model), **{status: dict(problem) for status in refused}}


def install(app: OpenAPI) -> None:
    """Serve the description of `app` and the pages to read it."""

    @auth.open_to_all
    def description() -> dict[str, Any]:
        return app.api_doc

    @auth.open_to_all
    def page() -> Response:
        return Response(_PAGE, content_type="text/html; charset=utf-8")

    @auth.open_to_all
    def asset(name: str) -> Response:
        package, folder = _UI
        return send_from_directory(str(resources.files(package) / folder), name)

    app.add_url_rule("/openapi.json", view_func=description)
    app.add_url_rule("/docs", view_func=page)
    app.add_url_rule("/docs/<path:name>", view_func=asset)
