"""The API's own description: OpenAPI 3.1 at /openapi.json, made from the code, and pages to read it at /docs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from typing import Any, TypeVar, cast

from flask import Response, send_from_directory
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.types import ResponseDict, SecuritySchemesDict
from pydantic import BaseModel, ConfigDict, Field, create_model

from app.api import auth, bodies, examples, problems
from app.api.headers import CORRELATION, IDEMPOTENCY

T = TypeVar("T", bound=BaseModel)
KEY: list[dict[str, list[Any]]] = [{"key": []}]
NOTIFY: list[dict[str, list[Any]]] = [{"notify": []}]
_ALL = ("invalid-request", "unauthorized", "internal-error", "unavailable")
_KEYED = (*_ALL, "forbidden", "client-not-set-up", "feature-disabled")
_WITH_BODY = ("malformed-json", "too-large", "unsupported-media-type", "validation-failed")
LIST_REFUSALS = (*_KEYED, "invalid-parameter")
GET_REFUSALS = (*_KEYED, "not-found")
POST_REFUSALS = (*_KEYED, *_WITH_BODY, "idempotency-in-progress", "idempotency-mismatch")
NOTIFY_REFUSALS = (*_ALL, *_WITH_BODY)
_SECURITY: SecuritySchemesDict = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "notify": {"type": "http", "scheme": "bearer"},
}
_HEADERS = {
    "Age": "Seconds since i-Movo confirmed it.",
    "Link": "Where the operation is shown, with rel=status.",
    "Location": "Where to look at it.",
    "Preference-Applied": "The seconds that were waited for at most, where the request asked to wait.",
    "Retry-After": "Seconds until it is worth another try.",
    "WWW-Authenticate": "What to send.",
}
_OF_REFUSALS = {401: ("WWW-Authenticate",), 503: ("Retry-After",)}
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


@dataclass(frozen=True, kw_only=True)
class Good:
    """A documented answer that is no refusal. `model` None: without a body."""

    status: int
    says: str
    model: type[BaseModel] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    headers: Sequence[str] = ()


def answers(*good: Good, refused: Sequence[str], instance: str, line: str = "claims") -> ResponseDict:
    """The documented answers of a route: what is given, and a problem for each kind of refusal, all with examples."""
    told: dict[Any, Any] = {one.status: _good(one) for one in good}
    schema = {"$ref": "#/components/schemas/Problem"}
    for status, shown in examples.refusals(refused, instance=instance, line=line).items():
        content = {problems.MEDIA_TYPE: {"schema": schema, "examples": shown}}
        told[status] = {"content": content, "headers": _headers(_OF_REFUSALS.get(status, ()))}
    return told


def _good(one: Good) -> Any:
    """The model with what the generator adds to its answer; a plain dictionary where there is no body."""
    extra = {"description": one.says, "headers": _headers(one.headers)}
    if one.model is None:
        return extra
    return described(one.model, **extra, examples={name: {"value": value} for name, value in one.examples.items()})


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names}


def described(model: type[T], **extra: Any) -> type[T]:
    """The same model, with what the generator is to say about it in one place (`examples`, `headers`, ...)."""
    same: type[T] = create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__)
    return documented(**extra)(same)


def documented(**extra: Any) -> Callable[[type[T]], type[T]]:
    """Decorate a body's model with what its documentation says beside its schema (`examples`, `required`)."""

    def decorate(model: type[T]) -> type[T]:
        model.model_config = cast("ConfigDict", {**model.model_config, "openapi_extra": extra})
        return model

    return decorate


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
