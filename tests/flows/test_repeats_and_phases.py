"""What only some lines ask of the engine: calls that are repeated instead of looked for, a rule of the line's own for
sending, states that show how far a step is, and work that is kept for the workers of a release."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import db, states
from app.db import Session
from app.flows import engine, lines, sweep, worker
from app.flows.flow import Ending, Flow
from app.models.orm import new_id
from app.models.voucher import VoucherOperation
from app.steps import Ended, Nothing, Ok, Rejected, Retry, Step, Unknown
from app.store import due, releases, workers, workflows
from tests.flows.conftest import LATER, LOST, NO, POLICY, S, Script, make, perform, row, seen, shift, write
from tests.store.conftest import history, workflow

V = states.VoucherOperation


# Calls that are repeated


@pytest.fixture
def repeats(script: Script, flow_of: Any) -> Script:
    """The first step has no find."""
    first, *others = lines.FLOWS["claim"].steps
    flow_of(steps=(replace(first, find=None), *others))
    return script


def test_a_lost_call_is_repeated_after_the_ordinary_back_off(repeats: Script) -> None:
    repeats.answers["create.do"] = [Unknown(failure=LOST), Unknown(failure=LOST), Ok()]
    claim = make()
    for tries, wait in ((1, 5), (2, 15)):
        assert perform(claim) is False
        after = row(claim)
        assert (after.attempt, after.in_doubt) == (tries, True)
        assert not perform(claim), "not before its time"
        shift(claim, wait * 1.2)
    assert perform(claim) is True
    after = row(claim)
    assert (after.state, after.in_doubt, after.attempt) == (S.CREATED, False, 0)
    assert repeats.done == ["create.do"] * 3


@pytest.mark.parametrize("second", [Retry(failure=LATER), Retry(failure=LATER, free=True, after=1)])
def test_a_repeat_without_effect_says_nothing_of_the_call_before(repeats: Script, second: Retry) -> None:
    repeats.answers["create.do"] = [Unknown(failure=LOST), second, Rejected(failure=NO)]
    claim = make()
    for _ in range(3):
        perform(claim)
        shift(claim, 60)
    after = row(claim)
    assert (after.state, after.in_doubt, after.error["code"]) == (S.FAILED, True, "rejected")


def test_a_refusal_leaves_no_doubt_where_nothing_was_lost(repeats: Script) -> None:
    repeats.answers["create.do"] = [Retry(failure=LATER), Rejected(failure=NO)]
    claim = make()
    perform(claim)
    shift(claim, 60)
    perform(claim)
    assert (row(claim).state, row(claim).in_doubt) == (S.FAILED, False)


def test_a_call_in_doubt_is_repeated_although_a_cancel_is_asked_for(repeats: Script) -> None:
    repeats.answers["create.do"] = [Unknown(failure=LOST), Ok()]
    claim = make()
    perform(claim)
    write(claim, asked="cancel")
    shift(claim, 60)
    perform(claim)
    assert (row(claim).state, repeats.done) == (S.CREATED, ["create.do"] * 2)


# A line's own rule for sending


def test_what_the_line_says_about_a_call_is_stored_with_its_intent(script: Script, flow_of: Any) -> None:
    flow_of(clear=lambda session, record: {"expense_details": None, "run": record.run + 1})
    claim, during = make(), []
    script.answers["create.do"] = [lambda record, work: during.append((row(claim).run, record.run)) or Ok()]
    perform(claim)
    assert during == [(2, 2)]


def test_a_line_that_will_not_send_leaves_no_trace_of_an_intent(script: Script, flow_of: Any) -> None:
    def never(session: Session, record: Any) -> Any:
        raise Ended(Rejected(failure=NO))

    flow_of(clear=never)
    claim = make()
    perform(claim)
    after = row(claim)
    assert (after.state, after.in_doubt, after.intent, script.done) == (S.FAILED, False, None, [])


def test_the_line_is_not_asked_about_a_call_that_may_not_be_sent(script: Script, flow_of: Any) -> None:
    asked: list[Any] = []
    flow_of(clear=lambda session, record: asked.append(record) or {})
    claim = make()

    def cancel_first(_: Any, work: Any) -> Any:
        write(claim, asked="cancel")
        work.intend(1)

    script.answers["create.do"] = [cancel_first]
    script.effects = False
    perform(claim)
    assert (row(claim).state, asked) == (S.CANCELLED, [])


# States that show how far a step is


class Operation:
    """What the scripted flow loads."""

    def __init__(self, found: Any) -> None:
        self.asked, self.in_doubt, self.fence = found.asked, found.in_doubt, found.fence


@pytest.fixture
def phased(script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    step = Step(
        name="operate",
        of=V.QUEUED,
        to=V.SUCCEEDED,
        do=script.verb("do", effects=True),
        find=script.verb("find", effects=False),
    )
    flow = Flow(
        machine=states.VOUCHER_OPERATION,
        line="toy",
        table=VoucherOperation,
        steps=(step,),
        policy=lambda: replace(POLICY, find_after=0, attempts=None),
        load=lambda session, one: Operation(workflows.read(session, one)),
        held=lambda session, record: None,
        failed=lambda record, failure: Ending(state=V.UNRESOLVED if record.in_doubt else V.FAILED),
        asked=lambda record: Ending(state=V.FAILED),
        entered=lambda session, record, state: [],
        observed=lambda record, verdict: None,
    )
    monkeypatch.setattr(lines, "FLOWS", {**lines.FLOWS, "voucher-operation": flow})
    return script


def operation(**columns: Any) -> UUID:
    return workflow(kind="voucher-operation", **columns)


def operate(one: UUID) -> bool:
    return engine.perform("voucher-operation", "operate", one)


def way(one: UUID) -> list[str]:
    """The states that an operation went through."""
    return [to for _, to, *_ in history(one) if to]


def state_of(one: UUID) -> str:
    return seen(one).state


def test_the_state_shows_how_far_the_step_is(phased: Script) -> None:
    one = operation()
    phased.answers["do"] = [lambda record, work: Ok() if state_of(one) == V.CALLING else Retry(failure=LATER)]
    assert operate(one) is False  # nothing follows
    assert way(one) == [V.RUNNING, V.CALLING, V.SUCCEEDED]


def test_a_call_without_effect_goes_back_to_the_beginning(phased: Script) -> None:
    one = operation()
    phased.answers["do"] = [Retry(failure=LATER)]
    operate(one)
    assert (way(one), state_of(one)) == ([V.RUNNING, V.CALLING, V.QUEUED], V.QUEUED)


def test_a_lost_call_is_looked_for_and_settled_before_it_starts_over(phased: Script) -> None:
    one = operation()
    phased.answers |= {"do": [Unknown(failure=LOST)], "find": [Nothing(), Nothing()]}
    operate(one)
    assert way(one) == [V.RUNNING, V.CALLING, V.CHECKING]
    operate(one)
    assert state_of(one) == V.CHECKING, "not settled yet"
    shift(one, 61)
    operate(one)
    assert way(one)[3:] == [V.QUEUED]
    operate(one)
    assert way(one)[4:] == [V.RUNNING, V.CALLING, V.SUCCEEDED]
    assert phased.done == ["do", "find", "find", "do"]


def test_find_is_told_whether_seeing_nothing_counts(phased: Script) -> None:
    one, told = operation(), []

    def find(record: Any, work: Any) -> Any:
        told.append(work.settled)
        return Nothing()

    phased.answers |= {"do": [Unknown(failure=LOST)], "find": [find, find]}
    operate(one)
    operate(one)
    shift(one, 61)
    operate(one)
    assert told == [False, True]


@pytest.mark.parametrize(
    ("state", "doubt", "then"),
    [(V.RUNNING, False, V.QUEUED), (V.CALLING, True, V.CHECKING), (V.CHECKING, True, V.CHECKING)],
)
@pytest.mark.parametrize("how", ["sweep", "exit"])
def test_what_a_holder_leaves_behind_stands_where_nobody_is_at_it(
    phased: Script, state: str, doubt: bool, then: str, how: str
) -> None:
    holder = new_id()
    one = operation(state=state, in_doubt=doubt, worker=holder, intent={"step": "operate"} if doubt else None)
    with db.transaction() as session:
        if how == "sweep":
            session.execute(text("UPDATE workflows SET wake_at = wake_at - interval '1 minute'"))
            assert [(freed.state, freed.fence) for freed, _ in due.take_away(session, dead=4, gone=2)] == [(then, 1)]
        else:
            assert workers.let_go(session, holder) == 1
    assert (state_of(one), way(one)) == (then, [] if state == then else [then])


def test_a_deadline_that_passes_in_mid_call_ends_by_the_way_that_the_table_has(phased: Script) -> None:
    one = operation(deadline_at=workflows.NOW - workflows.seconds(1))
    phased.answers["do"] = [Retry(failure=LATER)]
    operate(one)
    assert way(one) == [V.RUNNING, V.CALLING, V.QUEUED, V.FAILED]


def test_the_third_death_in_a_call_leaves_it_unresolved(phased: Script, set_settings: Callable[..., None]) -> None:
    set_settings(LEASE_DEAD_SECONDS="0.2", LEASE_HEARTBEAT_SECONDS="0.05")
    holder = new_id()
    one = operation(state=V.CALLING, in_doubt=True, worker=holder, crashes=2, intent={"step": "operate"})
    with db.transaction() as session:
        workers.beat(session, holder, host="here", pid=1, release="test")
        session.execute(text("UPDATE workers SET beat_at = beat_at - interval '1 minute'"))
    sweep.sweep()
    assert way(one) == [V.CHECKING, V.UNRESOLVED]


# Work that is kept for a release


def test_what_was_replayed_for_a_release_waits_for_its_workers_ten_minutes(script: Script) -> None:
    claim = make(for_release="newer")
    assert perform(claim) is False
    shift(claim, workflows.KEPT_FOR_RELEASE - 5)
    assert perform(claim) is False
    shift(claim, 10)
    assert perform(claim) is True


def test_workers_of_that_release_take_it_at_once(script: Script) -> None:
    assert perform(make(for_release=worker.release())) is True


def test_a_release_is_known_from_its_first_start_on(database: None) -> None:
    with db.transaction() as session:
        assert [releases.announce(session, name) for name in ("one", "two", "one")] == ["one", "two", "one"]
    with db.transaction() as session:
        assert releases.newest(session) == "two"


def test_starts_without_a_name_share_one_for_a_minute(database: None) -> None:
    with db.transaction() as session:
        first, second = releases.announce(session, ""), releases.announce(session, "")
        assert first == second
        assert first.startswith("start-")
        session.execute(text("UPDATE releases SET seen_at = seen_at - interval '61 seconds'"))
        assert releases.announce(session, "") != first
