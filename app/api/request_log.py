"""One log record and two metrics per request, and the headers that every answer has. Never an address with data."""

import time

import structlog
from flask import Flask, Response, g, request

from app import logs, metrics
from app.api import headers

log = logs.get("api")
_NO_ROUTE = "-"


def install(app: Flask) -> None:
    """Note the beginning of every request before anything else, and its end after everything else."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.begun = time.monotonic()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(correlation_id=headers.correlate())


def _end(response: Response) -> Response:
    response.headers["X-Correlation-ID"] = headers.correlation_id()
    response.headers["Cache-Control"] = "no-store"
    route = request.url_rule.rule if request.url_rule else _NO_ROUTE
    seconds = time.monotonic() - g.begun
    method = request.method if request.url_rule else _NO_ROUTE
    metrics.http_requests.labels(route=route, method=method, status=response.status_code).inc()
    metrics.http_request_seconds.labels(route=route, method=method).observe(seconds)
    log.info("http.request", method=method, route=route, status=response.status_code, seconds=round(seconds, 4))
    return response
