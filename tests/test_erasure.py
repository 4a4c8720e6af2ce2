"""Personal data goes when a claim has been final for long enough: contract 3.2 and 3.3."""

import importlib
from collections.abc import Callable
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
import time_machine
from sqlalchemy import func, select, text, update

from app import db, states
from app.flows import claim_requests, claim_view, erasure
from app.models.callback import ClaimCallback
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.orm import new_id
from app.models.workflow import Move, Tick, Workflow
from app.store import claims, clients, workflows

C, N, B = states.Claim, states.Notification, states.ClaimCallback
DAYS = 86_400
PERSONAL = ["1012667122V019349", "+12025550143", "Knee surgery", "Garage", "JVBERi0", "hooks.example"]
ICN, PHONE, NAME, GARAGE, RECEIPT, HOST = PERSONAL
URL = f"https://{HOST}/travel?sig=1"
DETAILS = [
    {"type": "mileage", "dateIncurred": "2026-03-02", "description": "mileage", "tripType": "RoundTrip"},
    {"type": "parking", "dateIncurred": "2026-03-02", "description": GARAGE, "costRequested": "12.5",
     "receipt": {"contentType": "application/pdf", "fileName": "a.pdf", "fileData": RECEIPT}},
]  # fmt: skip


@pytest.fixture(autouse=True)
def _installed(database: None, set_settings: Callable[..., None]) -> None:
    set_settings(TRAVEL_CLAIMS_ERASE_AFTER_SECONDS=30 * DAYS)


@pytest.fixture
def sweeps() -> ModuleType:
    """The jobs' module; it asks for the settings when it is imported."""
    return importlib.import_module("tasks.sweeps")


def client_id() -> UUID:
    with db.transaction() as session:
        try:
            return clients.named(session, "shop").id
        except LookupError:
            clients.add(session, "shop", ["claims"], "pci")
            return clients.named(session, "shop").id


def filed(*, state: str = C.SUBMITTED, final_for: float | None = 31 * DAYS, at: str = "10:00") -> UUID:
    """A claim with all that is personal, final for so many seconds."""
    client_id()
    with db.transaction() as session:
        client = clients.named(session, "shop")
        new = claims.NewClaim(
            icn=ICN,
            appointment={"dateTime": f"2026-03-02T{at}:00", "stationNumber": "983GC"},
            appointment_name=NAME,
            expense_details=DETAILS,
            rollback=False,
            phone=PHONE,
            callback_url=URL,
        )
        claim_id, created = claims.accept(session, client, new, correlation_id="corr-1", waiting=False)
        assert created
        if final_for is not None:
            rest(session, claim_id, state, final_for, slot=None)
            session.execute(
                update(Claim.__table__).where(Claim.__table__.c.id == claim_id).values(failed_in="accepted")
            )
    return claim_id


def rest(session: db.Session, id: UUID, state: str, seconds: float, **more: Any) -> None:
    ended = func.clock_timestamp() - timedelta(seconds=seconds)
    values = {"state": state, "due_at": None, "wake_at": None, "finished_at": ended, **more}
    session.execute(update(Workflow.__table__).where(Workflow.__table__.c.id == id).values(values))


def child(claim_id: UUID, table: type[Workflow], state: str, **more: Any) -> UUID:
    """A text or callback of a claim."""
    child_id = new_id()
    own: dict[str, Any] = (
        {"template": "success", "phone": PHONE, "personalisation": {"claim_number": "3890", "appt_date": "Mar 02"}}
        if table is Notification
        else {"url": URL, "body": f'{{"claim": {{"appointment": {{"name": "{NAME}"}}}}}}'}
    )
    with db.transaction() as session:
        session.add(
            table(
                id=child_id, state=N.PENDING, client_id=client_id(), correlation_id="corr-1", claim_id=claim_id, run=1,
                product="pci", **own, **more,
            )
        )  # fmt: skip
        session.flush()
        if state != N.PENDING:
            rest(session, child_id, state, 31 * DAYS)
    return child_id


def got(table: type[Any], id: UUID) -> Any:
    with db.transaction() as session:
        return session.execute(select(table).where(table.id == id)).scalar_one()


def events(id: UUID) -> list[str]:
    with db.transaction() as session:
        return list(session.scalars(select(Move.reason).where(Move.workflow_id == id, Move.to.is_(None))))


