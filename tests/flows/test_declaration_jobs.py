"""Payments that never came, submissions that are late, and erasure: contract 3.2, 3.3 and 3.6."""

import importlib
from collections.abc import Callable
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
import time_machine
from prometheus_client import REGISTRY
from sqlalchemy import text

from app import clock, db
from app.flows import declaration_jobs
from app.store import workflows
from tests.flows.declared import NAMES, S, declared, events, got, history

DAYS = 86_400
UNPAID = (S.PENDING_PAYMENT, S.PAYMENT_FAILED, S.PAYMENT_CANCELLED)
NOON = datetime.fromisoformat("2026-11-20T12:00:00+00:00")


@pytest.fixture(autouse=True)
def _settings(database: None, set_settings: Callable[..., None]) -> None:
    set_settings(PAYMENT_TIMEOUT="P14D", SUBMISSION_OVERDUE_AFTER="PT1H", DECLARATIONS_RETENTION="P30D")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    for level in ("info", "warning", "error", "exception"):
        monkeypatch.setattr(
            declaration_jobs.log, level, lambda event, **more: records.append({"event": event, **more}), raising=False
        )
    return lambda event: [record for record in records if record["event"] == event]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def into_its_state_at(declaration_id: UUID, moment: datetime, column: str = "updated_at") -> None:
    with db.transaction() as session:
        session.execute(
            text(f"UPDATE workflows SET {column} = :moment WHERE id = :id"),  # noqa: S608
            {"moment": moment, "id": declaration_id},
        )


# Payments


@pytest.mark.parametrize("state", UNPAID)
def test_what_is_not_paid_in_time_is_told_once_and_stays(state: str, logged: Callable[..., Any]) -> None:
    before = counted("declarations_payment_timeouts_total", action="log")
    one = declared(state, age=14 * DAYS + 1)
    was = got(one)
    assert [declaration_jobs.time_out_payments() for _ in range(3)] == [1, 0, 0]
    now = got(one)
    assert (now.state, now.payment_timed_out, now.updated_at, now.fence) == (state, True, was.updated_at, was.fence)
    assert history(one)[1:] == [(None, None, "timer", "payment-timed-out")]
    (record,) = logged("payment-timed-out")
    assert (record["chargeReference"], record["correlationId"]) == (now.charge_reference, "corr-1")
    assert counted("declarations_payment_timeouts_total", action="log") == before + 1


@pytest.mark.parametrize("action", ["log", "expire"])
def test_the_time_is_over_strictly_after_the_timeout(set_settings: Callable[..., None], action: str) -> None:
    set_settings(PAYMENT_TIMEOUT_ACTION=action)
    one = declared(S.PENDING_PAYMENT)
    with time_machine.travel(NOON, tick=False):
        into_its_state_at(one, NOON - timedelta(days=14))
        assert declaration_jobs.time_out_payments() == 0
        into_its_state_at(one, NOON - timedelta(days=14, microseconds=1))
        assert declaration_jobs.time_out_payments() == 1


@pytest.mark.parametrize("state", UNPAID)
def test_with_expire_it_ends_also_where_it_was_told_before(
    state: str, set_settings: Callable[..., None], logged: Callable[..., Any]
) -> None:
    old, young = declared(state, age=15 * DAYS), declared(state, age=13 * DAYS)
    declaration_jobs.time_out_payments()
    set_settings(PAYMENT_TIMEOUT_ACTION="expire")
    assert [declaration_jobs.time_out_payments() for _ in range(2)] == [1, 0]
    now = got(old)
    assert (now.state, now.payment_timed_out, now.due_at, now.finished_at is None) == (S.EXPIRED, True, None, False)
    assert history(old)[-1] == (state, "expired", "timer", "expired")
    assert got(young).state == state
    assert [(record["from"], record["to"]) for record in logged("expired")] == [(state, "expired")]


def test_the_present_timeout_counts_for_stored_rows(set_settings: Callable[..., None]) -> None:
    declared(S.PENDING_PAYMENT, age=3 * DAYS)
    assert declaration_jobs.time_out_payments() == 0
    set_settings(PAYMENT_TIMEOUT="P2D")
    assert declaration_jobs.time_out_payments() == 1


@pytest.mark.parametrize("state", [S.PAID, S.SUBMITTED, S.FAILED, S.EXPIRED])
def test_what_is_paid_or_final_never_times_out(state: str, set_settings: Callable[..., None]) -> None:
    set_settings(PAYMENT_TIMEOUT_ACTION="expire")
    one = declared(state, age=100 * DAYS)
    assert declaration_jobs.time_out_payments() == 0
    assert got(one).state == state


