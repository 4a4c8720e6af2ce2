"""Cancel and retry: what they stop, what they start again, and that nothing slips between."""

from typing import Any
from uuid import UUID

import pytest

from app import db, states
from app.flows import claim_requests, engine
from app.store import workflows
from sandbox import Sandbox
from tests.flows.conftest import moves, row, seen, take
from tests.flows.test_claims import MILEAGE, PARKING, accept, carry, effects, texts_of

S = states.Claim


def advance(claim_id: UUID, *, to: str) -> None:
    """Run it step by step until it is there."""
    while row(claim_id).state != to:
        step = engine.lines.FLOWS["claim"].step_in(row(claim_id).state)
        assert step
        assert engine.perform("claim", step.name, claim_id)


@pytest.mark.parametrize("state", [S.ACCEPTED, S.AUTHORIZED, S.APPOINTMENT_FOUND, S.CREATED, S.EXPENSED])
def test_a_claim_is_cancelled_at_once_while_no_call_is_in_flight(quick: None, upstreams: Sandbox, state: str) -> None:
    claim_id = accept()
    advance(claim_id, to=state)
    calls = len(upstreams.calls())
    assert claim_requests.cancel(claim_id) == "done"
    engine.run(claim_id)
    after = row(claim_id)
    assert (after.state, after.slot, len(upstreams.calls())) == (S.CANCELLED, None, calls)
    assert texts_of(claim_id) == []
    assert claim_requests.cancel(claim_id) == "done"


