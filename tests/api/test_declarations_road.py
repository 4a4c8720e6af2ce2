"""From the submission to MDG and what the client is shown of it: contract 10.1, 10.3 and 10.4, with the real engine."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from app import config
from app.flows import engine
from app.upstreams import mdg
from sandbox import Sandbox
from tests.api.declaration_factories import Passengers, id_of
from tests.flows.conftest import shift


@pytest.fixture(autouse=True)
def _fresh(upstreams: Sandbox, database: None, redis_server: Any) -> Iterator[None]:
    """No breaker, no limit, no connection is left of an earlier call, or for a later one."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    redis.Redis.from_url(config.settings().redis_url).flushall()
    mdg._upstreams.clear()


@pytest.fixture
def paid(passengers: Passengers) -> str:
    reference = passengers.made(X_Correlation_ID="d-7f6b2d1e")
    assert passengers.update(reference, X_Correlation_ID="p-91").status_code == 202
    return reference


def attempt(passengers: Passengers, reference: str) -> Any:
    """One attempt, now; what is shown then."""
    shift(id_of(reference), 3_600)
    engine.perform("declaration", "submit", id_of(reference))
    return passengers.show(reference).json


def told(document: Any) -> list[tuple[str, Any]]:
    return [(entry["event"], entry["detail"].get("error")) for entry in document["timeline"]]


def test_a_declaration_from_start_to_end(upstreams: Sandbox, passengers: Passengers, paid: str) -> None:
    shown = attempt(passengers, paid)
    assert (shown["state"], shown["correlationId"]) == ("submitted", "d-7f6b2d1e")
    assert told(shown) == [("accepted", None), ("payment-successful", None), ("attempt", None), ("submitted", None)]
    assert shown["submission"] == {
        "attempts": 1, "nextAttemptAt": None, "error": None, "uncertain": False, "release": None,
    }  # fmt: skip
    assert shown["timeline"][1]["detail"] == {"correlationId": "p-91"}
    assert shown["lastUpdated"] == shown["finishedAt"]
    (entry,) = upstreams.ledger()["declarations"]
    assert (entry["acknowledgementReference"], entry["correlation_id"]) == (f"{paid}0", "d-7f6b2d1e")
    assert passengers.update(paid).status_code == 202
    assert passengers.update(paid, Prefer="wait=1").json["state"] == "submitted"
    assert len(upstreams.calls(call="submit-declaration")) == 1


def test_a_lost_answer_is_two_attempts_and_one_effect(upstreams: Sandbox, passengers: Passengers, paid: str) -> None:
    upstreams.fault("submit-declaration", "drop-after", times=1)
    shown = attempt(passengers, paid)
    assert shown["state"] == "paid"
    assert shown["submission"]["error"] == "mdg-connection-lost"
    assert shown["submission"]["nextAttemptAt"] > shown["lastUpdated"]
    shown = attempt(passengers, paid)
    assert (shown["state"], shown["submission"]["attempts"]) == ("submitted", 2)
    assert told(shown)[2:] == [("attempt", "mdg-connection-lost"), ("attempt", None), ("submitted", None)]
    assert [entry["detail"]["attempt"] for entry in shown["timeline"][2:4]] == [1, 2]
    assert len(upstreams.ledger()["declarations"]) == 1


def test_a_refusal_shows_error_and_release_and_its_texts_to_the_owner(
    upstreams: Sandbox, passengers: Passengers, paid: str
) -> None:
    body = '{"errorDetail": {"sourceFaultDetail": {"detail": ["Invalid portOfEntry"]}}}'
    upstreams.fault("submit-declaration", "status", status=400, body=body, times=1)
    shown = attempt(passengers, paid)
    assert shown["submission"] == {
        "attempts": 1, "nextAttemptAt": None, "error": "mdg-400", "uncertain": False, "release": "test",
    }  # fmt: skip
    assert told(shown)[2:] == [("attempt", "mdg-400"), ("failed", None)]
    assert "Invalid" not in passengers.show(paid).text
    assert passengers.show(paid, "?include=data").json["faults"] == ["Invalid portOfEntry"]
    assert passengers.update(paid).status_code == 409


def test_a_refusal_after_a_lost_answer_is_uncertain(upstreams: Sandbox, passengers: Passengers, paid: str) -> None:
    upstreams.fault("submit-declaration", "drop-after", times=1)
    attempt(passengers, paid)
    upstreams.fault("submit-declaration", "status", status=400, times=1)
    shown = attempt(passengers, paid)
    assert (shown["state"], shown["submission"]["uncertain"]) == ("failed", True)
