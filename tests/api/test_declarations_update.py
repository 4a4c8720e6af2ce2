"""POST /bc-passengers-declarations/update/{chargeReference}: contract 2.1, 2.3, 3.4 and 10.1."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from app import config, db, metrics
from app.api import waiting
from app.models.workflow import Move
from app.store import clients, declarations, workflows
from tests.api.declaration_factories import (
    ALL_STATES,
    LINE,
    Passengers,
    add_call,
    count,
    events,
    id_of,
    put_into,
    row,
)

UNPAID = ["pending-payment", "payment-failed", "payment-cancelled"]
UNKNOWN = "XHPR9999999999"


@pytest.fixture
def declared(passengers: Passengers) -> str:
    return passengers.made(X_Correlation_ID="d-7f6b2d1e")


@contextmanager
def locked(reference: str) -> Iterator[db.Session]:
    """Somebody else holds the lock of the declaration."""
    with db.transaction() as session:
        session.execute(text("SELECT 1 FROM workflows WHERE id = :id FOR UPDATE"), {"id": id_of(reference)})
        yield session


def is_empty(answer: Any) -> bool:
    return (answer.data, answer.headers["Content-Length"], answer.headers.get("Content-Type")) == (b"", "0", None)


def counted(result: str) -> float:
    return float(metrics.declarations_payment_notices.labels("Successful", result)._value.get())


@pytest.mark.parametrize("state", UNPAID)
def test_what_is_unpaid_is_paid_and_handed_to_the_engine(passengers: Passengers, declared, dispatched, state) -> None:
    if state != "pending-payment":
        put_into(declared, state)
    before, applied = row(declared), counted("applied")
    answer = passengers.update(declared, X_Correlation_ID="p-91")
    assert (answer.status_code, is_empty(answer)) == (202, True)
    assert answer.headers["Location"] == f"{LINE}/{declared}"
    assert answer.headers["X-Correlation-ID"] == "p-91"
    assert dispatched == [id_of(declared)]
    after = row(declared)
    assert (after.state, after.correlation_id, after.priority) == ("paid", "d-7f6b2d1e", 1)
    assert after.paid_at == after.updated_at > before.updated_at
    assert after.due_at < after.wake_at
    assert (after.wake_at - after.due_at).total_seconds() == pytest.approx(config.settings().redispatch_seconds, abs=2)
    paid = (state, "paid", "client", "payment-successful", {"correlationId": "p-91"})
    assert events(declared)[1:] == [paid]
    assert counted("applied") == applied + 1


@pytest.mark.parametrize("state", ["paid", "submitted"])
def test_the_tenth_repeat_still_gets_202_and_changes_nothing(
    passengers: Passengers, declared, dispatched, state
) -> None:
    put_into(declared, state)
    before = row(declared)
    answers = [passengers.update(declared) for _ in range(10)]
    assert [(one.status_code, is_empty(one)) for one in answers] == [(202, True)] * 10
    after = row(declared)
    assert (after.state, after.updated_at, after.fence, dispatched) == (state, before.updated_at, before.fence, [])
    assert [event[3] for event in events(declared)[1:]] == ["payment-repeated"] * 10


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_what_has_ended_otherwise_refuses_the_payment_and_notes_it(
    passengers: Passengers, declared, dispatched, state, caplog
) -> None:
    put_into(declared, state)
    late = float(metrics.declarations_late_payments._value.get())
    answer = passengers.update(declared, X_Correlation_ID="p-91")
    assert (answer.status_code, is_empty(answer)) == (409, True)
    assert events(declared)[1:] == [(None, None, "client", "payment-refused", {"correlationId": "p-91"})]
    assert (row(declared).state, dispatched) == (state, [])
    told: list[Any] = [one.msg for one in caplog.records]
    (record,) = [one for one in told if one["event"] == "payment-refused"]
    expired = state == "expired"
    assert float(metrics.declarations_late_payments._value.get()) == late + expired
    assert record.get("alarm") == ("late-payment" if expired else None)
    assert (record["chargeReference"], record["correlationId"]) == (declared, "d-7f6b2d1e")


@pytest.mark.parametrize(
    "reference",
    [UNKNOWN, "XAPR0000000001", "xypr0000000001", "XYPR000000001", "XYPR0000000001%0A", "XYPR%000000000001", "%F0%9F",
     "XYPR" + "9" * 400, ".*", "submit"],
)  # fmt: skip
def test_what_is_no_reference_of_the_client_is_not_found(passengers: Passengers, declared, reference: str) -> None:
    answer = passengers.update(reference)
    assert (answer.status_code, is_empty(answer)) == (404, True)
    assert count(Move) == 1


def test_another_clients_declaration_is_not_found(http, add_client, declared) -> None:
    other = Passengers(http, add_client("other", scopes=["declarations", "operator"], product=None))
    answer = other.update(declared)
    assert (answer.status_code, is_empty(answer)) == (404, True)
    assert row(declared).state == "pending-payment"


@pytest.mark.parametrize(
    ("data", "headers"),
    [(b"\xff{", {}), (b"", {"Content_Type": "application/x-www-form-urlencoded"}), (b"a=1", {"Content_Type": "x"}),
     (b"zip", {"Content_Encoding": "gzip"}), (b"x" * 102_400, {"Content_Type": "multipart/form-data; boundary=x"})],
)  # fmt: skip
def test_the_body_is_not_read(passengers: Passengers, declared, data: bytes, headers: dict[str, str]) -> None:
    assert passengers.update(declared, data=data, **headers).status_code == 202


def test_the_checks_before_are_problems(passengers: Passengers, declared) -> None:
    told = {
        passengers.update(declared, data=b"x" * 102_401): "too-large",
        passengers.update(declared, X_Correlation_ID="a b"): "invalid-request",
        passengers.update(declared, Idempotency_Key="a b"): "invalid-request",
        passengers.update(declared, x_api_key="wrong"): "unauthorized",
    }
    for answer, kind in told.items():
        assert (answer.content_type, answer.json["type"]) == ("application/problem+json", f"/problems/{kind}")
    assert row(declared).state == "pending-payment"


def test_it_stays_open_while_the_toggle_is_off(passengers: Passengers, declared) -> None:
    with db.transaction() as session:
        clients.set_toggle(session, "passengers", "declarations", on=False)
    assert passengers.update(declared).status_code == 202
    assert row(declared).state == "paid"


def test_it_is_closed_where_the_line_does_not_exist(passengers: Passengers, declared, monkeypatch) -> None:
    monkeypatch.delenv("MDG_URL")
    config.settings.cache_clear()
    answer = passengers.update(declared)
    monkeypatch.undo()
    config.settings.cache_clear()
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/feature-disabled")


# The lock


def test_a_declaration_that_is_locked_for_too_long_is_423_and_unchanged(
    passengers: Passengers, declared, set_settings
) -> None:
    set_settings(DECLARATIONS_LOCK_WAIT="0.1")
    refused = counted("locked")
    with locked(declared):
        begun = time.monotonic()
        answer = passengers.update(declared, Idempotency_Key="k")
        assert 0.09 < time.monotonic() - begun < 4
    assert (answer.status_code, is_empty(answer), answer.headers["Retry-After"]) == (423, True, "1")
    assert (row(declared).state, len(events(declared)), counted("locked")) == ("pending-payment", 1, refused + 1)
    again = passengers.update(declared, Idempotency_Key="k")
    assert again.status_code == 202


def test_a_lock_that_is_let_go_in_time_is_waited_for_and_the_state_is_read_under_it(
    app, passengers: Passengers, declared, set_settings
) -> None:
    """What was so before the lock is not trusted: meanwhile it has expired."""
    set_settings(DECLARATIONS_LOCK_WAIT="60")
    with ThreadPoolExecutor(1) as pool:
        with locked(declared) as session:
            answer = pool.submit(Passengers(app.test_client(), passengers.key).update, declared)
            _until_somebody_waits()
            seen = workflows.read(session, id_of(declared))
            assert seen
            assert workflows.move(session, seen, "expired", actor="timer", holder=False)
        assert answer.result().status_code == 409
    assert row(declared).state == "expired"


def _until_somebody_waits() -> None:
    waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    give_up = time.monotonic() + 50
    while time.monotonic() < give_up:
        with db.transaction() as session:
            if session.scalar(waits):
                return
    raise TimeoutError


@pytest.mark.parametrize("error", ["57014", "40P01"])
def test_another_fault_of_the_database_is_not_423(passengers: Passengers, declared, monkeypatch, error: str) -> None:
    def broken(session: Any, *args: Any, **rest: Any) -> None:
        session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '{error}'; END $$"))

    monkeypatch.setattr(declarations, "lock", broken)
    answer = passengers.update(declared)
    assert answer.status_code in {500, 503}
    assert answer.content_type == "application/problem+json"
    assert "secret" not in answer.text


def test_postgres_away_is_503(passengers: Passengers, declared, monkeypatch) -> None:
    def away(session: Any, *args: Any, **rest: Any) -> None:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(declarations, "lock", away)
    answer = passengers.update(declared)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json["type"] == "/problems/unavailable"


def test_of_fifty_simultaneous_notices_one_makes_the_transition(
    *, app, passengers: Passengers, declared, dispatched, set_settings, monkeypatch
) -> None:
    set_settings(DECLARATIONS_LOCK_WAIT="60")
    monkeypatch.setattr(db.engine().pool, "_timeout", 60)  # the pool has fewer connections
    gate = threading.Barrier(50)

    def send(_: int) -> int:
        gate.wait()
        return Passengers(app.test_client(), passengers.key).update(declared).status_code

    with ThreadPoolExecutor(50) as pool:
        statuses = [*pool.map(send, range(50))]
    assert statuses == [202] * 50
    reasons = [event[3] for event in events(declared)]
    assert reasons.count("payment-successful") == 1
    assert reasons.count("payment-repeated") == 49
    assert dispatched == [id_of(declared)]


# Who waits


@pytest.mark.parametrize("state", ["submitted", "failed"])
def test_who_waits_gets_the_outcome(passengers: Passengers, declared, monkeypatch, state: str) -> None:
    def goes_on(reached: Any, *, seconds: float) -> None:
        assert (seconds, row(declared).priority, reached()) == (25, 0, False)
        put_into(declared, state)
        assert reached()

    monkeypatch.setattr(waiting, "until", goes_on)
    answer = passengers.update(declared, Prefer="wait=99999", Idempotency_Key="k")
    assert (answer.status_code, answer.json["state"]) == (200, state)
    assert answer.headers["Preference-Applied"] == "wait=25"
    again = passengers.update(declared, Idempotency_Key="k")
    assert (again.status_code, again.data) == (200, answer.data)


@pytest.mark.parametrize("prefer", ["wait=0", "wait=x", "respond-async", "nonsense;;="])
def test_who_waits_for_nothing_or_in_vain_gets_202(passengers: Passengers, declared, prefer: str) -> None:
    answer = passengers.update(declared, Prefer=prefer)
    assert (answer.status_code, is_empty(answer)) == (202, True)


def test_who_repeats_and_waits_gets_the_outcome_at_once(passengers: Passengers, declared) -> None:
    put_into(declared, "submitted")
    add_call(declared, "ok", 204)
    answer = passengers.update(declared, Prefer="wait=5")
    assert (answer.status_code, answer.json["submission"]["attempts"]) == (200, 1)


def test_postgres_away_while_waiting_still_tells_that_it_was_taken(
    passengers: Passengers, declared, monkeypatch
) -> None:
    def away(*args: Any, **rest: Any) -> None:
        with db.transaction() as session:
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(waiting, "until", away)
    answer = passengers.update(declared, Prefer="wait=5")
    assert (answer.status_code, is_empty(answer)) == (202, True)


# Idempotency-Key


@pytest.mark.parametrize(("state", "status"), [("pending-payment", 202), ("failed", 409), (None, 404)])
def test_what_was_answered_is_answered_again(passengers: Passengers, declared, state: str | None, status: int) -> None:
    if state == "failed":
        put_into(declared, state)
    reference = declared if state else UNKNOWN
    first, again = (passengers.update(reference, Idempotency_Key="k") for _ in range(2))
    assert [(one.status_code, is_empty(one)) for one in (first, again)] == [(status, True)] * 2
    assert first.headers.get("Location") == again.headers.get("Location")
    assert len(events(declared)) == (1 if status == 404 else 2)
    put_into(declared, "paid")
    assert passengers.update(reference, Idempotency_Key="k").status_code == status


def test_a_row_that_has_changed_since_it_was_read_is_read_again(passengers: Passengers, declared, monkeypatch) -> None:
    real, tries = workflows.move, []

    def move(*args: Any, **rest: Any) -> bool:
        tries.append(1)
        return len(tries) > 1 and real(*args, **rest)

    monkeypatch.setattr(workflows, "move", move)
    assert passengers.update(declared).status_code == 202
    assert (row(declared).state, len(tries)) == ("paid", 2)


def test_every_state_has_an_answer(passengers: Passengers, declared) -> None:
    answers = {}
    for state in ALL_STATES:
        put_into(declared, state, fence=0)
        answers[state] = passengers.update(declared).status_code
    assert answers == {state: 409 if state in {"failed", "expired"} else 202 for state in ALL_STATES}
