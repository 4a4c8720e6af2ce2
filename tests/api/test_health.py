"""Health, readiness and the gauges."""

import pytest
from sqlalchemy import text

from app import db
from app.api import health
from app.store import claims
from tests.api.factories import claim, put_into


def test_a_process_that_answers_is_well(http):
    assert http.get("/healthz").json == {"status": "ok"}


def test_ready_with_the_schema_of_this_code(http):
    answer = http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {
        "ready": True, "database": "reachable", "schema": "at head", "broker": "reachable",
        "lines": {"claims": "on", "claims-texts": "on", "declarations": "on", "vouchers": "on"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "status", "told"),
    [("0001", 503, "at 0001"), ("9999", 200, "newer")],
    ids=["older than this code", "newer, as for old code during a rollout"],
)
def test_ready_depends_on_the_schema(http, version, status, told):
    with db.transaction() as session:
        head = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        session.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    try:
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json["schema"]) == (status, told)
    finally:
        with db.transaction() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head})


def test_the_lines_are_told(http, set_settings):
    set_settings(TRAVEL_PAY_URL="", NOTIFY_URL="", MDG_URL="", IMOVO_URL="")
    assert set(http.get("/readyz").json["lines"].values()) == {"off"}


def gauge(text: str, name: str, state: str) -> float:
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith(f"{name}{{") and f'state="{state}"' in line and 'product="pci"' in line
    ]
    return float(line.rpartition(" ")[2])


def test_the_gauges_show_where_the_claims_are(http, post, monkeypatch):
    monkeypatch.setattr(health, "_GAUGES_SECONDS", 0.0)
    claim_id = post(claim()).json["id"]
    with db.transaction() as session:
        session.execute(text("UPDATE workflows SET due_at = due_at - interval '90 s'"))
    shown = http.get("/metrics").text
    assert gauge(shown, "claims_state", "accepted") == 1
    assert 90 <= gauge(shown, "claims_oldest_due_seconds", "accepted") < 1_000
    put_into(claim_id, "submitted")
    shown = http.get("/metrics").text
    assert gauge(shown, "claims_state", "accepted") == 0
    assert gauge(shown, "claims_state", "submitted") == 1
    assert gauge(shown, "claims_oldest_due_seconds", "accepted") == 0


def test_the_gauges_are_read_from_postgres_now_and_then_only(http, monkeypatch):
    reads: list[int] = []
    monkeypatch.setattr(claims, "standing", lambda session: reads.append(1) or [])
    for _ in range(5):
        assert http.get("/metrics").status_code == 200
    assert len(reads) == 1


def test_requests_are_counted_by_route_and_status(http, post):
    post(claim())
    shown = http.get("/metrics").text
    assert 'http_requests_total{method="POST",route="/travel-claims",status="202"}' in shown
    assert 'http_request_seconds_count{method="POST",route="/travel-claims"}' in shown
    assert 'claims_accepted_total{product="pci"}' in shown


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_no_key_is_needed_and_a_bad_correlation_id_is_replaced(http, path):
    answer = http.get(path, headers={"X-Correlation-ID": "a b", "x-api-key": "unknown"})
    assert answer.status_code == 200
    assert answer.headers["X-Correlation-ID"] != "a b"
