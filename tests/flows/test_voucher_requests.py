"""Requests for changes beside a worker: withdrawing at each point of a call, and races under the voucher's lock."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from app import db
from app.flows import dispatch, engine, lines, voucher_requests
from app.flows import vouchers as flow
from app.flows.flow import Ending
from app.flows.voucher_changes import Change
from app.flows.voucher_requests import Asked
from app.models.orm import new_id
from app.models.workflow import Workflow
from app.store import voucher_operations, workflows
from app.store import vouchers as records
from app.store.workflows import NEVER
from sandbox import Sandbox
from tests.flows.conftest import moves, row
from tests.flows.voucher_play import SUB, client_id

CANCEL = Change(operation="cancel", subscription_id=SUB, parameters={"cancellationDate": None})
CREATE = Change(operation="create", subscription_id=SUB, parameters={"scheme": "GuardianSunday"})


@pytest.fixture(autouse=True)
def dispatched(database: None, monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    sent: list[UUID] = []
    monkeypatch.setattr(dispatch, "enqueue", sent.append)
    return sent


def asked(*, strict: bool = True, tie: Any = lambda session, operation_id: None) -> Asked:
    return Asked(client_id=client_id(), correlation_id="crm-1", urgent=True, strict=strict, tie=tie)


def refuse(_session: db.Session, operation_id: UUID) -> None:
    raise KeyError(operation_id)


def accepted(change: Change = CREATE, **more: Any) -> UUID:
    found = voucher_requests.submit(asked(**more), change)
    assert isinstance(found, UUID)
    return found


def change(operation_id: UUID, **columns: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Workflow.__table__).where(Workflow.__table__.c.id == operation_id).values(**columns))


def test_what_is_held_but_not_sent_is_withdrawn_and_its_holder_writes_nothing_more() -> None:
    operation_id = accepted()
    change(operation_id, state="running", worker=new_id(), fence=5)
    assert voucher_requests.withdraw(operation_id).status == 503
    found = row(operation_id)
    assert (found.state, found.outcome_code, found.worker, found.fence) == ("failed", "withdrawn", None, 6)


@pytest.mark.parametrize("state", ["calling", "checking"])
def test_what_was_sent_goes_on_only_to_learn_its_outcome(state: str, dispatched: list[UUID]) -> None:
    operation_id = accepted()
    change(operation_id, state=state, in_doubt=True)
    assert voucher_requests.withdraw(operation_id).status == 504
    assert voucher_requests.withdraw(operation_id).status == 504
    assert (row(operation_id).state, row(operation_id).asked) == (state, "withdraw")


def test_what_turned_out_to_have_had_no_effect_is_withdrawn_at_once() -> None:
    operation_id = accepted()
    change(operation_id, asked="withdraw")
    assert voucher_requests.withdraw(operation_id).status == 503


def test_what_is_final_is_answered_as_it_ended(upstreams: Sandbox) -> None:
    operation_id = accepted()
    engine.run(operation_id)
    told = voucher_requests.withdraw(operation_id)
    assert (told.status, told.operation_id, sorted(told.body)) == (201, operation_id, ["cardCode", "letterCode"])


def test_a_worker_that_begins_to_call_while_it_is_withdrawn_loses_or_wins_as_a_whole(upstreams: Sandbox) -> None:
    """Either nothing was sent and it is withdrawn, or it was sent and the caller is told that it is under way."""
    for at in range(6):
        change_at = Change(operation="create", subscription_id=f"{SUB}-{at}", parameters=CREATE.parameters)
        operation_id, barrier = accepted(change_at), threading.Barrier(2)

        def run(operation_id: UUID = operation_id, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            engine.run(operation_id)

        with ThreadPoolExecutor(1) as worker:
            done = worker.submit(run)
            barrier.wait()
            told = voucher_requests.withdraw(operation_id)
            done.result()
        sent = bool(upstreams.upstreams["imovo"].book.subscription(f"{SUB}-{at}"))  # type: ignore[attr-defined]
        assert (told.status == 503) != sent, told


def test_joining_and_withdrawing_at_once_never_withdraws_what_is_joined() -> None:
    for at in range(6):
        wanted = Change(operation="cancel", subscription_id=f"{SUB}-{at}", parameters=CANCEL.parameters)
        operation_id, barrier = accepted(wanted), threading.Barrier(2)

        def join(wanted: Change = wanted, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return voucher_requests.submit(asked(strict=False), wanted)

        with ThreadPoolExecutor(1) as other:
            joined = other.submit(join)
            barrier.wait()
            told = voucher_requests.withdraw(operation_id)
        is_same = joined.result() == operation_id
        assert (told.status, row(operation_id).state) == ((504, "queued") if is_same else (503, "failed"))


def test_joining_takes_an_operation_back_from_who_is_about_to_withdraw_it(upstreams: Sandbox) -> None:
    """Its call had no effect, and its holder has read that it was withdrawn when somebody joins."""
    for at in range(6):
        wanted = Change(operation="cancel", subscription_id=f"{SUB}-{at}", parameters=CANCEL.parameters)
        operation_id, begun, go_on = accepted(wanted), threading.Event(), threading.Event()
        change(operation_id, asked="withdraw")

        def asked_for(record: Any, begun: threading.Event = begun, go_on: threading.Event = go_on) -> Ending:
            begun.set()
            assert go_on.wait(60)
            return flow.asked(record)

        held = dataclasses.replace(flow.FLOW, asked=asked_for)
        with ThreadPoolExecutor(1) as worker, pytest.MonkeyPatch.context() as patch:
            patch.setattr(lines, "FLOWS", {**lines.FLOWS, held.machine.kind: held})
            done = worker.submit(engine.run, operation_id)
            assert begun.wait(60)
            if at % 2:
                go_on.set()  # both at once
            joined = voucher_requests.submit(asked(strict=False), wanted)
            go_on.set()
            done.result()
        assert at % 2 or joined == operation_id
        found = row(operation_id)
        if joined == operation_id:
            assert (found.state, found.asked, found.worker) == ("queued", None, None)
            assert moves(operation_id)[-2:] == [("queued", "running"), ("running", "queued")]
            engine.run(operation_id)
            assert row(operation_id).outcome_code == "not-live", "it goes on"
        else:
            assert found.outcome_code == "withdrawn"


def test_what_is_held_to_be_withdrawn_is_free_once_joined() -> None:
    operation_id = accepted()
    change(operation_id, asked="withdraw", state="running", worker=new_id(), fence=5, due_at=NEVER, wake_at=NEVER)
    assert voucher_requests.submit(asked(strict=False), CREATE) == operation_id
    found = row(operation_id)
    assert (found.state, found.worker, found.fence, found.asked) == ("queued", None, 6, None)
    with db.transaction() as session:
        assert max(found.due_at, found.wake_at) <= workflows.now(session)


@pytest.mark.parametrize("columns", [{"state": "checking", "in_doubt": True}, {"state": "running", "asked": None}])
def test_joining_leaves_to_its_holder_what_is_in_doubt_or_not_withdrawn(columns: dict[str, Any]) -> None:
    operation_id, holder = accepted(), new_id()
    change(operation_id, **{"asked": "withdraw", "worker": holder, "fence": 5, **columns})
    voucher_requests.submit(asked(strict=False), CREATE)
    found = row(operation_id)
    assert (found.state, found.worker, found.fence, found.asked) == (columns["state"], holder, 5, None)


def test_a_tie_that_fails_accepts_nothing() -> None:
    with pytest.raises(KeyError):
        accepted(tie=refuse)
    with db.transaction() as session:
        assert voucher_operations.newest_unfinished(session, SUB) is None
        assert records.load(session, SUB) is None


def test_a_create_owns_from_its_acceptance_and_no_longer_when_it_is_withdrawn() -> None:
    operation_id = accepted()
    with db.transaction() as session:
        found = records.load(session, SUB)
        assert found
        assert (found.client_id, found.state) == (client_id(), "requested")
    voucher_requests.withdraw(operation_id)
    with db.transaction() as session:
        found = records.load(session, SUB)
        assert found
        assert (found.client_id, found.state) == (None, None)


def test_the_repeat_of_what_came_to_nothing_runs_anew() -> None:
    operation_id = accepted()
    assert voucher_requests.resume(asked(tie=refuse), operation_id) == operation_id, "it is tied already"
    voucher_requests.withdraw(operation_id)
    assert voucher_requests.resume(asked(), operation_id) is None