def is_erased(claim_id: UUID) -> bool:
    claim = got(Claim, claim_id)
    assert (claim.icn is None) == (claim.erased_at is not None)
    return claim.icn is None


# What goes, and what stays.


def test_what_is_personal_goes_and_the_rest_stays() -> None:
    claim_id = filed()
    text_id = child(claim_id, Notification, N.DELIVERED)
    callback_id = child(claim_id, ClaimCallback, B.DELIVERED, attempts=2, last_status=204)
    before = got(Claim, claim_id)
    assert erasure.erase_some() == (1, False)
    after = got(Claim, claim_id)
    gone = (
        after.icn,
        after.phone,
        after.appointment_name,
        after.expense_details,
        after.callback_url,
        after.btsss_token,
    )
    assert gone == (None,) * 6
    assert [after.state, after.visit, after.correlation_id, after.finished_at, after.expenses] == [
        before.state, before.visit, before.correlation_id, before.finished_at, before.expenses,
    ]  # fmt: skip
    told, called = got(Notification, text_id), got(ClaimCallback, callback_id)
    assert (told.state, told.phone, told.personalisation) == (N.DELIVERED, None, None)
    assert (called.state, called.attempts, called.last_status) == (B.DELIVERED, 2, 204)
    assert (called.url, called.body) == (None, None)
    assert events(claim_id) == ["erased"]


def test_nothing_personal_is_left_in_any_table() -> None:
    """Opened with the key, row by row, column by column."""
    claim_id = filed()
    child(claim_id, Notification, N.SENT)
    child(claim_id, ClaimCallback, B.UNDELIVERED)
    tables = (Claim, Notification, ClaimCallback)

    def everything() -> str:
        with db.transaction() as session:
            return "".join(repr(list(session.execute(select(table.__table__)))) for table in tables)

    assert all(piece in everything() for piece in PERSONAL)
    erasure.erase_some()
    assert [piece for piece in PERSONAL if piece in everything()] == []


def test_an_erased_claim_is_still_shown() -> None:
    claim_id = filed()
    child(claim_id, ClaimCallback, B.DELIVERED, attempts=1, last_status=200)
    erasure.erase_some()
    with db.transaction() as session:
        found = claims.view(session, claim_id, None)
        assert found
        shown = claim_view.render(found)
    assert (shown["id"], shown["state"]) == (str(claim_id), "submitted")
    assert shown["appointment"] == {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"}
    assert shown["callback"] == {"state": "delivered", "attempts": 1, "lastStatus": 200}
    assert [one["type"] for one in shown["expenses"]] == ["mileage", "parking"]


# When.


@pytest.mark.parametrize("state", sorted(states.CLAIM.finished))
def test_every_final_state_is_erased_after_30_days_and_not_before(state: str) -> None:
    old, young = filed(state=state), filed(state=state, final_for=30 * DAYS - 60, at="11:00")
    erasure.erase_some()
    assert (is_erased(old), is_erased(young)) == (True, False)


def test_a_claim_that_is_not_final_keeps_its_data_however_old() -> None:
    claim_id = filed(final_for=None)
    with db.transaction() as session:
        session.execute(text("UPDATE workflows SET created_at = created_at - interval '90 days'"))
    erasure.erase_some()
    assert not is_erased(claim_id)


def test_the_time_can_be_set(set_settings: Callable[..., None]) -> None:
    claim_id = filed(final_for=61)
    set_settings(TRAVEL_CLAIMS_ERASE_AFTER_SECONDS=60)
    erasure.erase_some()
    assert is_erased(claim_id)


def test_it_happens_once() -> None:
    claim_id = filed()
    assert [erasure.erase_some()[0] for _ in range(2)] == [1, 0]
    assert events(claim_id) == ["erased"]


def test_it_goes_batch_by_batch_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "BATCH", 2)
    ids = [filed(final_for=(31 + age) * DAYS, at=f"1{age}:00") for age in range(5)]
    assert erasure.erase_some() == (2, True)
    assert [is_erased(one) for one in ids] == [False, False, False, True, True]
    assert [erasure.erase_some() for _ in range(2)] == [(2, True), (1, False)]


# What is still under way.