def test_a_cancel_during_a_call_waits_for_its_end_and_nothing_follows(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("create-claim", "drop-after", times=1)
    claim_id = accept()
    advance(claim_id, to=S.APPOINTMENT_FOUND)
    engine.run(claim_id)
    assert row(claim_id).in_doubt
    assert claim_requests.cancel(claim_id) == "asked"
    assert claim_requests.cancel(claim_id) == "asked"
    done = carry(claim_id)
    assert (done.state, done.asked, done.claim_id is not None) == (S.CANCELLED, "cancel", True)
    assert (effects(upstreams)["claims"], effects(upstreams)["expenses"]) == (1, 0)


def test_a_submit_in_doubt_is_not_cancellable(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "drop-after", times=1)
    claim_id = accept()
    advance(claim_id, to=S.EXPENSED)
    engine.run(claim_id)
    assert claim_requests.cancel(claim_id) == "refused"
    assert carry(claim_id).state == S.SUBMITTED
    assert claim_requests.cancel(claim_id) == "refused"


def test_a_cancel_with_rollback_undoes_what_was_made(quick: None, upstreams: Sandbox) -> None:
    claim_id = accept(rollback=True, details=[MILEAGE, PARKING])
    advance(claim_id, to=S.EXPENSED)
    assert claim_requests.cancel(claim_id) == "done"
    assert row(claim_id).state == S.ROLLING_BACK
    assert claim_requests.cancel(claim_id) == "done"
    done = carry(claim_id)
    assert (done.state, done.rollback_result) == (S.CANCELLED, "partial")
    assert effects(upstreams)["deletions"] == 2
    assert texts_of(claim_id) == []


def test_a_holder_that_was_cancelled_away_sends_nothing(quick: None, upstreams: Sandbox) -> None:
    claim_id = accept()
    advance(claim_id, to=S.APPOINTMENT_FOUND)
    mine = take(claim_id)
    assert mine
    assert claim_requests.cancel(claim_id) == "done"
    with db.statements() as session:
        assert not workflows.intend(session, mine, {"step": "create_claim"}, lease=60, anyway=False)


def test_what_is_rolling_back_after_a_failure_is_not_cancellable(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=400)
    upstreams.fault("delete-expense", "status", status=500)
    claim_id = accept(rollback=True)
    engine.run(claim_id)
    assert row(claim_id).state == S.ROLLING_BACK
    assert claim_requests.cancel(claim_id) == "refused"


def test_a_cancel_that_read_an_old_row_reads_again(
    quick: None,
    upstreams: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim_id = accept()
    advance(claim_id, to=S.APPOINTMENT_FOUND)
    old = seen(claim_id)
    advance(claim_id, to=S.CREATED)
    read, given = workflows.read, iter([old])
    monkeypatch.setattr(workflows, "read", lambda session, found: next(given, None) or read(session, found))
    assert claim_requests.cancel(claim_id) == "done"
    assert moves(claim_id)[-1] == (S.CREATED, S.CANCELLED)


def failed(upstreams: Sandbox, **more: Any) -> UUID:
    fault = upstreams.fault("add-expense", "status", status=422)
    claim_id = accept(**more)
    assert carry(claim_id).state == S.FAILED
    upstreams.clear_faults(fault)
    return claim_id


def test_a_retry_goes_on_where_the_claim_failed(quick: None, upstreams: Sandbox) -> None:
    claim_id = failed(upstreams)
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "done"
    again = row(claim_id)
    assert (again.state, again.run, again.attempt, again.error, again.failed_in) == (S.CREATED, 2, 0, None, None)
    assert again.slot
    assert carry(claim_id).state == S.SUBMITTED
    assert len(upstreams.calls(call="create-claim")) == 1
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "not-retryable"


def test_a_text_that_had_not_gone_out_is_withdrawn_and_the_new_outcome_told(quick: None, upstreams: Sandbox) -> None:
    claim_id = failed(upstreams)
    claim_requests.retry(claim_id, notify=False, actor="client")
    carry(claim_id)
    told = {(text.template, text.state, text.reason) for text in texts_of(claim_id)}
    assert told == {("error", "skipped", "withdrawn"), ("success", "pending", None)}


@pytest.mark.parametrize(("notify", "texts"), [(False, 1), (True, 2)])
def test_a_text_that_had_gone_out_is_corrected_only_when_asked_for(
    quick: None,
    upstreams: Sandbox,
    notify: bool,
    texts: int,
) -> None:
    claim_id = failed(upstreams)
    carry(texts_of(claim_id)[0].id)
    claim_requests.retry(claim_id, notify=notify, actor="client")
    carry(claim_id)
    assert len(texts_of(claim_id)) == texts


def test_a_text_in_doubt_counts_as_gone_out(quick: None, upstreams: Sandbox) -> None:
    upstreams.fault("send-sms", "drop-before", times=1)
    claim_id = failed(upstreams)
    (text,) = texts_of(claim_id)
    engine.run(text.id)
    assert row(text.id).in_doubt
    claim_requests.retry(claim_id, notify=False, actor="client")
    assert row(text.id).state == "pending"
    carry(claim_id)
    assert len(texts_of(claim_id)) == 1


def test_a_newer_claim_for_the_visit_supersedes_a_failed_one(quick: None, upstreams: Sandbox) -> None:
    old = failed(upstreams)
    new = accept()
    assert new != old
    assert claim_requests.retry(old, notify=False, actor="client") == "superseded"
    assert row(old).state == S.FAILED
    assert claim_requests.cancel(new) == "done"
    assert claim_requests.retry(old, notify=False, actor="client") == "done"


def test_a_claim_whose_data_was_erased_is_not_retried(quick: None, upstreams: Sandbox) -> None:
    claim_id = failed(upstreams)
    with db.transaction() as session:
        workflows.save(session, engine.lines.FLOWS["claim"].table, claim_id, {"icn": None})
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "data-erased"


def test_a_step_that_failed_in_doubt_starts_with_find(
    quick: None,
    upstreams: Sandbox,
) -> None:
    upstreams.fault("create-claim", "drop-after", times=1)
    claim_id = accept()
    engine.run(claim_id)
    upstreams.fault("find-or-add", "status", status=404, times=1)
    found = carry(claim_id)
    assert (found.state, found.in_doubt) == (S.FAILED, True)
    assert claim_requests.retry(claim_id, notify=False, actor="operator") == "done"
    assert carry(claim_id).state == S.SUBMITTED
    assert effects(upstreams)["claims"] == 1
