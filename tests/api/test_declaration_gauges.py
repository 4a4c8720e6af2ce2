"""The gauges of declarations at /metrics: contract, section 7."""

import pytest
from flask.testing import FlaskClient

from app.api import health
from tests.flows.declared import S, declared


@pytest.fixture
def shown(http: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What /metrics shows, by name and labels."""
    monkeypatch.setattr(health, "_GAUGES_SECONDS", 0.0)
    for state in (S.PAID, S.PAID, S.FAILED):
        declared(state, age=4_000)
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("declarations_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_every_state_is_shown_also_where_there_is_none(shown: dict[str, float]) -> None:
    found = {str(state): shown[f'declarations_state{{state="{state}"}}'] for state in S}
    assert found == {**dict.fromkeys(map(str, S), 0), "paid": 2, "failed": 1}


def test_the_age_of_work_is_shown(shown: dict[str, float]) -> None:
    assert shown["declarations_overdue"] == 2
    assert 4_000 <= shown["declarations_oldest_unsent_seconds"] < 4_600
    assert 4_000 <= shown["declarations_oldest_failed_seconds"] < 4_600
