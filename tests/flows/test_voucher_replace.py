"""Replacing: what the codes say decides, and nothing is sent twice without looking. Contract 5.2 to 5.4."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import time_machine

from app import db, metrics, states, vouchers
from app.store import vouchers as records
from app.store import workflows
from sandbox import Sandbox
from tests.flows import voucher_play as play
from tests.flows.conftest import moves, row, shift, write
from tests.flows.voucher_play import (
    BOTH,
    CARD,
    SUB,
    asked,
    carry,
    carry_first,
    codes,
    create,
    live,
    made,
    plant,
    replace,
    short,
)

__all__ = ["short"]  # fixtures, used by their names
S = states.VoucherOperation
Change = Callable[..., None]
REPLACE, GET = "replace-voucher", "get-voucher"
LETTER = {"replaceCard": False, "replaceLetter": True}
LIVE_ALREADY = ["Unable to create vouchers: live subscription vouchers already exist for the supplied subscription ID"]
NOT_LIVE = ["Unable to replace voucher(s): no live subscription vouchers exist for the supplied subscription id"]


@pytest.fixture
def before(upstreams: Sandbox) -> dict[str, str]:
    """The codes of a voucher that is made, and then only known."""
    carry(create())
    return live(upstreams)


def drift(reason: str) -> float:
    return metrics.voucher_drift.labels(reason)._value.get()


def counted() -> set[str]:
    """The kinds that are used up today."""
    with db.transaction() as session:
        return set(records.used_up(session, SUB, vouchers.KINDS, vouchers.today()))


def pair(now: dict[str, str]) -> dict[str, str | None]:
    return dict(now)


@pytest.mark.parametrize(
    ("flags", "type", "told"),
    [
        (BOTH, "Both", {"cardCode", "letterCode"}),
        (CARD, "ActiveCard", {"cardCode"}),
        (LETTER, "ActiveLetter", {"letterCode"}),
    ],
)
def test_the_requested_kinds_are_replaced_and_told(
    upstreams: Sandbox, before: dict[str, str], flags: dict[str, bool], type: str, told: set[str]
) -> None:
    done, now = carry(replace(flags)), live(upstreams)
    assert (done.state, done.answer) == (S.SUCCEEDED, {"status": 200, "body": {name: now[name] for name in told}})
    assert [call["SubscriptionType"] for call in asked(upstreams, REPLACE)] == [type]
    assert codes() == pair(now)
    assert counted() == {name.removesuffix("Code") for name in told}
    assert (done.counted_on, play.voucher().last_replaced_on) == (vouchers.today(), vouchers.today())
    assert done.baseline == {"card": before["cardCode"], "letter": before["letterCode"]}
    old = {records.code_hash(name.removesuffix("Code"), before[name]) for name in told}
    assert {one for one, (on, by) in play.superseded().items() if by == done.id and on == vouchers.today()} == old


def test_a_voucher_made_elsewhere_is_adopted_by_the_baseline(upstreams: Sandbox) -> None:
    plant(upstreams, scheme="GuardianSunday")
    upstreams.fault(REPLACE, "refused", times=1)
    old = live(upstreams)
    done = carry(replace())
    assert (done.state, done.outcome_code) == (S.REJECTED, "refused")
    assert (codes(), play.voucher().state, play.voucher().scheme) == (pair(old), "active", "GuardianSunday")
    assert (play.voucher().client_id, counted()) == (play.client_id(), set())


def test_the_baseline_of_no_voucher(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.upstreams["imovo"].book.live(SUB).end()  # type: ignore[attr-defined]
    drifted = drift("not-live")
    done = carry(replace())
    assert (done.state, done.outcome_code, done.sends) == (S.REJECTED, "not-live", 0)
    assert done.answer == {"status": 404, "body": {"message": f"No live voucher for subscription {SUB}"}}
    assert (play.voucher().state, drift("not-live")) == ("cancelled", drifted + 1)


def test_a_baseline_without_a_requested_kind_is_rejected(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(GET, "kind-missing", kind="letter", times=2)
    done = carry(replace())
    assert (done.state, done.outcome_code, done.sends) == (S.REJECTED, "incomplete-answer", 0)
    assert carry(replace(CARD)).state == S.SUCCEEDED


def test_a_baseline_that_fails_is_read_again_and_one_that_is_refused_is_told(
    upstreams: Sandbox, before: dict[str, str]
) -> None:
    upstreams.fault(GET, "status", status=500, times=1)
    upstreams.fault(GET, "refused", texts=["Locked"], times=1)
    done = carry(replace())
    assert (done.state, done.outcome_code, done.sends) == (S.REJECTED, "refused", 0)
    assert done.answer["body"]["message"] == "i-Movo refused to replace the voucher: Locked"


def test_the_day_rule_is_per_kind_and_refuses_the_whole_request(upstreams: Sandbox, before: dict[str, str]) -> None:
    carry(replace(CARD))
    now, refused = live(upstreams), metrics.voucher_replacements_refused._value.get()
    done = carry(replace())
    message = f"The card of subscription {SUB} was already replaced on {vouchers.today()}"
    assert (done.state, done.outcome_code, done.sends) == (S.REJECTED, "already-replaced", 0)
    assert done.answer == {"status": 409, "body": {"message": message}}
    assert (live(upstreams), metrics.voucher_replacements_refused._value.get()) == (now, refused + 1)
    assert carry(replace(LETTER)).state == S.SUCCEEDED
    assert counted() == {"card", "letter"}


def test_more_than_one_a_day_where_that_is_allowed(
    upstreams: Sandbox, before: dict[str, str], set_settings: Change
) -> None:
    set_settings(VOUCHER_REPLACEMENTS_PER_DAY=2)
    outcomes = [carry(replace(CARD)).outcome_code for _ in range(3)]
    assert outcomes == ["done", "done", "already-replaced"]


@pytest.mark.parametrize("night", ["2025-03-29T23:59:58Z", "2025-03-30T22:59:58Z", "2025-10-25T22:59:58Z"])
def test_a_new_day_begins_at_midnight_in_london(upstreams: Sandbox, night: str) -> None:
    moment = datetime.fromisoformat(night)
    with time_machine.travel(moment, tick=False):
        carry(create())
        assert carry(replace()).outcome_code == "done"
        assert carry(replace()).outcome_code == "already-replaced"
    with time_machine.travel(moment + timedelta(seconds=3), tick=False):
        assert carry(replace()).outcome_code == "done"


@pytest.mark.parametrize(
    "lost", [{"fault": "drop-after"}, {"fault": "status", "status": 500, "effect": True}, {"fault": "hang-after"}]
)
def test_a_lost_replacement_that_took_effect_is_found_at_once(
    upstreams: Sandbox, before: dict[str, str], set_settings: Change, lost: dict[str, Any]
) -> None:
    set_settings(IMOVO_TIMEOUT=1 if lost["fault"] == "hang-after" else 20)
    upstreams.fault(REPLACE, **lost, times=1)
    done = carry_first(replace())
    assert (done.state, done.answer["body"], done.sends) == (S.SUCCEEDED, live(upstreams), 1)
    assert (codes(), made(upstreams)[1:]) == (pair(live(upstreams)), [GET, REPLACE, GET])


def test_a_lost_one_without_effect_is_sent_again_after_the_settle_time(
    upstreams: Sandbox, before: dict[str, str]
) -> None:
    """And its second send is read back before it is believed."""
    upstreams.fault(REPLACE, "drop-before", times=1)
    waiting = carry_first(replace())
    assert (waiting.state, waiting.lost_sends, made(upstreams)[1:]) == (S.CHECKING, 0, [GET, REPLACE, GET])
    with db.transaction() as session:
        wait = (waiting.due_at - workflows.now(session)).total_seconds()
    assert 10 < wait <= 30
    baseline = waiting.baseline
    done = carry(waiting.id)
    assert (done.state, done.sends, done.lost_sends, done.baseline) == (S.SUCCEEDED, 2, 1, baseline)
    assert made(upstreams)[4:] == [GET, GET, REPLACE, GET]
    assert (done.answer["body"], codes()) == (live(upstreams), pair(live(upstreams)))
    assert upstreams.ledger()["totals"]["replacements"] == 2  # one of each kind


def test_three_lost_ones_are_enough(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "drop-before")
    done = carry(replace())
    assert (done.state, done.outcome_code, done.sends, done.lost_sends) == (S.UNRESOLVED, "outcome-unknown", 3, 3)
    assert (made(upstreams).count(REPLACE), counted()) == (3, {"card", "letter"})
    assert (done.in_doubt, done.answer["status"]) == (True, 503)


def test_a_lost_one_that_takes_effect_late_is_not_sent_again(upstreams: Sandbox, before: dict[str, str]) -> None:
    """The find after the settle time saw nothing, the read before the next send does."""
    upstreams.fault(REPLACE, "drop-before", times=1)
    operation = replace()
    carry_first(operation)
    play.let_pass(operation)
    play.once(operation)
    assert row(operation).state == S.QUEUED
    book = upstreams.upstreams["imovo"].book  # type: ignore[attr-defined]
    book.renew(book.live(SUB), ("card", "letter"))
    done = carry(operation)
    assert (done.state, done.sends, done.answer["body"]) == (S.SUCCEEDED, 1, live(upstreams))
    assert counted() == {"card", "letter"}


def test_the_first_baseline_stands_after_a_lost_send(upstreams: Sandbox, before: dict[str, str]) -> None:
    """What changed meanwhile in the kind that nobody asked for is seen against it."""
    upstreams.fault(REPLACE, "drop-before", times=1)
    operation, drifted = replace(CARD), drift("unasked-kind")
    carry_first(operation)
    play.let_pass(operation)
    play.once(operation)
    book = upstreams.upstreams["imovo"].book  # type: ignore[attr-defined]
    book.renew(book.live(SUB), ("letter",))
    done = carry(operation)
    assert (done.state, done.sends) == (S.SUCCEEDED, 2)
    assert done.baseline == {"card": before["cardCode"], "letter": before["letterCode"]}
    assert (codes(), drift("unasked-kind")) == (pair(live(upstreams)), drifted + 1)


def test_a_lost_one_that_took_effect_in_part_stays_open(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "half-replaced", kind="card", lost=True, times=1)
    waiting = carry_first(replace())
    assert (waiting.state, codes()) == (S.CHECKING, pair(before))
    done = carry(waiting.id)
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "unchanged-codes")
    message = "i-Movo reported a replacement but the letter did not change"
    assert done.answer == {"status": 502, "body": {"message": message}}
    assert (codes(), counted()) == (pair(live(upstreams)), {"card"})
    assert made(upstreams).count(REPLACE) == 1


def test_what_is_not_live_after_a_lost_one_is_looked_at_again(upstreams: Sandbox, before: dict[str, str]) -> None:
    """A voucher that shows again in time was never lost: its record, suspensions included, stands."""
    upstreams.fault(REPLACE, "drop-after", times=1)
    operation = replace()
    play.once(operation)
    upstreams.fault(GET, "refused", texts=["Subscription not found"], times=1)
    play.once(operation)
    assert (row(operation).state, play.voucher().state) == (S.CHECKING, "active")
    assert carry(operation).outcome_code == "done"


def test_what_is_gone_before_it_is_sent_again_is_open_and_counts(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "drop-before", times=1)
    operation = replace(CARD)
    carry_first(operation)
    play.let_pass(operation)
    assert (play.once(operation).state, counted()) == (S.QUEUED, set())
    upstreams.fault(GET, "refused", texts=["Subscription not found"])
    done = carry(operation)
    assert (done.state, done.outcome_code, counted()) == (S.UNRESOLVED, "incomplete-answer", {"card"})


@pytest.mark.parametrize(
    ("fault", "text", "state"),
    [
        ({"fault": "refused", "texts": ["Subscription not found"]}, "card and letter", "cancelled"),
        ({"fault": "empty-list"}, "card and letter", "active"),
        ({"fault": "kind-missing", "kind": "card"}, "card", "active"),
    ],
)
def test_what_stays_incomplete_after_a_lost_one_is_open(
    upstreams: Sandbox, before: dict[str, str], fault: dict[str, Any], text: str, state: str
) -> None:
    upstreams.fault(REPLACE, "drop-after", times=1)
    operation = replace()
    play.once(operation)
    upstreams.fault(GET, **fault)
    done = carry(operation)
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "incomplete-answer")
    assert done.answer["body"]["message"] == f"i-Movo answered without a live {text} for subscription {SUB}"
    assert (play.voucher().state, counted()) == (state, {"card", "letter"})


@pytest.mark.parametrize(
    "fault", [{"fault": "same-codes"}, {"fault": "kind-missing", "kind": "card"}, {"fault": "inactive-only"}]
)
def test_a_success_that_does_not_show_it_is_read_back(
    upstreams: Sandbox, before: dict[str, str], fault: dict[str, Any]
) -> None:
    upstreams.fault(REPLACE, **fault, times=1)
    upstreams.fault(GET, "status", status=500, times=1)  # of the baseline
    done = carry(replace())
    assert (done.state, done.answer["body"], done.sends) == (S.SUCCEEDED, live(upstreams), 1)
    assert made(upstreams)[1:] == [GET, GET, REPLACE, GET]


def test_a_success_that_changed_nothing_is_open_at_once_and_does_not_count(
    upstreams: Sandbox, before: dict[str, str]
) -> None:
    upstreams.fault(REPLACE, "same-codes", effect=False, times=1)
    done = carry_first(replace())
    assert (done.state, done.outcome_code, done.sends) == (S.UNRESOLVED, "unchanged-codes", 1)
    message = "i-Movo reported a replacement but the card and letter did not change"
    assert done.answer == {"status": 502, "body": {"message": message}}
    assert (codes(), counted(), play.voucher().last_replaced_on) == (pair(before), set(), None)


def test_a_success_that_changed_one_kind_is_open_and_counts_for_that_one(
    upstreams: Sandbox, before: dict[str, str]
) -> None:
    upstreams.fault(REPLACE, "half-replaced", kind="letter", times=1)
    done = carry_first(replace())
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "unchanged-codes")
    assert "but the card did not" in done.answer["body"]["message"]
    assert (codes(), counted()) == (pair(live(upstreams)), {"letter"})


def test_a_success_whose_voucher_is_gone_is_open(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "empty-list", times=1)
    operation = replace()
    play.once(operation)
    upstreams.fault(GET, "refused", texts=["Subscription not found"], times=1)
    done = carry_first(operation)
    assert (done.state, done.outcome_code) == (S.UNRESOLVED, "incomplete-answer")
    assert play.voucher().state == "cancelled"


def test_a_kind_that_nobody_asked_for_is_taken_and_counted_as_drift(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "drop-after", times=1)
    operation, drifted = replace(CARD), drift("unasked-kind")
    play.once(operation)
    book = upstreams.upstreams["imovo"].book  # type: ignore[attr-defined]
    book.renew(book.live(SUB), ("letter",))
    done = carry(operation)
    assert (done.state, done.answer["body"]) == (S.SUCCEEDED, {"cardCode": live(upstreams)["cardCode"]})
    assert (codes(), drift("unasked-kind")) == (pair(live(upstreams)), drifted + 1)


def test_exists_already_without_a_change_is_refused(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "refused", texts=LIVE_ALREADY, times=1)
    waiting = carry_first(replace())
    assert waiting.state == S.CHECKING
    done = carry(waiting.id)
    assert (done.state, done.outcome_code, done.sends) == (S.REJECTED, "refused", 1)
    assert done.answer["body"]["message"] == f"i-Movo refused to replace the voucher: {LIVE_ALREADY[0]}"
    assert counted() == set()


def test_exists_already_with_half_a_change_stays_open(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "half-replaced", kind="card", texts=LIVE_ALREADY, times=1)
    done = carry(replace())
    assert (done.state, done.outcome_code, counted()) == (S.UNRESOLVED, "unchanged-codes", {"card"})


def test_exists_already_with_a_change_is_done(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "refused", texts=LIVE_ALREADY, effect=True, times=1)
    done = carry_first(replace())
    assert (done.state, done.answer["body"]) == (S.SUCCEEDED, live(upstreams))


def test_not_live_when_replacing_ends_the_record(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "refused", texts=NOT_LIVE, times=1)
    drifted = drift("not-live")
    done = carry(replace())
    assert (done.state, done.outcome_code, counted()) == (S.REJECTED, "not-live", set())
    assert (play.voucher().state, drift("not-live")) == ("cancelled", drifted + 1)


def test_what_was_definitely_not_done_does_not_count(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "rate-limit", times=1)
    operation = replace()
    play.once(operation)
    assert (row(operation).state, row(operation).sends, counted()) == (S.QUEUED, 1, set())
    write(operation, deadline_at=row(operation).due_at)
    shift(operation, 100)
    upstreams.fault(GET, "status", status=500)
    done = carry(operation)
    assert (done.outcome_code, counted()) == ("given-up", set())


def test_a_lost_one_counts_while_it_is_in_doubt(upstreams: Sandbox, before: dict[str, str]) -> None:
    upstreams.fault(REPLACE, "drop-before", times=1)
    operation = replace()
    play.once(operation)
    assert (row(operation).state, counted()) == (S.CHECKING, {"card", "letter"})
    assert moves(operation)[-2:] == [("running", "calling"), ("calling", "checking")]


def test_a_replacement_counts_for_the_day_of_its_last_send(upstreams: Sandbox) -> None:
    with time_machine.travel(datetime.fromisoformat("2025-03-10T23:59:00Z"), tick=False):
        carry(create())
        upstreams.fault(REPLACE, "rate-limit", times=1)
        operation = replace()
        play.once(operation)
    with time_machine.travel(datetime.fromisoformat("2025-03-11T00:01:00Z"), tick=False):
        done = carry(operation)
        assert (done.counted_on, play.voucher().last_replaced_on) == (date(2025, 3, 11), date(2025, 3, 11))


def test_a_worker_that_died_after_sending_leaves_it_to_the_find(upstreams: Sandbox, before: dict[str, str]) -> None:
    """As if it had died before the answer was written: the intent stands, and who takes over compares first."""
    upstreams.fault(REPLACE, "drop-after", times=1)
    operation = replace()
    play.once(operation)
    intent = {name: value for name, value in row(operation).intent.items() if name != "failure"}
    write(operation, intent=intent)
    done = carry(operation)
    assert (done.state, done.sends, made(upstreams).count(REPLACE)) == (S.SUCCEEDED, 1, 1)
