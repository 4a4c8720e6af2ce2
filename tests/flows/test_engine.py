"""The engine over a scripted line: what follows each outcome, and what must not follow."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app import config, db, errors
from app.flows import engine, work
from app.models.claim import Claim
from app.models.orm import new_id
from app.steps import Call, Nothing, Ok, Rejected, Retry, Unknown
from app.store import workflows
from tests.flows.conftest import (
    LATER,
    LOST,
    NO,
    S,
    Script,
    make,
    moves,
    perform,
    row,
    seen,
    shift,
    take,
    write,
)


def due_in(workflow_id: Any) -> float:
    """Seconds until the row may run, by Postgres's clock."""
    found = row(workflow_id)
    assert found.due_at
    with db.transaction() as session:
        return (found.due_at - workflows.now(session)).total_seconds()


def test_ok_moves_the_row_frees_the_lease_and_lets_the_chain_go_on(script: Script) -> None:
    claim = make()
    assert perform(claim) is True
    after = row(claim)
    assert (after.state, after.worker, after.intent, after.in_doubt) == (S.CREATED, None, None, False)
    assert moves(claim) == [(S.APPOINTMENT_FOUND, S.CREATED)]
    assert perform(claim, "add") is False  # the last step: nothing follows
    assert row(claim).state == S.EXPENSED


def test_a_doubled_late_or_forged_message_does_nothing(script: Script) -> None:
    claim = make()
    assert perform(claim) is True
    assert perform(claim) is False
    assert perform(new_id()) is False
    assert script.done == ["create.do"]


def test_a_step_that_is_not_next_is_not_taken(script: Script) -> None:
    assert perform(make(), "add") is False
    assert script.done == []


def test_what_is_not_due_yet_is_not_taken(script: Script) -> None:
    claim = make()
    write(claim, due_at=row(claim).created_at + timedelta(hours=1))
    assert perform(claim) is False
    assert script.done == []


def test_a_held_row_is_not_taken(script: Script) -> None:
    claim = make()
    assert take(claim, by=new_id())
    assert perform(claim) is False


def test_retry_backs_off_and_counts_an_attempt(script: Script) -> None:
    script.answers["create.do"] = [Retry(failure=LATER)]
    claim = make()
    assert perform(claim) is False
    after = row(claim)
    assert (after.state, after.attempt, after.worker, after.in_doubt) == (S.APPOINTMENT_FOUND, 1, None, False)
    assert 1 < due_in(claim) < 6.5
    shift(claim, 10)
    assert perform(claim) is True
    assert row(claim).attempt == 0


def test_retry_waits_as_long_as_the_upstream_says_and_a_free_one_uses_no_attempt(script: Script) -> None:
    script.answers["create.do"] = [Retry(failure=LATER, after=120, free=True)]
    claim = make()
    perform(claim)
    assert row(claim).attempt == 0
    assert 100 < due_in(claim) < 121


def test_attempts_used_up_fail_the_row_with_the_last_failure(script: Script) -> None:
    script.answers["create.do"] = [Retry(failure=LATER)] * 3
    claim = make()
    for _ in range(3):
        perform(claim)
        shift(claim, 1_000)
    after = row(claim)
    assert after.state == S.FAILED
    assert after.error
    assert after.error["code"] == "upstream-unavailable"
    assert (after.due_at, after.wake_at, after.slot, after.attempt) == (None, None, None, 3)
    assert script.done == ["create.do"] * 3


def test_rejected_is_never_repeated(script: Script) -> None:
    script.answers["create.do"] = [Rejected(failure=NO)]
    claim = make()
    perform(claim)
    after = row(claim)
    assert (after.state, after.in_doubt) == (S.FAILED, False)
    assert after.error == {
        "step": "create", "httpStatus": 422, "code": "rejected", "message": "No.", "retryable": True, "attempt": 1,
    }  # fmt: skip


def test_unknown_keeps_its_doubt_and_find_runs_before_do_may(script: Script) -> None:
    script.answers["create.do"] = [Unknown(failure=LOST)]
    script.answers["create.find"] = [Ok()]
    claim = make()
    perform(claim)
    doubted = row(claim)
    assert doubted.in_doubt
    assert doubted.intent["step"] == "create"
    assert 1 < due_in(claim) < 6
    shift(claim, 6)
    assert perform(claim) is True
    assert script.done == ["create.do", "create.find"]
    assert row(claim).in_doubt is False