@pytest.mark.parametrize(
    ("table", "state", "reason"), [(Notification, N.SKIPPED, "data-erased"), (ClaimCallback, B.UNDELIVERED, None)]
)
@pytest.mark.parametrize("in_doubt", [False, True])
def test_what_is_still_pending_ends_with_it(table: type[Any], state: str, reason: str | None, in_doubt: bool) -> None:
    claim_id = filed()
    pending = child(claim_id, table, N.PENDING, in_doubt=in_doubt)
    erasure.erase_some()
    ended = got(table, pending)
    assert (ended.state, ended.due_at, ended.fence) == (state, None, 1)
    assert getattr(ended, "reason", None) == reason
    assert is_erased(claim_id)
    with db.transaction() as session:
        move = session.execute(select(Move).where(Move.workflow_id == pending)).scalar_one()
    assert (move.of, move.to, move.actor, move.reason) == ("pending", state, "timer", "data-erased")


def test_what_a_worker_holds_is_left_for_the_next_round() -> None:
    busy, idle = filed(), filed(at="11:00")
    text_id = child(busy, Notification, N.PENDING)
    with db.transaction() as session:
        assert workflows.take(
            session, "notification", text_id, among={N.PENDING}, release="test", worker=new_id(), lease=60
        )
    assert erasure.erase_some() == (1, False)
    assert (is_erased(busy), is_erased(idle), got(Notification, text_id).phone) == (False, True, PHONE)


def test_a_text_that_is_taken_at_the_last_moment_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    claim_id = filed()
    text_id = child(claim_id, Notification, N.PENDING)
    read = workflows.read

    def read_then_taken(session: db.Session, workflow_id: UUID) -> Any:
        seen = read(session, workflow_id)
        with db.transaction() as another:
            workflows.take(
                another, "notification", workflow_id, among={N.PENDING}, release="test", worker=new_id(), lease=60
            )
        return seen

    monkeypatch.setattr(workflows, "read", read_then_taken)
    assert erasure.erase_some() == (0, False)
    assert (is_erased(claim_id), got(Notification, text_id).state) == (False, N.PENDING)


def test_a_claim_that_somebody_else_holds_is_passed_over() -> None:
    held, free = filed(), filed(at="11:00")
    with db.transaction() as session:
        session.execute(text("SELECT 1 FROM workflows WHERE id = :id FOR UPDATE"), {"id": held})
        assert erasure.erase_some() == (1, False)
    assert (is_erased(held), is_erased(free)) == (False, True)


# Retry.


def test_an_erased_claim_is_not_retried() -> None:
    claim_id = filed(state=C.FAILED)
    erasure.erase_some()
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "data-erased"
    assert got(Claim, claim_id).state == C.FAILED


def test_a_retry_that_read_the_claim_before_it_was_erased_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    claim_id = filed(state=C.FAILED)
    load = claims.load

    def load_then_erased(session: db.Session, id: UUID) -> Claim:
        found = load(session, id)
        erasure.erase_some()
        return found

    monkeypatch.setattr(claims, "load", load_then_erased)
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "data-erased"


def test_a_retried_claim_is_erased_only_when_it_is_final_again() -> None:
    claim_id = filed(state=C.FAILED)
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "done"
    erasure.erase_some()
    assert not is_erased(claim_id)


# The job.


def test_the_job_runs_to_the_end_once_per_tick(sweeps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "BATCH", 1)
    ids = [filed(at=f"1{number}:00") for number in range(3)]
    with time_machine.travel(datetime.fromisoformat("2026-05-01T10:27:31+00:00"), tick=False):
        sweeps.erasure()
        assert all(map(is_erased, ids))
        late = filed(at="15:00")
        sweeps.erasure()
        assert not is_erased(late)
    with db.transaction() as session:
        due = [tick.due_at.isoformat() for tick in session.execute(select(Tick).order_by(Tick.due_at)).scalars()]
    assert due == ["2026-05-01T10:20:00+00:00", "2026-05-01T10:30:00+00:00"]  # the nearest, and the one before
    with time_machine.travel(datetime.fromisoformat("2026-05-01T10:40:00+00:00"), tick=False):
        sweeps.erasure()
    assert is_erased(late)


def test_a_round_is_bounded(sweeps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "BATCH", 1)
    monkeypatch.setattr(sweeps, "ERASURE_BATCHES", 2)
    ids = [filed(at=f"1{number}:00") for number in range(3)]
    sweeps.erasure()
    assert sum(map(is_erased, ids)) == 2


def test_beat_knows_the_job(sweeps: Any) -> None:
    assert importlib.import_module("tasks.beat").SCHEDULE["erasure"]["task"] in sweeps.queue.celery().tasks
