"""Creating vouchers, and how operations of a subscription follow one another. Contract 3.1, 3.2, 5.2."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import update

from app import db, metrics, states
from app.flows import sweep
from app.flows import vouchers as flow
from app.models.workflow import Workflow
from app.steps import Failure
from app.store import clients, voucher_queue, workflows
from app.store import vouchers as records
from app.store.voucher_operations import slot_of
from sandbox import Sandbox
from tests.flows import voucher_play as play
from tests.flows.conftest import moves, row, seen, write
from tests.flows.voucher_play import (
    SUB,
    asked,
    carry,
    carry_first,
    client_id,
    codes,
    create,
    jobs,
    live,
    made,
    plant,
    short,
)

__all__ = ["jobs", "short"]  # fixtures, used by their names
S = states.VoucherOperation
CREATE, GET = "create-voucher", "get-voucher"
LIVE_ALREADY = ["Unable to create vouchers: live subscription vouchers already exist for the supplied subscription ID"]


def test_a_voucher_is_made_and_its_codes_are_kept_and_told(upstreams: Sandbox) -> None:
    with time_machine.travel(datetime.fromisoformat("2025-03-10T09:00:00Z"), tick=False):
        done = carry(create())
        record = play.voucher()
        assert records.state_on(record, (), date(2025, 3, 10)) == "active"
    assert (done.state, done.outcome_code, done.sends) == (S.SUCCEEDED, "done", 1)
    assert done.answer == {"status": 201, "body": live(upstreams)}
    assert (codes(), record.scheme, record.client_id) == (live(upstreams), "Guardian7Day", client_id())
    start = {"SubscriptionId": SUB, "SchemeName": "Guardian7Day", "StartDate": "2025-03-11"}
    assert asked(upstreams, CREATE) == [start]
    assert moves(done.id) == [(None, "queued"), ("queued", "running"), ("running", "calling"), ("calling", "succeeded")]


def test_codes_stand_nowhere_in_the_clear(upstreams: Sandbox) -> None:
    carry(create())
    done = carry(play.replace())
    with db.transaction() as session:
        tables = ("workflows", "voucher_operations", "vouchers", "voucher_codes", "moves", "calls")
        every = "".join(str(session.connection().exec_driver_sql(f"SELECT * FROM {name}").all()) for name in tables)  # noqa: S608
    for code in (*done.answer["body"].values(), *done.baseline.values()):
        assert code not in every


def test_each_verb_and_each_end_is_told_without_codes(upstreams: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    ended = metrics.voucher_operations.labels("create", "done")._value
    before = ended.get()
    with caplog.at_level("INFO"):
        done = carry(create())
    told = {record.msg["event"]: record.msg for record in caplog.records if isinstance(record.msg, dict)}
    step = {name: told["vouchers.step"][name] for name in ("line", "subscription_id", "kind", "send", "class", "code")}
    assert step == {
        "line": "vouchers",
        "subscription_id": SUB,
        "kind": "create",
        "send": 1,
        "class": "ok",
        "code": None,
    }
    assert {"operation_id", "step", "verb", "upstream_status", "elapsed_ms", "client_id", "correlation_id"} < set(
        told["vouchers.step"]
    )
    assert (told["vouchers.ended"]["state"], told["vouchers.ended"]["code"]) == ("succeeded", "done")
    assert ended.get() == before + 1
    assert not [code for code in done.answer["body"].values() if code in caplog.text]


@pytest.mark.parametrize("lost", [{"fault": "drop-after"}, {"fault": "status", "status": 500, "effect": True}])
def test_a_lost_create_that_took_effect_is_found(upstreams: Sandbox, lost: dict[str, Any]) -> None:
    upstreams.fault(CREATE, **lost, times=1)
    done = carry_first(create())
    assert (done.state, done.answer["body"]) == (S.SUCCEEDED, live(upstreams))
    assert made(upstreams) == [CREATE, GET]
    assert moves(done.id)[-2:] == [("calling", "checking"), ("checking", "succeeded")]


@pytest.mark.parametrize("lost", [{"fault": "drop-before"}, {"fault": "status", "status": 503}, {"fault": "html"}])
def test_a_lost_create_without_effect_is_done_again_after_a_pause(upstreams: Sandbox, lost: dict[str, Any]) -> None:
    """At once nothing is repeated: an i-Movo that fails all creates would get nothing but creates and gets."""
    upstreams.fault(CREATE, **lost, times=1)
    waiting = carry_first(create())
    assert (waiting.state, waiting.lost_sends, waiting.in_doubt) == (S.QUEUED, 1, False)
    done = carry(waiting.id)
    assert (done.state, done.sends) == (S.SUCCEEDED, 2)
    assert made(upstreams) == [CREATE, GET, CREATE]
    assert upstreams.ledger()["totals"]["vouchers"] == 1


def test_a_find_that_fails_looks_again_and_creates_nothing(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "drop-after", times=1)
    upstreams.fault(GET, "status", status=500, times=2)
    done = carry(create())
    assert (done.state, made(upstreams)) == (S.SUCCEEDED, [CREATE, GET, GET, GET])


def test_a_find_that_is_refused_for_another_reason_creates_again(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "drop-before", times=1)
    upstreams.fault(GET, "refused", times=1)
    assert carry(create()).state == S.SUCCEEDED
    assert made(upstreams) == [CREATE, GET, CREATE]


def test_a_voucher_that_exists_only_at_imovo_is_adopted(upstreams: Sandbox) -> None:
    plant(upstreams, scheme="GUARDIAN7day")
    done = carry_first(create())
    assert (done.state, done.answer["body"]) == (S.SUCCEEDED, live(upstreams))
    assert made(upstreams) == [CREATE, GET]


def test_an_existing_voucher_of_another_plan_is_a_conflict(upstreams: Sandbox) -> None:
    plant(upstreams, scheme="GuardianWeekend")
    done = carry(create())
    message = f"Subscription {SUB} already has a voucher of scheme GuardianWeekend; Guardian7Day was asked for"
    assert (done.state, done.outcome_code) == (S.REJECTED, "plan-conflict")
    assert done.answer == {"status": 409, "body": {"message": message}}
    assert (play.voucher().state, play.voucher().client_id) == (None, None)


@pytest.mark.parametrize(("get", "text"), [("empty-list", "card and letter"), ("kind-missing", "letter")])
def test_an_existing_voucher_with_a_kind_missing_stays_open(upstreams: Sandbox, get: str, text: str) -> None:
    plant(upstreams)
    upstreams.fault(GET, get, times=1)
    done = carry(create())
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "incomplete-answer")
    message = f"i-Movo answered without a live {text} for subscription {SUB}"
    assert done.answer == {"status": 502, "body": {"message": message}}
    assert (play.voucher().state, done.in_doubt) == ("requested", True)


def test_an_exists_that_cannot_be_read_back_names_both_causes(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "refused", texts=LIVE_ALREADY, times=1)
    upstreams.fault(GET, "status", status=500, times=1)
    upstreams.fault(GET, "refused", texts=["Code 1234567 is locked"], times=1)
    done = carry(create())
    assert (done.state, done.outcome_code) == (S.REJECTED, "refused")
    text = f"i-Movo refused to create the voucher: {LIVE_ALREADY[0]}; reading it back: Code *** is locked"
    assert done.answer == {"status": 502, "body": {"message": text}}
    assert made(upstreams) == [CREATE, GET, GET]


@pytest.mark.parametrize("kind", ["card", "letter"])
def test_a_success_with_a_kind_missing_is_read_again(upstreams: Sandbox, kind: str) -> None:
    upstreams.fault(CREATE, "kind-missing", kind=kind, times=1)
    upstreams.fault(GET, "status", status=500, times=1)
    done = carry(create())
    assert (done.state, done.answer["body"]) == (S.SUCCEEDED, live(upstreams))
    assert made(upstreams) == [CREATE, GET, GET]


@pytest.mark.parametrize("get", ["inactive-only", "refused"])
def test_a_success_without_codes_that_stays_so_is_open(upstreams: Sandbox, get: str) -> None:
    upstreams.fault(CREATE, "inactive-only", times=1)
    upstreams.fault(GET, get, times=1)
    done = carry(create())
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "incomplete-answer")
    assert made(upstreams) == [CREATE, GET]


def test_a_success_of_another_scheme_is_looked_at(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "altered", members={"schemeName": "GuardianSunday"}, times=1)
    assert carry(create()).state == S.SUCCEEDED
    assert made(upstreams) == [CREATE, GET]


@pytest.mark.parametrize(
    "texts", [["No"], [], ["No live subscription vouchers exist"], ["conflicting holiday found between entered dates"]]
)
def test_a_refused_create_is_no_get_and_leaves_nothing(upstreams: Sandbox, texts: list[str]) -> None:
    upstreams.fault(CREATE, "refused", texts=texts, times=1)
    done = carry(create())
    assert (done.state, done.outcome_code, made(upstreams)) == (S.REJECTED, "refused", [CREATE])
    said = texts[0] if texts else "no reason given"
    assert done.answer["body"]["message"] == f"i-Movo refused to create the voucher: {said}"
    assert (play.voucher().state, play.voucher().client_id) == (None, None)


@pytest.mark.parametrize(("told", "tried", "least", "most"), [("40", 0, 35, 40), ("1", 5, 25, 39), ("0", 0, 0.7, 1.2)])
def test_a_definite_failure_waits_longer_each_time_and_no_less_than_told(
    upstreams: Sandbox, told: str, tried: int, least: float, most: float
) -> None:
    upstreams.fault(CREATE, "status", status=403, headers={"Retry-After": told}, times=1)
    operation = create()
    write(operation, attempt=tried)
    begun = workflow_now()
    waiting = play.once(operation)
    assert begun + timedelta(seconds=least) < waiting.due_at <= workflow_now() + timedelta(seconds=most)
    assert (waiting.state, waiting.in_doubt, waiting.attempt) == (S.QUEUED, False, tried + 1)


def test_without_effect_until_the_time_is_up_it_has_failed(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "refuse-401")
    operation = create()
    play.once(operation)
    write(operation, deadline_at=workflow_now())
    done = carry(operation)
    assert (done.state, done.outcome_code, done.answer["status"]) == (S.FAILED, "given-up", 503)
    assert play.voucher().state is None


def test_once_its_time_is_up_nothing_is_sent(upstreams: Sandbox) -> None:
    operation = create()
    write(operation, deadline_at=workflow_now())
    done = play.once(operation)
    assert (done.state, done.outcome_code, done.sends) == (S.FAILED, "given-up", 0)
    assert made(upstreams) == []


def test_what_is_in_doubt_is_sent_again_to_learn_its_outcome_after_its_time_too(upstreams: Sandbox) -> None:
    carry(create())
    upstreams.fault("cancel-voucher", "drop-after", times=1)
    operation = play.cancel(date(2099, 1, 1))
    play.once(operation)
    write(operation, deadline_at=workflow_now())
    assert (carry(operation).state, row(operation).sends) == (S.SUCCEEDED, 2)


def test_in_doubt_until_the_time_is_up_it_is_unresolved(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "drop-after")
    upstreams.fault(GET, "status", status=500)
    operation = create()
    play.once(operation)
    write(operation, deadline_at=workflow_now())
    done = carry(operation)
    assert (done.state, done.outcome_code, done.answer["status"]) == (S.UNRESOLVED, "outcome-unknown", 503)
    assert (play.voucher().state, done.in_doubt) == ("requested", True)


def test_an_exists_that_is_never_read_back_has_changed_nothing(upstreams: Sandbox) -> None:
    plant(upstreams)
    upstreams.fault(GET, "status", status=500)
    operation = create()
    play.once(operation)
    write(operation, deadline_at=workflow_now())
    done = carry(operation)
    assert (done.state, done.outcome_code) == (S.FAILED, "given-up")


def workflow_now() -> Any:
    with db.transaction() as session:
        return workflows.now(session)


def test_what_kept_crashing_is_open_only_where_a_call_is_in_doubt(upstreams: Sandbox) -> None:
    operation, crashed = play.row(create()), Failure(code="crashed", http_status=502, message="")
    assert flow.failed(operation, crashed).state == S.FAILED
    operation.in_doubt = True
    assert flow.failed(operation, crashed).state == S.UNRESOLVED


@pytest.mark.parametrize(("effect", "state"), [(True, S.SUCCEEDED), (False, S.FAILED)])
def test_a_withdrawn_create_in_doubt_goes_on_only_to_learn_the_outcome(
    upstreams: Sandbox, effect: bool, state: str
) -> None:
    upstreams.fault(CREATE, "status", status=500, effect=effect, times=1)
    operation = create()
    play.once(operation)
    with db.transaction() as session:
        assert workflows.ask(session, seen(operation), "withdraw")
    done = carry(operation)
    assert (done.state, made(upstreams).count(CREATE)) == (state, 1)
    assert done.outcome_code == ("done" if effect else "withdrawn")


def test_while_the_toggle_is_off_nothing_is_called(upstreams: Sandbox) -> None:
    operation = create()
    with db.transaction() as session:
        clients.set_toggle(session, "crm", "vouchers", on=False)
    assert play.once(operation).state == S.QUEUED
    assert (made(upstreams), row(operation).attempt) == ([], 0)


def test_no_call_goes_out_for_a_day_that_is_over(upstreams: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = create()
    loaded = flow.FLOW.load

    def yesterday(session: Any, operation_id: Any) -> Any:
        found = loaded(session, operation_id)
        found.begun_on = date(2020, 1, 1)
        return found

    monkeypatch.setattr("app.flows.lines.FLOWS", {flow.FLOW.machine.kind: _with(flow.FLOW, load=yesterday)})
    assert play.once(operation).state == S.QUEUED
    assert (made(upstreams), row(operation).sends, row(operation).attempt) == ([], 0, 0)


def _with(whole: Any, **parts: Any) -> Any:
    return type(whole)(**{**vars(whole), **parts})


# One after another


def test_the_end_of_one_lets_the_next_one_start(upstreams: Sandbox) -> None:
    first, second, third = create(), play.cancel(), play.replace()
    assert (row(first).slot, row(second).slot) == (slot_of(SUB), None)
    assert play.once(second).state == S.QUEUED
    carry(first)
    assert (row(second).slot, row(third).slot) == (slot_of(SUB), None)
    assert carry(second).state == S.SUCCEEDED
    assert carry(third).outcome_code == "not-live"
    assert made(upstreams) == [CREATE, "cancel-voucher", GET]


def test_a_next_one_that_was_not_started_is_caught_up(upstreams: Sandbox, jobs: Any) -> None:
    first, second, other = create(), play.cancel(), create(sub="other")
    waits = play.cancel(sub="other")
    with db.transaction() as session:
        session.execute(
            update(Workflow).where(Workflow.id == first)
            .values(state=S.FAILED, due_at=None, wake_at=None, slot=None, finished_at=workflows.NOW)
        )  # fmt: skip
        assert voucher_queue.blocked(session) == [SUB]
    jobs.voucher_operations()
    assert carry(second).state == S.REJECTED
    assert (row(waits).slot, row(other).state) == (None, S.QUEUED)


def test_what_waits_behind_another_one_is_given_up_when_its_time_is_up(upstreams: Sandbox, jobs: Any) -> None:
    first, late, waits = create(), play.cancel(), play.cancel(date(2099, 1, 1))
    for one in (first, late):
        write(one, deadline_at=workflow_now())
    jobs.voucher_operations()
    done = row(late)
    assert (done.state, done.outcome_code, done.answer["status"]) == (S.FAILED, "given-up", 503)
    assert moves(late)[-1] == ("queued", "failed")
    assert (row(first).state, row(waits).state, row(waits).slot) == (S.QUEUED, S.QUEUED, None)


def test_a_create_that_is_given_up_while_it_waits_owns_nothing_any_more(upstreams: Sandbox, jobs: Any) -> None:
    first, late = play.cancel(), create()
    write(late, deadline_at=workflow_now())
    jobs.voucher_operations()
    assert (row(late).outcome_code, row(first).state) == ("given-up", S.QUEUED)
    assert (play.voucher().state, play.voucher().client_id) == (None, None)


@pytest.mark.parametrize("off", ["toggle", "line"])
def test_what_waits_behind_another_one_loses_no_time_while_it_is_off(
    upstreams: Sandbox, jobs: Any, set_settings: Callable[..., None], off: str
) -> None:
    create()
    waits, begun = play.cancel(), workflow_now() - timedelta(minutes=1)
    write(waits, deadline_at=begun)
    if off == "toggle":
        with db.transaction() as session:
            clients.set_toggle(session, "crm", "vouchers", on=False)
    else:
        set_settings(IMOVO_URL="")
    jobs.voucher_operations()
    assert (row(waits).state, row(waits).deadline_at - begun) == (S.QUEUED, timedelta(seconds=15))


def test_the_catch_up_runs_once_per_tick(upstreams: Sandbox, jobs: Any) -> None:
    with time_machine.travel(datetime.fromisoformat("2025-03-10T09:00:07Z"), tick=False):
        assert [jobs.ticking.is_first("job", 15) for _ in range(2)] == [True, False]
    with time_machine.travel(datetime.fromisoformat("2025-03-10T09:00:15Z"), tick=False):
        assert jobs.ticking.is_first("job", 15)


def test_an_unresolved_one_lets_the_next_one_start_too(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "inactive-only", times=1)
    upstreams.fault(GET, "inactive-only", times=1)
    first, second = create(), play.cancel()
    assert carry(first).state == S.UNRESOLVED
    assert carry(second).state == S.SUCCEEDED
    assert play.voucher().state == "cancelled"


# The record


def test_a_cancelled_record_is_what_it_was_when_a_new_create_is_refused(upstreams: Sandbox) -> None:
    carry(create())
    carry(play.cancel())
    upstreams.fault(CREATE, "refused", times=1)
    operation = create()
    assert play.voucher().state == "requested"
    carry(operation)
    assert (play.voucher().state, play.voucher().client_id) == ("cancelled", client_id())


def test_a_create_behind_a_refused_one_keeps_the_subscription_requested(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "refused", times=1)
    first, second = create(), create("GuardianSunday")
    assert carry(first).state == S.REJECTED
    assert (play.voucher().state, play.voucher().client_id) == ("requested", client_id())
    assert carry(second).state == S.SUCCEEDED


def test_a_create_behind_a_cancel_is_requested_anew(upstreams: Sandbox) -> None:
    carry(create())
    first, second = play.cancel(), create("GuardianSunday")
    carry(first)
    assert play.voucher().state == "requested"
    assert carry(second).answer["body"] == live(upstreams)
    assert (play.voucher().state, play.voucher().scheme) == ("active", "GuardianSunday")


def test_a_create_that_is_taken_shows_that_our_record_was_wrong(upstreams: Sandbox) -> None:
    carry(create())
    upstreams.upstreams["imovo"].book.live(SUB).end()  # type: ignore[attr-defined]
    with db.transaction() as session:
        records.lock(session, SUB).provisioned_at = workflows.now(session)
    assert carry(create()).state == S.SUCCEEDED
    assert (codes(), play.voucher().provisioned_at) == (live(upstreams), None)


def test_who_lost_the_operation_teaches_the_record_nothing(upstreams: Sandbox) -> None:
    """A worker that stalled after its read must not write old codes over new ones."""
    carry(create())
    before, operation = live(upstreams), play.replace()
    with db.transaction() as session:
        stalled = flow.FLOW.load(session, operation)
        session.expunge_all()
    stalled.learned = [lambda session, voucher: setattr(voucher, "card_code", before["cardCode"])]
    carry(operation)
    with db.transaction() as session:
        flow.lock(session, stalled)
    assert codes() == live(upstreams) != before


def test_a_third_death_after_sending_leaves_it_open(upstreams: Sandbox) -> None:
    upstreams.fault(CREATE, "drop-after", times=1)
    operation, waits = create(), play.cancel()
    play.once(operation)
    write(operation, crashes=3)
    sweep._fail(seen(operation))
    done = row(operation)
    assert (done.state, done.outcome_code, done.in_doubt) == (S.UNRESOLVED, "outcome-unknown", True)
    assert row(waits).slot == slot_of(SUB)
