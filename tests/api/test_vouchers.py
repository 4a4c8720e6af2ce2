"""The routes that change a voucher, each carried out against the sandbox's i-Movo: contract 2.2, 2.4, 2.6 and 2.7."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import update

from app import db, vouchers
from app.models.voucher import Voucher

SUB = "a2F5I000003KvWxUAK"
BOTH = {"subscriptionId": SUB, "replaceCard": True, "replaceLetter": True}
PLAN = {"ratePlanName": "Everyday+"}
LINK = r'</DEV/digital-voucher/operations/([0-9a-f-]{36})>; rel="status"'


def days(start: int, end: int) -> dict[str, str]:
    """A suspension, by days from today."""
    first = vouchers.today()
    return {
        "subscriptionId": SUB,
        "startDate": (first + timedelta(days=start)).isoformat(),
        "endDateExclusive": (first + timedelta(days=end)).isoformat(),
    }


def calls(imovo) -> list[str]:
    return [call["call"] for call in imovo.calls(upstream="imovo")]


@pytest.fixture
def pair(ask, at_work):
    """A voucher that has just been created: its codes."""
    return ask("PUT", f"/{SUB}", PLAN).json


def test_create_answers_the_codes_and_a_second_one_needs_no_call(ask, at_work):
    first = ask("PUT", f"/{SUB}", PLAN)
    assert (first.status_code, sorted(first.json)) == (201, ["cardCode", "letterCode"])
    assert re.fullmatch(LINK, first.headers["Link"])
    assert first.headers["Cache-Control"] == "no-store"
    again, alias = ask("PUT", f"/{SUB}", PLAN), ask("PUT", f"/create/{SUB}", {"ratePlanName": "Everyday"})
    assert (again.status_code, again.json) == (alias.status_code, alias.json) == (201, first.json)
    assert calls(at_work) == ["create-voucher"]
    other = ask("PUT", f"/{SUB}", {"ratePlanName": "Weekend"})
    said = f"Subscription {SUB} already has a voucher of scheme Guardian7Day; GuardianWeekend was asked for"
    assert (other.status_code, other.json) == (409, {"message": said})


def test_replace_answers_exactly_the_requested_kinds_and_once_a_day(ask, at_work, pair):
    card = ask("POST", "/replace", {**BOTH, "replaceLetter": False})
    assert (card.status_code, list(card.json)) == (200, ["cardCode"])
    assert card.json["cardCode"] != pair["cardCode"]
    refused = ask("POST", "/replace", BOTH)
    said = f"The card of subscription {SUB} was already replaced on {vouchers.today()}"
    assert (refused.status_code, refused.json) == (409, {"message": said})
    assert refused.headers["Link"] == card.headers["Link"]
    letter = ask("POST", "/replace", {**BOTH, "replaceCard": False})
    assert (letter.status_code, list(letter.json)) == (200, ["letterCode"])
    assert calls(at_work).count("replace-voucher") == 2


def test_codes_replace_both_kinds_once(ask, at_work, pair):
    first = ask("POST", "/replace", pair)
    assert first.status_code == 200
    assert set(first.json.values()).isdisjoint(pair.values())
    again = ask("POST", "/replace", pair)
    said = f"The card and letter of subscription {SUB} was already replaced on {vouchers.today()}"
    assert (again.status_code, again.json, again.headers["Link"]) == (409, {"message": said}, first.headers["Link"])


def test_codes_of_an_earlier_day_are_no_longer_current(ask, at_work, pair, monkeypatch):
    ask("POST", "/replace", pair)
    tomorrow = vouchers.tomorrow()
    monkeypatch.setattr(vouchers, "today", lambda: tomorrow)
    answer = ask("POST", "/replace", pair)
    assert (answer.status_code, answer.json) == (409, {"message": "These codes are no longer current"})


@pytest.mark.parametrize(
    ("letter", "status", "said"),
    [
        ("own card", 404, "No voucher has these codes"),
        ("another's", 422, "cardCode and letterCode belong to different subscriptions"),
    ],
)
def test_codes_that_do_not_go_together(ask, pair, letter, status, said):
    letters = {"own card": pair["cardCode"], "another's": ask("PUT", "/another", PLAN).json["letterCode"]}
    answer = ask("POST", "/replace", {**pair, "letterCode": letters[letter]})
    assert (answer.status_code, answer.json) == (status, {"message": said})


def test_codes_of_another_client_are_unknown(ask, add_client, pair):
    other = add_client("other", scopes=["vouchers"], product=None)
    answer = ask("POST", "/replace", pair, key=other)
    assert (answer.status_code, answer.json) == (404, {"message": "No voucher has these codes"})


def test_cancel_at_once_twice_is_one_call_and_then_nothing_is_live(ask, at_work, pair):
    first, again = ask("DELETE", f"/{SUB}"), ask("POST", "/cancel", {"subscriptionId": SUB})
    assert [(one.status_code, one.json) for one in (first, again)] == [(200, {}), (200, {})]
    assert calls(at_work) == ["create-voucher", "cancel-voucher"]
    gone = {"message": f"No live voucher for subscription {SUB}"}
    for method, path, body in (("GET", f"/{SUB}", None), ("POST", "/replace", BOTH), ("PUT", "/suspend", days(1, 3))):
        answer = ask(method, path, body)
        assert (answer.status_code, answer.json) == (404, gone)
    assert ask("PUT", f"/{SUB}", PLAN).status_code == 201


def test_cancel_on_a_day_tells_the_day_before_and_leaves_it_live(ask, at_work, pair):
    body = {"subscriptionId": SUB, "cancellationDate": "2028-03-01"}
    for _ in range(2):
        answer = ask("POST", "/cancel", body)
        assert (answer.status_code, answer.json) == (200, {})
    assert [one["lastActiveDay"] for one in at_work.ledger()["cancellations"]] == ["2028-02-29"]
    record = ask("GET", f"/{SUB}/operations").json
    assert (record["state"], record["cancelOn"]) == ("active", "2028-03-01")


def test_suspend_within_a_recorded_one_is_done_and_across_it_a_conflict(ask, at_work, pair):
    for wanted in (days(2, 9), days(2, 9), days(3, 4)):
        answer = ask("PUT", "/suspend", wanted)
        assert (answer.status_code, answer.json) == (200, {})
    across = ask("PUT", "/suspend", days(8, 12))
    assert (across.status_code, across.json) == (409, {"message": vouchers.HOLIDAY_CONFLICT})
    assert calls(at_work).count("set-holiday") == 1


def test_an_operation_that_imovo_refuses_is_answered_as_it_ended(ask, at_work):
    at_work.fault("cancel-voucher", "refused", texts=["Card 6027181854 is blocked"])
    ask("PUT", f"/{SUB}", PLAN)
    answer = ask("POST", "/cancel", {"subscriptionId": SUB})
    assert (answer.status_code, answer.json) == (
        502,
        {"message": "i-Movo refused to cancel the voucher: Card *** is blocked"},
    )
    assert re.fullmatch(LINK, answer.headers["Link"])


def test_what_is_out_of_step_is_asked_again(ask, at_work, pair):
    with db.transaction() as session:
        session.execute(update(Voucher).values(confirmed_at=Voucher.confirmed_at - timedelta(hours=2)))
    assert ask("PUT", f"/{SUB}", PLAN).json == pair
    assert len(calls(at_work)) > 1


# Whose it is


def test_for_other_clients_a_subscription_is_unknown_on_every_route(ask, add_client, at_work, pair):
    other = add_client("other", scopes=["vouchers"], product=None)
    before = len(calls(at_work))
    for method, path, body in (
        ("GET", f"/{SUB}", None),
        ("GET", f"/{SUB}?refresh=true", None),
        ("PUT", f"/{SUB}", PLAN),
        ("POST", "/replace", BOTH),
        ("POST", "/cancel", {"subscriptionId": SUB}),
        ("DELETE", f"/{SUB}", None),
        ("PUT", "/suspend", days(1, 3)),
        ("GET", f"/redemption-history/{SUB}", None),
        ("GET", f"/{SUB}/operations", None),
    ):
        assert ask(method, path, body, key=other).status_code == 404, (method, path)
    assert len(calls(at_work)) == before


def test_a_create_that_ends_without_a_voucher_leaves_the_subscription_to_others(ask, add_client, at_work):
    at_work.fault("create-voucher", "refused", times=1)
    assert ask("PUT", f"/{SUB}", PLAN).status_code == 502
    other = add_client("other", scopes=["vouchers"], product=None)
    assert ask("PUT", f"/{SUB}", PLAN, key=other).status_code == 201
    assert ask("GET", f"/{SUB}").status_code == 404