def test_a_find_that_saw_nothing_counts_only_from_the_settle_time_on(script: Script) -> None:
    script.answers["create.do"] = [Unknown(failure=LOST)]
    script.answers["create.find"] = [Nothing(), Nothing()]
    claim = make()
    perform(claim)
    shift(claim, 6)
    perform(claim)
    assert script.done == ["create.do", "create.find"]
    assert 40 < due_in(claim) < 55
    shift(claim, 56)
    assert perform(claim) is True
    assert script.done == ["create.do", "create.find", "create.find", "create.do"]


def test_a_find_begun_before_the_settle_time_does_not_count_however_late_it_ends(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = make()
    clock = workflows.now

    def slow(record: Any, work_: Any) -> Nothing:
        monkeypatch.setattr(workflows, "now", lambda session: clock(session) + timedelta(seconds=100))
        return Nothing()

    script.answers["create.do"] = [Unknown(failure=LOST)]
    script.answers["create.find"] = [slow]
    perform(claim)
    shift(claim, 6)
    perform(claim)
    assert script.done == ["create.do", "create.find"]
    assert row(claim).in_doubt


def test_attempts_used_up_after_unknown_are_settled_once_more_before_giving_up(script: Script) -> None:
    script.answers["create.do"] = [Unknown(failure=LOST)] * 3
    script.answers["create.find"] = [Nothing()] * 3
    claim = make()
    for _ in range(3):
        perform(claim)
        shift(claim, 100)
    assert row(claim).state == S.APPOINTMENT_FOUND
    perform(claim)
    after = row(claim)
    assert (after.state, after.in_doubt) == (S.FAILED, False)
    assert after.error
    assert after.error["code"] == "upstream-timeout"


def test_a_find_that_fails_itself_keeps_the_doubt_and_backs_off_without_using_attempts(script: Script) -> None:
    script.answers["create.do"] = [Unknown(failure=LOST)]
    script.answers["create.find"] = [Retry(failure=LATER)] * 5
    claim = make()
    perform(claim)
    for _ in range(5):
        shift(claim, 1_000)
        perform(claim)
    after = row(claim)
    assert (after.state, after.in_doubt, after.attempt) == (S.APPOINTMENT_FOUND, True, 1)


def test_a_find_that_cannot_tell_until_the_deadline_fails_with_the_doubt_kept(script: Script) -> None:
    script.answers["create.do"] = [Unknown(failure=LOST)]
    script.answers["create.find"] = [Retry(failure=LATER)]
    claim = make()
    write(claim, deadline_at=row(claim).created_at + timedelta(hours=1))
    perform(claim)
    shift(claim, 4_000)
    perform(claim)
    after = row(claim)
    assert (after.state, after.in_doubt) == (S.FAILED, True)
    assert after.error
    assert (after.error["code"], after.error["httpStatus"]) == ("outcome-unknown", 504)


def test_the_deadline_ends_waiting_with_one_last_attempt(script: Script) -> None:
    script.answers["create.do"] = [Retry(failure=LATER, after=3_600, free=True)] * 2
    claim = make()
    write(claim, deadline_at=row(claim).created_at + timedelta(minutes=10))
    perform(claim)
    assert due_in(claim) < 601
    shift(claim, 601)
    perform(claim)
    assert row(claim).state == S.FAILED
    assert script.done == ["create.do"] * 2


def test_a_step_goes_on_in_the_same_state_until_it_is_complete(script: Script, flow_of: Any) -> None:
    claim = make(state=S.CREATED)
    pieces = iter([False, False, True])
    first, second, back = engine.lines.FLOWS["claim"].steps
    flow_of(steps=(first, engine.replace(second, complete=lambda record: next(pieces)), back))
    assert perform(claim, "add") is False
    assert script.done == ["add.do"] * 3
    assert row(claim).state == S.EXPENSED


def test_values_are_stored_with_whatever_outcome(script: Script) -> None:
    script.answers["create.do"] = [Retry(failure=LATER, values={"status": "seen"})]
    claim = make()
    perform(claim)
    found = row(claim)
    assert isinstance(found, Claim)
    assert found.status == "seen"


def test_an_error_of_our_own_before_the_call_is_retried_and_after_it_is_in_doubt(script: Script) -> None:
    def bug(record: Any, work_: Any) -> Ok:
        raise ZeroDivisionError

    script.answers["create.do"] = [bug]
    claim = make()
    perform(claim)
    assert row(claim).in_doubt  # the scripted verb had announced its call
    script.answers["rollback.do"] = [bug]
    undoing = make(state=S.ROLLING_BACK)
    perform(undoing, "rollback")
    after = row(undoing)
    assert (after.in_doubt, after.attempt, after.worker) == (False, 1, None)


@pytest.mark.parametrize("intended", [False, True])
def test_a_postgres_that_is_away_during_a_verb_uses_no_attempt_and_is_no_error_of_ours(
    script: Script, intended: bool
) -> None:
    def away(record: Any, work_: Any) -> Ok:
        raise OperationalError("UPDATE", {}, Exception("the connection is closed"))

    script.effects = intended
    script.answers["create.do"] = [away]
    claim = make()
    perform(claim)
    after = row(claim)
    assert (after.in_doubt, after.attempt, after.worker) == (intended, int(intended), None)
    assert not intended or after.intent["failure"]["code"] == "upstream-timeout"


# Counterexamples of the model, one for each rule and mutation


def test_a_call_not_sent_within_two_seconds_of_its_intent_is_not_sent(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([0.0, 0.0, 2.1, 2.1, 2.1, 2.1])
    monkeypatch.setattr(work, "_boottime", lambda: next(ticks))
    claim = make()
    perform(claim)
    after = row(claim)
    assert script.done == []
    assert (after.in_doubt, after.attempt, after.worker) == (False, 0, None)


def test_the_two_seconds_are_counted_from_before_the_intent_is_written(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [0.0]
    intend = workflows.intend

    def slow(*args: Any, **kwargs: Any) -> bool:
        stored = intend(*args, **kwargs)
        moment[0] += 3
        return stored

    monkeypatch.setattr(work, "_boottime", lambda: moment[0])
    monkeypatch.setattr(workflows, "intend", slow)
    claim = make()
    perform(claim)
    assert script.done == []


def test_who_moves_without_the_lease_guards_on_the_doubt_as_read(script: Script) -> None:
    claim = make()
    api = seen(claim)
    mine = take(claim)
    assert mine
    write(claim, fence=api.fence)  # even if the fence told nothing
    with db.transaction() as session:
        assert workflows.intend(session, api, {"step": "create", "index": 0}, lease=65, anyway=False)
    with db.transaction() as session:
        assert not workflows.move(session, api, S.CANCELLED, actor="client", holder=False)
        assert not workflows.ask(session, api, "cancel")
    assert row(claim).state == S.APPOINTMENT_FOUND


def test_a_stopped_holder_that_wakes_up_hits_nothing(script: Script) -> None:
    claim = make()

    def taken_away(record: Any, work_: Any) -> Ok:
        write(claim, worker=None, fence=row(claim).fence + 1)
        return Ok(values={"status": "written by a zombie"})

    script.answers["create.do"] = [taken_away]
    assert perform(claim) is False
    after = row(claim)
    assert isinstance(after, Claim)
    assert (after.state, after.status, after.in_doubt) == (S.APPOINTMENT_FOUND, None, True)
    assert moves(claim) == []


def test_a_zombie_cannot_announce_a_call(script: Script) -> None:
    claim = make()
    old = take(claim)
    assert old
    write(claim, worker=None)
    assert take(claim, by=new_id())
    with db.transaction() as session:
        assert not workflows.intend(session, old, {"step": "create"}, lease=65, anyway=False)


def test_the_intent_is_committed_before_the_call(script: Script) -> None:
    claim = make()
    stored: list[bool] = []

    def look(record: Any, work_: Any) -> Ok:
        stored.append(row(claim).in_doubt)
        return Ok()

    script.answers["create.do"] = [look]
    perform(claim)
    assert stored == [True]


def test_no_call_is_announced_once_a_cancel_is_asked_for(script: Script) -> None:
    claim = make()

    def asked_meanwhile(record: Any, work_: Any) -> Ok:
        return Ok()

    mine = take(claim)
    assert mine
    with db.transaction() as session:
        assert workflows.ask(session, seen(claim), "cancel")
        assert not workflows.intend(session, mine, {"step": "create"}, lease=65, anyway=False)


def test_a_cancel_asked_during_a_call_stops_the_next_step(script: Script) -> None:
    claim = make()

    def ask(record: Any, work_: Any) -> Ok:
        with db.transaction() as session:
            assert workflows.ask(session, seen(claim), "cancel")
        return Ok()

    script.answers["create.do"] = [ask]
    assert perform(claim) is True
    assert row(claim).state == S.CREATED
    perform(claim, "add")
    assert row(claim).state == S.CANCELLED
    assert script.done == ["create.do"]


def test_a_cancel_asked_during_a_call_that_ends_in_retry_comes_at_once(script: Script) -> None:
    claim = make()

    def ask(record: Any, work_: Any) -> Retry:
        with db.transaction() as session:
            assert workflows.ask(session, seen(claim), "cancel")
        return Retry(failure=LATER)

    script.answers["create.do"] = [ask]
    perform(claim)
    assert due_in(claim) <= 0
    perform(claim)
    assert row(claim).state == S.CANCELLED
    assert script.done == ["create.do"]


def test_a_cancel_waits_for_the_find_of_a_call_in_doubt(script: Script) -> None:
    script.answers["create.do"] = [Unknown(failure=LOST)]
    claim = make()
    perform(claim)
    with db.transaction() as session:
        assert workflows.ask(session, seen(claim), "cancel")
    shift(claim, 6)
    assert perform(claim) is True
    perform(claim, "add")
    assert script.done == ["create.do", "create.find"]
    assert row(claim).state == S.CANCELLED


def test_undoing_is_not_stopped_by_a_cancel(script: Script) -> None:
    claim = make(state=S.ROLLING_BACK, rollback=True)
    with db.transaction() as session:
        workflows.ask(session, seen(claim), "cancel")
    perform(claim, "rollback")
    assert row(claim).state == S.ROLLED_BACK


def test_a_doubt_is_settled_by_the_find_of_its_step_before_undo(script: Script) -> None:
    intent = {"step": "create", "index": 0, "verb": "do"}
    claim = make(state=S.ROLLING_BACK, rollback=True, in_doubt=True, intent=intent)
    write(claim, intent={**intent, "at": row(claim).created_at.isoformat()})
    perform(claim, "rollback")
    assert script.done == ["create.find", "rollback.do"]
    assert row(claim).state == S.ROLLED_BACK


def test_a_held_line_waits_uses_no_attempt_and_keeps_its_deadline_away(script: Script, flow_of: Any) -> None:
    claim = make()
    write(claim, deadline_at=row(claim).created_at + timedelta(hours=1))
    before = row(claim).deadline_at
    flow_of(held=lambda session, record: "off")
    perform(claim)
    after = row(claim)
    hold = config.settings().hold_seconds
    assert script.done == []
    assert (after.attempt, after.worker) == (0, None)
    assert hold - 9 < due_in(claim) <= hold
    assert after.deadline_at - before == timedelta(seconds=hold)


def test_an_illegal_move_is_refused(script: Script) -> None:
    claim = make()
    with db.transaction() as session, pytest.raises(errors.IllegalMove):
        workflows.move(session, seen(claim), S.SUBMITTED, actor="worker")


def test_an_undo_may_announce_its_calls_although_a_cancel_is_asked_for(script: Script) -> None:
    claim = make(state=S.ROLLING_BACK, rollback=True, asked="cancel")
    mine = take(claim, state=S.ROLLING_BACK)
    assert mine
    with db.statements() as session:
        assert workflows.intend(session, mine, {"step": "rollback"}, lease=65, anyway=True)


def test_a_move_by_the_api_takes_the_right_to_write_from_the_holder(script: Script) -> None:
    claim = make(rollback=True)
    mine = take(claim)
    assert mine
    with db.transaction() as session:
        assert workflows.move(session, seen(claim), S.ROLLING_BACK, actor="client", holder=False)
    assert row(claim).fence == mine.fence + 1


def test_a_call_that_was_let_through_before_another_was_held_back_is_in_doubt(script: Script) -> None:
    def limited(record: Any, work_: Any) -> Ok:
        raise errors.NotSent("limiter", after=3)

    script.answers["create.do"] = [limited]
    claim = make()
    perform(claim)
    assert row(claim).in_doubt
    assert row(claim).attempt == 1


def test_a_call_held_back_before_anything_was_sent_uses_no_attempt(script: Script) -> None:
    def limited(record: Any, work_: Any) -> Ok:
        raise errors.NotSent("limiter", after=30)

    script.answers["rollback.do"] = [limited]
    claim = make(state=S.ROLLING_BACK)
    perform(claim, "rollback")
    after = row(claim)
    assert (after.in_doubt, after.attempt, after.worker) == (False, 0, None)
    assert 20 < due_in(claim) < 31


def test_the_calls_of_a_holder_that_lost_its_lease_stay_in_the_timeline(script: Script) -> None:
    claim = make()

    def zombie(record: Any, work_: Any) -> Ok:
        work_.note(Call(upstream="u", name="create", method="POST", path="x", status=200, outcome="ok", milliseconds=1))
        write(claim, worker=None, fence=row(claim).fence + 1)
        return Ok()

    script.answers["create.do"] = [zombie]
    perform(claim)
    with db.statements() as session:
        assert [entry["actor"] for entry in workflows.timeline(session, claim)] == ["u"]


@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        ("breaker", "deadline-exceeded", 504),
        ("limiter", "deadline-exceeded", 504),
        ("rate-limited", "rate-limited", 429),
    ],
)
def test_a_deadline_that_passes_while_waiting_names_what_was_waited_for(
    script: Script, reason: str, code: str, status: int
) -> None:
    def held_back(record: Any, work_: Any) -> Ok:
        raise errors.NotSent(reason, after=30)

    script.answers["create.do"] = [held_back]
    claim = make()
    write(claim, deadline_at=row(claim).created_at)
    script.effects = False
    perform(claim)
    after = row(claim)
    assert after.state == S.FAILED
    assert (after.error["code"], after.error["httpStatus"]) == (code, status)


def test_undo_has_attempts_of_its_own(script: Script) -> None:
    script.answers["create.do"] = [Retry(failure=LATER)] * 3
    script.answers["rollback.do"] = [Retry(failure=LATER)] * 2
    claim = make(rollback=True)
    for _ in range(3):
        perform(claim)
        shift(claim, 1_000)
    assert (row(claim).state, row(claim).attempt, row(claim).error["attempt"]) == (S.ROLLING_BACK, 0, 3)
    for _ in range(3):
        perform(claim, "rollback")
        shift(claim, 1_000)
    assert row(claim).state == S.ROLLED_BACK


def test_an_error_outside_of_any_verb_is_tried_again_later_and_later(script: Script, flow_of: Any) -> None:
    def broken(session: Any, record: Any) -> None:
        raise ValueError("this row cannot be read")

    flow_of(held=broken)
    claim = make()
    waits = []
    for tries in (1, 2, 3):
        assert perform(claim) is False
        after = row(claim)
        assert (after.worker, after.attempt) == (None, tries)
        waits.append(due_in(claim))
        shift(claim, waits[-1] + 1)
    assert waits[0] < waits[1] < waits[2]
    assert script.done == []


def test_the_calls_before_a_cancel_stopped_the_step_stay_in_the_timeline(script: Script) -> None:
    claim = make()

    def looks_first(_: Any, work: Any) -> Any:
        work.note(Call(upstream="u", name="read", method="GET", path="x", status=200, outcome="ok", milliseconds=1))
        write(claim, asked="cancel")
        work.intend(0)

    script.effects = False
    script.answers["create.do"] = [looks_first]
    perform(claim)
    assert row(claim).state == S.CANCELLED
    with db.transaction() as session:
        assert next(entry["what"] for entry in workflows.timeline(session, claim)) == "create do"
