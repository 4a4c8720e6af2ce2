"""Is this process well, may it get requests, and what do the numbers say. No key needed; nothing upstream is called."""

import threading
import time
from typing import Any

from flask import Flask, Response, jsonify

from app import config, db, errors, metrics, queue, states
from app.api import auth, declaration_gauges, voucher_gauges
from app.store import claims, health

_GAUGES_SECONDS = 15.0
_PRODUCTS = ("pci", "oh")


def install(app: Flask) -> None:
    """Serve /healthz, /readyz and /metrics."""
    gauges = Gauges()

    @auth.open_to_all
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @auth.open_to_all
    def readyz() -> tuple[Response, int]:
        found = readiness()
        return jsonify(found), 200 if found["ready"] else 503

    @auth.open_to_all
    def exposition() -> Response:
        gauges.refresh()
        text, content_type = metrics.render()
        return Response(text, content_type=content_type)

    app.add_url_rule("/healthz", view_func=healthz)
    app.add_url_rule("/readyz", view_func=readyz)
    app.add_url_rule("/metrics", view_func=exposition)


def readiness() -> dict[str, Any]:
    """What a request needs: Postgres with the schema of this code. The broker and the lines are only told."""
    database, schema = _schema()
    settings = config.settings()
    return {
        "ready": schema in {"at head", "newer"},
        "database": database,
        "schema": schema,
        "broker": _broker(),
        "lines": {
            "claims": _on(settings.travel_pay),
            "claims-texts": _on(settings.notify),
            "declarations": _on(settings.mdg),
            "vouchers": _on(settings.imovo),
        },
    }


def _on(line: object) -> str:
    return "off" if line is None else "on"


def _schema() -> tuple[str, str]:
    try:
        with db.transaction() as session:
            version = health.schema_version(session)
    except Exception as error:
        if db.unreachable(error):
            return "unreachable", "unknown"
        raise
    if not health.schema_serves(version):
        return "reachable", f"at {version or 'nothing'}"
    return "reachable", "at head" if version == health.schema_head() else "newer"


def _broker() -> str:
    try:
        queue.room()
    except errors.BrokerAway:
        return "unreachable"
    return "reachable"


class Gauges:
    """The gauges that only Postgres knows; read again after 15 s, by one request at a time."""

    def __init__(self) -> None:
        self._due = 0.0
        self._busy = threading.Lock()

    def refresh(self) -> None:
        """Bring the gauges up to date if they are old. Postgres away: they keep what they showed."""
        if time.monotonic() < self._due or not self._busy.acquire(blocking=False):
            return
        try:
            with db.transaction() as session:
                standing = claims.standing(session)
                declared = declaration_gauges.read(session)
                requested = voucher_gauges.read(session)
            self._due = time.monotonic() + _GAUGES_SECONDS
        except Exception as error:
            if not db.unreachable(error):
                raise
            return
        finally:
            self._busy.release()
        _show(standing)
        declaration_gauges.show(declared)
        voucher_gauges.show(requested)


def _show(standing: list[tuple[str, str, int, float]]) -> None:
    known = {(product, state): (count, age) for product, state, count, age in standing}
    for product in _PRODUCTS:
        for state in states.Claim:
            count, age = known.get((product, str(state)), (0, 0.0))
            metrics.claims_state.labels(product=product, state=state).set(count)
            if not states.CLAIM.is_finished(state):
                metrics.claims_oldest_due_seconds.labels(product=product, state=state).set(age)