def test_the_oldest_come_first_page_by_page(set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    set_settings(PAYMENT_TIMEOUT_ACTION="expire")
    monkeypatch.setattr(declaration_jobs, "BATCH", 2)
    ids = [declared(S.PENDING_PAYMENT, age=(20 + age) * DAYS) for age in range(5)]
    seen: list[UUID] = []
    expire = declaration_jobs._expire
    monkeypatch.setattr(
        declaration_jobs, "_expire", lambda session, one: bool(seen.append(one.id)) or expire(session, one)
    )
    assert declaration_jobs.time_out_payments() == 5
    assert seen == ids[::-1]


def test_none_is_left_out_where_a_page_ends_among_rows_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declaration_jobs, "BATCH", 2)
    for _ in range(5):
        into_its_state_at(declared(S.PENDING_PAYMENT), NOON)
    with time_machine.travel(NOON + timedelta(days=15), tick=False):
        assert declaration_jobs.time_out_payments() == 5


@pytest.mark.parametrize("action", ["log", "expire"])
def test_one_broken_row_does_not_stop_the_others(
    set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, logged: Callable[..., Any], action: str
) -> None:
    set_settings(PAYMENT_TIMEOUT_ACTION=action)
    monkeypatch.setattr(declaration_jobs, "BATCH", 1)
    broken, sound = declared(S.PENDING_PAYMENT, age=16 * DAYS), declared(S.PENDING_PAYMENT, age=15 * DAYS)
    mark = declaration_jobs.declaration_jobs.mark

    def fail(session: db.Session, found: Any, **columns: Any) -> None:
        mark(session, found, **columns)
        if found.id == broken:
            session.execute(text("SELECT 1 / 0"))

    monkeypatch.setattr(declaration_jobs.declaration_jobs, "mark", fail)
    assert declaration_jobs.time_out_payments() == 1
    assert (got(broken).payment_timed_out, got(broken).state) == (False, S.PENDING_PAYMENT)
    assert got(sound).payment_timed_out
    assert len(logged("declarations.row-broken")) == 1


def test_what_somebody_else_holds_is_skipped_and_a_payment_meanwhile_wins(set_settings: Callable[..., None]) -> None:
    set_settings(PAYMENT_TIMEOUT_ACTION="expire")
    held, free = declared(S.PENDING_PAYMENT, age=16 * DAYS), declared(S.PENDING_PAYMENT, age=15 * DAYS)
    with db.transaction() as session:
        seen = workflows.read(session, held)
        assert seen
        assert workflows.move(session, seen, S.PAID, actor="client", reason="payment-successful", holder=False)
        assert declaration_jobs.time_out_payments() == 1
    assert declaration_jobs.time_out_payments() == 0
    assert (got(held).state, got(free).state) == (S.PAID, S.EXPIRED)


@pytest.mark.parametrize("action", ["log", "expire"])
def test_a_row_is_looked_at_again_under_its_lock(
    set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, logged: Callable[..., Any], action: str
) -> None:
    """It was paid after it was found and before it was locked."""
    set_settings(PAYMENT_TIMEOUT_ACTION=action)
    one = declared(S.PENDING_PAYMENT, age=16 * DAYS)
    lock = declaration_jobs.declaration_jobs.lock

    def paid_before(session: db.Session, ids: list[UUID], *rest: Any, **more: Any) -> Any:
        with db.transaction() as another:
            seen = workflows.read(another, one)
            assert seen
            workflows.move(another, seen, S.PAID, actor="client", reason="payment-successful", holder=False)
        return lock(session, ids, *rest, **more)

    monkeypatch.setattr(declaration_jobs.declaration_jobs, "lock", paid_before)
    assert declaration_jobs.time_out_payments() == 0
    assert (got(one).state, got(one).payment_timed_out, logged("declarations.row-broken")) == (S.PAID, False, [])


# What is paid and not sent


def test_what_is_paid_for_too_long_is_told_once(logged: Callable[..., Any]) -> None:
    late, young = declared(age=3_700), declared(age=3_500)
    assert [declaration_jobs.tell_overdue() for _ in range(3)] == [1, 0, 0]
    assert (got(late).overdue, got(young).overdue, got(late).state) == (True, False, S.PAID)
    assert history(late)[-1] == (None, None, "timer", "overdue")
    (record,) = logged("overdue")
    assert (record["alarm"], record["chargeReference"]) == ("overdue", got(late).charge_reference)


@pytest.mark.parametrize("state", sorted(set(S) - {S.PAID}))
def test_nothing_else_is_overdue(state: str) -> None:
    declared(state, age=90 * DAYS)
    assert declaration_jobs.tell_overdue() == 0


# Erasure


