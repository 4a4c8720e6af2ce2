"""Cancelling, at once or from a date on: done twice it does no harm. Contract 2.7, 5.2."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine

from app import db, metrics, states, vouchers
from app.store import vouchers as records
from app.store import workflows
from sandbox import Sandbox
from tests.flows import voucher_play as play
from tests.flows.conftest import row, seen, write
from tests.flows.voucher_play import SUB, asked, cancel, carry, carry_first, create, jobs, made, plant, short

__all__ = ["jobs", "short"]  # fixtures, used by their names
S = states.VoucherOperation
CANCEL, GET = "cancel-voucher", "get-voucher"
FAR = date(2099, 3, 1)
DONE = {"status": 200, "body": {}}


@pytest.fixture
def there(upstreams: Sandbox) -> None:
    carry(create())


def end(upstreams: Sandbox) -> None:
    """The voucher is gone, and nobody here did it."""
    upstreams.upstreams["imovo"].book.live(SUB).end()  # type: ignore[attr-defined]


def drift() -> float:
    return metrics.voucher_drift.labels("not-live")._value.get()


def test_at_once_is_a_call_without_a_day(upstreams: Sandbox, there: None) -> None:
    done = carry(cancel())
    assert (done.state, done.answer) == (S.SUCCEEDED, DONE)
    assert asked(upstreams, CANCEL) == [{"SubscriptionId": SUB}]
    record = play.voucher()
    assert (record.state, record.confirmed_at is not None) == ("cancelled", True)
    with db.transaction() as session:
        assert records.in_step(session, record)


@pytest.mark.parametrize(
    ("day", "last"),
    [
        (date(2028, 3, 1), "2028-02-29"),
        (date(2027, 3, 1), "2027-02-28"),
        (date(2100, 3, 1), "2100-02-28"),
        (date(2028, 1, 1), "2027-12-31"),
        (date(2001, 1, 1), "2000-12-31"),
    ],
)
def test_the_day_sent_is_the_one_before_the_first_without_voucher(
    upstreams: Sandbox, there: None, day: date, last: str
) -> None:
    done = carry(cancel(day))
    assert (done.state, done.answer) == (S.SUCCEEDED, DONE)
    assert asked(upstreams, CANCEL) == [{"SubscriptionId": SUB, "LastActiveDay": last}]
    assert play.voucher().cancel_on == day


def test_what_a_create_given_up_never_made_is_cancelled_without_a_call(upstreams: Sandbox) -> None:
    """Once a look has shown that it is not there; before, nobody knows, and a cancel looks."""
    upstreams.fault("create-voucher", "drop-before", times=1)
    upstreams.fault(GET, "status", status=500, times=1)
    given_up, replaced, cancelled = create(), play.replace(), cancel(FAR)
    play.once(given_up)
    with db.transaction() as session:
        write(given_up, deadline_at=workflows.now(session))
    assert carry(given_up).state == S.UNRESOLVED
    assert carry(replaced).outcome_code == "not-live"
    done = carry(cancelled)
    assert (done.state, done.answer, asked(upstreams, CANCEL)) == (S.SUCCEEDED, DONE, [])


def test_until_its_day_a_cancelled_voucher_is_active(upstreams: Sandbox, there: None) -> None:
    carry(cancel(FAR))
    record = play.voucher()
    assert record.state == "active"
    states_then = [records.state_on(record, (), day) for day in (date(2099, 2, 28), FAR)]
    assert states_then == ["active", "cancelled"]


@pytest.mark.parametrize("day", [None, FAR])
@pytest.mark.parametrize("effect", [True, False])
def test_a_lost_cancel_ends_well(upstreams: Sandbox, there: None, day: date | None, effect: bool) -> None:
    upstreams.fault(CANCEL, "drop-after" if effect else "drop-before", times=1)
    drifted = drift()
    done = carry(cancel(day))
    assert (done.state, done.answer) == (S.SUCCEEDED, DONE)
    looked = [CANCEL] if day else [GET] if effect else [GET, CANCEL]
    assert made(upstreams)[1:] == [CANCEL, *looked]
    assert upstreams.ledger()["totals"]["cancellations"] == 1
    assert (play.voucher().cancel_on, drift()) == (day, drifted)
    assert (play.voucher().state == "cancelled") == (day is None)


def test_a_repeat_that_is_lost_too_waits_longer_and_stays_in_doubt(upstreams: Sandbox, there: None) -> None:
    upstreams.fault(CANCEL, "drop-before", times=3)
    operation = cancel(FAR)
    carry_first(operation)
    assert (row(operation).state, row(operation).in_doubt, row(operation).intent["finds"]) == (S.CHECKING, True, 1)
    done = carry(operation)
    assert (done.state, done.sends, made(upstreams)[1:]) == (S.SUCCEEDED, 4, [CANCEL] * 4)


def test_a_find_that_is_refused_or_fails_looks_again(upstreams: Sandbox, there: None) -> None:
    upstreams.fault(CANCEL, "drop-after", times=1)
    upstreams.fault(GET, "refused", times=1)
    upstreams.fault(GET, "status", status=500, times=1)
    assert carry(cancel()).state == S.SUCCEEDED
    assert made(upstreams)[1:] == [CANCEL, GET, GET, GET]


def test_not_live_is_what_was_asked_for_where_we_knew_a_voucher(upstreams: Sandbox, there: None) -> None:
    end(upstreams)
    drifted = drift()
    assert carry(cancel()).answer == DONE
    assert (play.voucher().state, drift()) == ("cancelled", drifted + 1)
    assert carry(cancel()).answer == DONE
    assert drift() == drifted + 1


def test_not_live_of_a_dated_cancel_ends_the_record(upstreams: Sandbox, there: None) -> None:
    end(upstreams)
    assert carry(cancel(FAR)).answer == DONE
    assert play.voucher().state == "cancelled"


def test_not_live_is_an_error_where_we_knew_nothing(upstreams: Sandbox) -> None:
    done = carry(cancel())
    assert (done.state, done.outcome_code, done.answer["status"]) == (S.REJECTED, "not-live", 404)
    assert play.voucher().state is None


def test_not_live_after_a_lost_send_may_be_our_own_doing(upstreams: Sandbox) -> None:
    """Also of a voucher that we had no record of; and asking again succeeds again."""
    plant(upstreams)
    upstreams.fault(CANCEL, "drop-before", times=1)
    operation = cancel()
    carry_first(operation)
    assert (row(operation).state, row(operation).lost_sends) == (S.QUEUED, 1)
    end(upstreams)
    assert (carry(operation).answer, play.voucher().state) == (DONE, "cancelled")
    assert carry(cancel()).answer == DONE


def test_not_live_after_a_create_of_unknown_outcome_is_an_error(upstreams: Sandbox) -> None:
    upstreams.fault("create-voucher", "empty-list", effect=False, times=1)
    assert carry(create()).state == S.UNRESOLVED
    assert carry(cancel()).outcome_code == "not-live"
    assert play.voucher().state == "cancelled"


@pytest.mark.parametrize(
    "first",
    [
        cancel,
        lambda: cancel(FAR),
        play.replace,
        lambda: play.suspend(FAR, FAR + timedelta(days=1)),
    ],
)
def test_what_finds_nothing_leaves_to_a_create_behind_it_what_that_has_requested(
    upstreams: Sandbox, first: Callable[[], UUID]
) -> None:
    """When the create is refused nobody owns what never was."""
    upstreams.fault("create-voucher", "refused", times=1)
    before, made_new = first(), create()
    assert carry(before).outcome_code == "not-live"
    assert (play.voucher().state, play.voucher().state_before) == ("requested", None)
    assert carry(made_new).outcome_code == "refused"
    assert (play.voucher().state, play.voucher().client_id) == (None, None)


def test_a_voucher_we_did_not_know_is_cancelled_at_once_and_is_ours(upstreams: Sandbox) -> None:
    plant(upstreams)
    assert carry(cancel()).answer == DONE
    assert (play.voucher().state, play.voucher().client_id) == ("cancelled", play.client_id())
    assert made(upstreams) == [CANCEL]


def test_a_voucher_we_did_not_know_is_adopted_before_its_day_is_set(upstreams: Sandbox) -> None:
    plant(upstreams, scheme="GuardianSunday")
    assert carry(cancel(FAR)).answer == DONE
    record = play.voucher()
    assert (record.state, record.scheme, record.cancel_on) == ("active", "GuardianSunday", FAR)
    assert (record.client_id, made(upstreams)) == (play.client_id(), [GET, CANCEL])


def test_a_dated_cancel_of_what_is_not_live(upstreams: Sandbox, there: None) -> None:
    assert carry(cancel(FAR, sub="unknown")).outcome_code == "not-live"
    carry(cancel())
    assert carry(cancel(FAR)).answer == DONE
    assert made(upstreams) == ["create-voucher", GET, CANCEL, GET]


@pytest.mark.parametrize(
    "texts", [["No"], ["live subscription vouchers already exist for the supplied subscription ID"]]
)
def test_another_refusal_is_told(upstreams: Sandbox, there: None, texts: list[str]) -> None:
    upstreams.fault(CANCEL, "refused", texts=texts, times=1)
    done = carry(cancel())
    assert (done.state, done.outcome_code) == (S.REJECTED, "refused")
    message = f"i-Movo refused to cancel the voucher: {texts[0]}"
    assert done.answer == {"status": 502, "body": {"message": message}}


def test_a_refused_read_before_a_dated_cancel_names_the_cancel(upstreams: Sandbox) -> None:
    upstreams.fault(GET, "refused", texts=["Locked"], times=1)
    done = carry(cancel(FAR))
    assert done.answer["body"]["message"] == "i-Movo refused to cancel the voucher: Locked"


def withdraw(operation: UUID) -> None:
    with db.transaction() as session:
        assert workflows.ask(session, seen(operation), "withdraw")


def test_a_withdrawn_cancel_without_effect_is_not_sent_again(upstreams: Sandbox, there: None) -> None:
    """Nobody would look for a late effect any more, so that it ends when there can be none."""
    upstreams.fault(CANCEL, "drop-before", times=1)
    operation = cancel()
    play.once(operation)
    withdraw(operation)
    waits = carry_first(operation)
    assert (waits.state, waits.in_doubt, made(upstreams)[1:]) == (S.CHECKING, True, [CANCEL, GET])
    done = carry(operation)
    assert (done.state, done.outcome_code, made(upstreams)[1:]) == (S.FAILED, "withdrawn", [CANCEL, GET, GET])


def test_a_create_that_takes_effect_after_it_was_withdrawn_is_told(upstreams: Sandbox) -> None:
    upstreams.fault("create-voucher", "drop-before", times=1)
    operation = create()
    play.once(operation)
    withdraw(operation)
    carry_first(operation)
    plant(upstreams)
    assert carry(operation).state == S.SUCCEEDED
    assert play.voucher().state == "active"


def test_a_create_that_may_yet_take_effect_when_its_time_is_up_is_not_called_without_effect(upstreams: Sandbox) -> None:
    upstreams.fault("create-voucher", "drop-before", times=1)
    operation = create()
    play.once(operation)
    with db.transaction() as session:
        write(operation, deadline_at=workflows.now(session))
    done = carry(operation)
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "outcome-unknown")


def test_the_state_of_a_day_is_stored_by_the_sweep(upstreams: Sandbox, there: None, jobs: Any) -> None:
    carry(cancel(date(2025, 3, 31)))
    with time_machine.travel(datetime.fromisoformat("2025-03-30T22:50:00Z"), tick=False):
        jobs.voucher_states()
        assert play.voucher().state == "active"
    with time_machine.travel(datetime.fromisoformat("2025-03-30T23:00:00Z"), tick=False):
        assert vouchers.today() == date(2025, 3, 31)
        jobs.voucher_states()
    assert play.voucher().state == "cancelled"
