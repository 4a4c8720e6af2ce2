"""Suspending: what cannot be read back is made again, and what i-Movo refuses is weighed. Contract 5.2, 5.5."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine

from app import db, metrics, states, vouchers
from app.store import vouchers as records
from app.store import workflows
from sandbox import Sandbox
from tests.flows import voucher_play as play
from tests.flows.conftest import row, write
from tests.flows.voucher_play import SUB, asked, carry, carry_first, create, jobs, made, plant, short, suspend

__all__ = ["jobs", "short"]  # fixtures, used by their names
S = states.VoucherOperation
SUSPEND, GET = "set-holiday", "get-voucher"
DONE = {"status": 200, "body": {}}
CONFLICT = ["Unable to create holiday, conflicting holiday found between entered dates"]
NOT_LIVE = ["Unable to create holiday: no live subscription vouchers exist for the supplied subscription id"]
NOW = datetime(2025, 3, 29, 12, tzinfo=UTC)  # the clocks go forward in the night


def day(after: int) -> date:
    return NOW.date() + timedelta(days=after)


@pytest.fixture
def frozen() -> Any:
    with time_machine.travel(NOW, tick=False) as travel:
        yield travel


@pytest.fixture
def there(upstreams: Sandbox, frozen: Any) -> None:
    carry(create())


def recorded() -> list[tuple[date, date]]:
    with db.transaction() as session:
        return [(one.starts_on, one.ends_on) for one in records.suspensions(session, SUB)]


def suspended_until(end: int, *, upstreams: Sandbox, frozen: Any) -> None:
    """A suspension that is running now."""
    frozen.move_to(NOW - timedelta(days=2))
    assert carry(suspend(day(-1), day(end))).state == S.SUCCEEDED
    frozen.move_to(NOW)


def test_a_suspension_is_sent_and_recorded(upstreams: Sandbox, there: None) -> None:
    done = carry(suspend(day(1), day(8)))
    assert (done.state, done.answer) == (S.SUCCEEDED, DONE)
    dates = {"StartDate": "2025-03-30", "ReactivationDate": "2025-04-06"}
    assert asked(upstreams, SUSPEND) == [{"SubscriptionId": SUB, **dates}]
    assert (recorded(), made(upstreams)) == ([(day(1), day(8))], ["create-voucher", SUSPEND])


def test_a_voucher_is_suspended_from_its_start_up_to_its_end(upstreams: Sandbox, there: None, jobs: Any) -> None:
    carry(suspend(day(1), day(2)))
    stored = []
    for moment in ("2025-03-29T23:59:59Z", "2025-03-30T00:00:00Z", "2025-03-30T22:59:59Z", "2025-03-30T23:00:00Z"):
        with time_machine.travel(datetime.fromisoformat(moment), tick=False):
            jobs._store_some_states()
            stored.append(play.voucher().state)
    assert stored == ["active", "suspended", "suspended", "active"]


def test_a_voucher_we_did_not_know_is_adopted_first(upstreams: Sandbox, frozen: Any) -> None:
    plant(upstreams, scheme="GuardianSunday")
    assert carry(suspend(day(1), day(2))).answer == DONE
    record = play.voucher()
    assert (record.state, record.scheme, record.client_id) == ("active", "GuardianSunday", play.client_id())
    assert (recorded(), made(upstreams)) == ([(day(1), day(2))], [GET, SUSPEND])


def test_what_is_not_live_cannot_be_suspended(upstreams: Sandbox, there: None) -> None:
    assert carry(suspend(day(1), day(2), sub="unknown")).outcome_code == "not-live"
    upstreams.fault(SUSPEND, "refused", texts=NOT_LIVE, times=1)
    drifted = metrics.voucher_drift.labels("not-live")._value.get()
    assert carry(suspend(day(1), day(2))).outcome_code == "not-live"
    assert play.voucher().state == "cancelled"
    assert metrics.voucher_drift.labels("not-live")._value.get() == drifted + 1
    assert made(upstreams)[1:] == [GET, SUSPEND]


@pytest.mark.parametrize("fault", ["drop-after", "drop-before"])
def test_a_lost_suspension_is_made_again_and_there_is_one(upstreams: Sandbox, there: None, fault: str) -> None:
    upstreams.fault(SUSPEND, fault, times=1)
    done = carry_first(suspend(day(1), day(2)))
    assert (done.state, done.answer, done.sends) == (S.SUCCEEDED, DONE, 2)
    assert made(upstreams)[1:] == [SUSPEND, SUSPEND]
    assert (recorded(), upstreams.ledger()["totals"]["holidays"]) == ([(day(1), day(2))], 1)


def test_a_start_that_has_passed_is_not_sent(upstreams: Sandbox, there: None, frozen: Any) -> None:
    operation = suspend(day(1), day(2))
    frozen.move_to(datetime(2025, 3, 30, 0, 0, tzinfo=UTC))
    done = carry(operation)
    assert (done.state, done.outcome_code, done.sends) == (S.FAILED, "start-date-passed", 0)
    assert (done.answer["status"], made(upstreams)) == (409, ["create-voucher"])


def test_a_start_that_passes_while_imovo_cannot_be_reached_ends_it(upstreams: Sandbox, frozen: Any) -> None:
    upstreams.fault(GET, "status", status=500)
    operation = suspend(day(1), day(2))
    assert play.once(operation).state == S.QUEUED
    frozen.move_to(datetime(2025, 3, 30, 0, 0, tzinfo=UTC))
    assert (carry(operation).outcome_code, made(upstreams)) == ("start-date-passed", [GET])


def test_a_start_that_passes_while_the_outcome_is_unknown_leaves_it_open(
    upstreams: Sandbox, there: None, frozen: Any
) -> None:
    upstreams.fault(SUSPEND, "drop-before", times=1)
    operation = suspend(day(1), day(2))
    play.once(operation)
    frozen.move_to(datetime(2025, 3, 30, 0, 0, tzinfo=UTC))
    done = carry(operation)
    assert (done.state, done.outcome_code, done.sends) == (S.UNRESOLVED, "outcome-unknown", 1)
    assert (recorded(), done.in_doubt) == ([], True)


def test_a_conflict_is_told(upstreams: Sandbox, there: None) -> None:
    upstreams.fault(SUSPEND, "refused", texts=CONFLICT, times=1)
    done = carry(suspend(day(1), day(2)))
    assert (done.state, done.outcome_code) == (S.REJECTED, "holiday-conflict")
    assert done.answer == {"status": 409, "body": {"message": "i-Movo already has a holiday within these dates"}}


@pytest.mark.parametrize(
    "texts",
    [
        ["Invalid Request: Please enter a reactivation date in the future"],
        ["live subscription vouchers already exist for the supplied subscription ID"],
        [],
    ],
)
def test_another_refusal_is_told_too(upstreams: Sandbox, there: None, texts: list[str]) -> None:
    upstreams.fault(SUSPEND, "refused", texts=texts, times=1)
    done = carry(suspend(day(1), day(2)))
    assert (done.state, done.outcome_code) == (S.REJECTED, "refused")
    message = f"i-Movo refused to suspend the voucher: {texts[0] if texts else 'no reason given'}"
    assert done.answer == {"status": 502, "body": {"message": message}}


def test_what_we_have_recorded_is_done_although_imovo_sees_a_conflict(upstreams: Sandbox, there: None) -> None:
    """The record may be too old to answer from it; the same request succeeds all the same."""
    carry(suspend(day(1), day(3)))
    carry(suspend(day(3), day(5)))
    assert carry(suspend(day(2), day(4))).answer == DONE
    assert carry(suspend(day(4), day(6))).outcome_code == "holiday-conflict"


def test_while_one_is_running_a_later_one_waits_for_its_end(upstreams: Sandbox, there: None, frozen: Any) -> None:
    """Until 02:20 UTC of that day, without an attempt, and the wait does not count towards giving up."""
    suspended_until(2, upstreams=upstreams, frozen=frozen)
    operation = suspend(day(3), day(4))
    before = row(operation).deadline_at
    waiting = play.once(operation)
    with db.transaction() as session:
        wait = (waiting.due_at - workflows.now(session)).total_seconds()
    due = datetime(2025, 3, 31, 2, 20, tzinfo=UTC) - NOW
    assert abs(wait - due.total_seconds()) < 5
    assert (waiting.state, waiting.attempt, waiting.in_doubt) == (S.QUEUED, 0, False)
    assert waiting.deadline_at - before == due
    frozen.move_to(datetime(2025, 3, 31, 2, 20, tzinfo=UTC))
    assert carry(operation).answer == DONE


def test_one_that_follows_directly_is_refused_while_the_first_is_running(
    upstreams: Sandbox, there: None, frozen: Any
) -> None:
    suspended_until(2, upstreams=upstreams, frozen=frozen)
    done = carry(suspend(day(2), day(4)))
    assert (done.state, done.outcome_code) == (S.REJECTED, "currently-suspended")
    message = "The voucher is suspended until 2025-03-31; i-Movo takes no other holiday that follows directly"
    assert done.answer == {"status": 409, "body": {"message": message}}


def test_after_a_lost_send_a_running_suspension_leaves_one_that_follows_directly_open(
    upstreams: Sandbox, there: None, frozen: Any
) -> None:
    suspended_until(2, upstreams=upstreams, frozen=frozen)
    upstreams.fault(SUSPEND, "drop-before", times=1)
    done = carry(suspend(day(2), day(4)))
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "outcome-unknown")


def test_after_a_lost_send_a_later_one_waits_in_doubt(upstreams: Sandbox, there: None, frozen: Any) -> None:
    suspended_until(2, upstreams=upstreams, frozen=frozen)
    upstreams.fault(SUSPEND, "drop-before", times=1)
    operation = suspend(day(3), day(4))
    carry_first(operation)
    assert (row(operation).state, row(operation).in_doubt) == (S.CHECKING, True)
    frozen.move_to(datetime(2025, 3, 31, 2, 20, tzinfo=UTC))
    assert carry(operation).answer == DONE
    assert recorded()[-1] == (day(3), day(4))


def test_a_new_voucher_has_no_suspensions(upstreams: Sandbox, there: None) -> None:
    carry(suspend(day(1), day(2)))
    carry(play.cancel())
    carry(create())
    assert recorded() == []


def test_the_deadline_of_one_in_doubt_leaves_it_open(upstreams: Sandbox, there: None) -> None:
    upstreams.fault(SUSPEND, "drop-before")
    operation = suspend(day(1), day(2))
    play.once(operation)
    write(operation, deadline_at=row(operation).created_at)
    done = carry(operation)
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "outcome-unknown")
    assert vouchers.today() == NOW.date()