def stored(declaration_id: UUID) -> bytes:
    """All that the tables hold of it, as bytes; what is sealed is opened."""
    one = got(declaration_id)
    return repr((one.payload, one.journey_data, one.last_name_hash, one.faults)).encode()


@pytest.mark.parametrize("state", [S.SUBMITTED, S.EXPIRED])
def test_what_is_personal_goes_and_the_rest_stays(state: str, logged: Callable[..., Any]) -> None:
    before = counted("declarations_erased_total")
    one = declared(state, age=31 * DAYS, journey_data={"a": NAMES[0]}, faults=[NAMES[1]], last_name_hash="0f")
    was, told = got(one), history(one)
    assert [declaration_jobs.erase() for _ in range(2)] == [1, 0]
    now = got(one)
    assert (now.payload, now.journey_data, now.last_name_hash, now.faults) == (None, None, None, None)
    kept = ("charge_reference", "state", "correlation_id", "created_at", "updated_at", "finished_at", "paid_at")
    assert [getattr(now, name) for name in kept] == [getattr(was, name) for name in kept]
    assert now.erased_at
    assert now.fence == was.fence + 1
    assert history(one) == [*told, (None, None, "timer", "erased")]
    assert counted("declarations_erased_total") == before + 1
    assert len(logged("erased")) == 1
    assert not [name for name in NAMES if name.encode() in stored(one)]


@pytest.mark.parametrize("state", [S.PAID, S.FAILED, *UNPAID])
def test_what_is_not_finished_is_never_erased(state: str) -> None:
    one = declared(state, age=400 * DAYS)
    assert declaration_jobs.erase() == 0
    assert got(one).payload


def test_the_time_counts_from_the_end_by_our_clock(set_settings: Callable[..., None]) -> None:
    one = declared(S.SUBMITTED)
    with time_machine.travel(NOON, tick=False):
        into_its_state_at(one, NOON - timedelta(days=30) + timedelta(microseconds=1), "finished_at")
        assert declaration_jobs.erase() == 0
        into_its_state_at(one, NOON - timedelta(days=30), "finished_at")
        assert declaration_jobs.erase() == 1


def test_erasure_goes_page_by_page_and_passes_over_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declaration_jobs, "ERASE_BATCH", 2)
    ids = [declared(S.SUBMITTED, age=(31 + age) * DAYS) for age in range(5)]
    with db.transaction() as session:
        session.execute(text("SELECT 1 FROM workflows WHERE id = :id FOR UPDATE"), {"id": ids[2]})
        assert declaration_jobs.erase() == 4
    assert [got(one).payload is None for one in ids] == [True, True, False, True, True]


# The jobs


@pytest.fixture
def tasks() -> ModuleType:
    """The jobs' module; it asks for the settings when it is imported."""
    return importlib.import_module("tasks.declaration_jobs")


@pytest.mark.parametrize(
    ("job", "seconds"), [("payments", 60), ("replays", 60), ("erasure", 3_600)], ids=["payments", "replays", "erasure"]
)
def test_two_beats_do_not_run_a_job_twice(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch, job: str, seconds: int
) -> None:
    ran: list[datetime] = []
    for module, name in (
        (tasks.declaration_jobs, "time_out_payments"),
        (tasks.declaration_jobs, "erase"),
        (tasks.replaying, "by_release"),
    ):
        monkeypatch.setattr(module, name, lambda: ran.append(clock.now()))
    with time_machine.travel(NOON, tick=False) as moment:
        for shift in (0, 0, seconds // 3, seconds - seconds // 3):
            moment.shift(shift)
            getattr(tasks, job)()
    assert ran == [NOON, NOON + timedelta(seconds=seconds)]


def test_the_job_of_payments_looks_at_what_is_late_too(tasks: ModuleType) -> None:
    unpaid, late = declared(S.PENDING_PAYMENT, age=15 * DAYS), declared(age=3_700)
    tasks.payments()
    assert (events(unpaid), events(late)) == (["payment-timed-out"], ["overdue"])


def test_beat_knows_the_jobs_with_the_intervals_of_the_settings(
    tasks: ModuleType, set_settings: Callable[..., None]
) -> None:
    set_settings(PAYMENT_TIMEOUT_SWEEP=7, REPLAY_SWEEP="PT2M", DECLARATIONS_RETENTION_SWEEP="PT30M")
    entries = importlib.import_module("tasks.beat").schedule()
    found = {entry["task"]: entry["schedule"] for entry in entries.values()}
    assert found["sweeps.declaration_payments"] == 7
    assert found["sweeps.declaration_replays"] == 120
    assert found["sweeps.declaration_erasure"] == 1_800
