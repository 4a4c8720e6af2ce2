"""i-Movo: vouchers created, replaced, cancelled and suspended, what is refused, and what the ledger makes of it."""

import re

import pytest
import requests
import time_machine

LIVE = "Unable to create vouchers: live subscription vouchers already exist for the supplied subscription ID"
NOT_LIVE = "Unable to {}: no live subscription vouchers exist for the supplied subscription id"
CONFLICT = "Unable to create holiday, conflicting holiday found between entered dates"
PAST = "Invalid Request: Please enter a reactivation date in the future"
DONE = {"message": "OK", "successfulRequest": True}


def refusal(text):
    return {"errorMessages": [text], "successfulRequest": False}


def codes(shown):
    """The active codes, card first."""
    found = {one["subscriptionType"]: one["voucherCode"] for one in shown["subscriptionVouchers"]}
    return found["ActiveCard"], found["ActiveLetter"]


@pytest.fixture
def at():
    """Moves the clock to an instant, where it stands still."""
    with time_machine.travel("2025-03-10T12:00:00Z", tick=False) as traveller:
        yield traveller.move_to


def test_a_voucher_is_created_once_and_shown(at, sandbox, newsagent):
    made = newsagent.create()
    assert made.keys() == {"schemeName", "subscriptionId", "successfulRequest", "subscriptionVouchers"}
    assert (made["schemeName"], made["subscriptionId"]) == ("Guardian7Day", newsagent.subscription_id)
    card, letter = codes(made)
    assert re.fullmatch(r"60[0-9]{8}", card)
    assert re.fullmatch(r"09[0-9]{8}", letter)
    assert newsagent.create(scheme="GuardianSunday") == refusal(LIVE)
    assert newsagent.get() == made
    [entry] = sandbox.ledger()["vouchers"]
    told = (entry["subscriptionId"], entry["scheme"], entry["date"], entry["startDate"], entry["count"])
    assert told == (newsagent.subscription_id, "Guardian7Day", "2025-03-10", "2025-03-11", 1)
    assert (entry["cardCode"], entry["letterCode"], entry["correlation_id"]) == (card, letter, "crm-77104")


def test_replacing_both_issues_one_new_pair_and_keeps_the_old_codes_as_inactive(at, sandbox, newsagent):
    old, shown = codes(newsagent.create()), newsagent.replace()
    new = codes(shown)
    assert not set(old) & set(new)
    assert [tuple(one.values()) for one in shown["subscriptionVouchers"]] == [
        ("InactiveCard", old[0]),
        ("InactiveLetter", old[1]),
        ("ActiveCard", new[0]),
        ("ActiveLetter", new[1]),
    ]
    issued = [(one["kind"], one["date"], one["ids"]) for one in sandbox.ledger()["replacements"]]
    assert issued == [("card", "2025-03-10", [new[0]]), ("letter", "2025-03-10", [new[1]])]


@pytest.mark.parametrize(("type", "changed"), [("ActiveCard", [True, False]), ("ActiveLetter", [False, True])])
def test_one_kind_alone_is_replaced(*, sandbox, newsagent, type, changed):
    old, new = codes(newsagent.create()), codes(newsagent.replace(type))
    assert [one != other for one, other in zip(old, new, strict=True)] == changed
    assert sandbox.ledger()["totals"]["replacements"] == 1


def test_a_second_replacement_on_one_london_day_shows_in_the_ledger(at, sandbox, newsagent):
    newsagent.create()
    at("2025-06-10T22:59:00Z")
    newsagent.replace("ActiveCard")
    at("2025-06-10T23:01:00Z")
    newsagent.replace("ActiveCard")
    newsagent.replace("ActiveCard")
    counted = [(one["date"], one["count"]) for one in sandbox.ledger()["replacements"]]
    assert counted == [("2025-06-10", 1), ("2025-06-11", 2)]
    assert sandbox.ledger()["duplicates"]["replacements"] == 1


def test_a_cancelled_voucher_is_gone_at_once_and_may_be_created_anew(sandbox, newsagent):
    old = codes(newsagent.create())
    assert newsagent.cancel() == DONE
    assert newsagent.get() == refusal(NOT_LIVE.format("get voucher details"))
    assert newsagent.replace() == refusal(NOT_LIVE.format("replace voucher(s)"))
    assert newsagent.cancel() == refusal(NOT_LIVE.format("cancel vouchers"))
    assert newsagent.set_holiday("2099-01-01", "2099-01-02") == refusal(NOT_LIVE.format("create holiday"))
    assert [one["lastActiveDay"] for one in sandbox.ledger()["cancellations"]] == [None]
    made = newsagent.create(scheme="GuardianSunday")
    assert made["schemeName"] == "GuardianSunday"
    assert [one["voucherCode"] for one in made["subscriptionVouchers"]] == [*old, *codes(made)]


def test_what_was_never_there_is_refused(newsagent):
    assert newsagent.get() == refusal(NOT_LIVE.format("get voucher details"))
    assert newsagent.history() == refusal(NOT_LIVE.format("get redemption history"))


def test_a_last_active_day_is_still_active_in_london(at, sandbox, newsagent):
    newsagent.create()
    assert newsagent.cancel(LastActiveDay="2025-06-10") == newsagent.cancel(LastActiveDay="2025-06-10") == DONE
    assert [one["count"] for one in sandbox.ledger()["cancellations"]] == [1]
    at("2025-06-10T22:59:00Z")
    assert newsagent.get()["successfulRequest"] is True
    at("2025-06-10T23:00:00Z")
    assert newsagent.get()["successfulRequest"] is False
    assert newsagent.create()["successfulRequest"] is True
    assert newsagent.get()["successfulRequest"] is True


def test_a_last_active_day_in_the_past_ends_it_at_once(at, newsagent):
    newsagent.create()
    assert newsagent.cancel(LastActiveDay="2025-03-09") == DONE
    assert newsagent.get()["successfulRequest"] is False


def test_holidays_start_tomorrow_and_do_not_overlap(at, sandbox, newsagent):
    newsagent.create()
    for start, end in [("2025-03-10", "2025-03-20"), ("2025-03-12", "2025-03-12"), ("2025-03-13", "2025-03-12")]:
        assert newsagent.set_holiday(start, end) == refusal(PAST)
    assert newsagent.set_holiday("2025-03-11", "2025-03-13") == DONE
    for start, end in [("2025-03-11", "2025-03-13"), ("2025-03-12", "2025-03-20")]:
        assert newsagent.set_holiday(start, end) == refusal(CONFLICT)
    assert newsagent.set_holiday("2025-03-13", "2025-03-14") == DONE
    assert newsagent.set_holiday("2025-03-20", "2025-03-21") == DONE
    assert newsagent.set_holiday("2025-03-18", "2025-03-20") == DONE
    first, second, *_ = sandbox.ledger()["holidays"]
    assert (first["startDate"], first["reactivationDate"], first["count"]) == ("2025-03-11", "2025-03-13", 1)
    assert second["startDate"] == "2025-03-13"


def test_no_holiday_is_taken_while_one_is_running(at, newsagent):
    newsagent.create()
    newsagent.set_holiday("2025-03-11", "2025-03-13")
    at("2025-03-11T00:00:00Z")
    assert newsagent.set_holiday("2025-04-01", "2025-04-02") == refusal(CONFLICT)
    at("2025-03-13T00:59:59Z")
    assert newsagent.set_holiday("2025-04-01", "2025-04-02") == refusal(CONFLICT)
    at("2025-03-13T01:00:00Z")
    assert newsagent.set_holiday("2025-04-01", "2025-04-02") == DONE


def test_a_new_voucher_has_no_holidays(at, newsagent):
    newsagent.create()
    newsagent.set_holiday("2025-03-11", "2025-03-13")
    newsagent.cancel()
    newsagent.create()
    assert newsagent.set_holiday("2025-03-11", "2025-03-13") == DONE


def test_today_is_londons_today(at, newsagent):
    newsagent.create()
    at("2025-06-10T23:30:00Z")
    assert newsagent.set_holiday("2025-06-11", "2025-06-12") == refusal(PAST)
    assert newsagent.set_holiday("2025-06-12", "2025-06-13") == DONE


def test_history_shows_made_up_lines_of_every_code_also_after_the_end(newsagent):
    card, letter = codes(newsagent.create())
    newsagent.cancel()
    found = newsagent.history()
    assert (found["subscriptionId"], found["lines"]) == (newsagent.subscription_id, 4)
    lines = found["voucherHistoryItem"]
    assert {one["voucherCode"] for one in lines} == {card, letter}
    assert {one["voucherType"] for one in lines} == {"Card", "Letter"}
    assert {one["address"] for one in lines} == {None, "12 High Street"}
    assert None in {one["postCode"] for one in lines}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", one["date"]) for one in lines)
    assert newsagent.history(3)["voucherHistoryItem"] == lines[:3]
    assert lines == sorted(lines, key=lambda one: one["date"], reverse=True)


@pytest.mark.parametrize("key", [None, "", "other"])
def test_a_wrong_key_is_401(sandbox, newsagent, key):
    headers = newsagent.headers() | {"X-API-KEY": key}
    url = f"{sandbox.url('imovo')}/Subscription/GetSubscriptionVoucherDetails?SubscriptionId=1"
    answer = requests.get(url, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()) == (401, refusal("Unauthorized"))


@pytest.mark.parametrize("changes", [{"Accept": "*/*"}, {"X-Correlation-ID": None}, {"data": "x"}])
def test_a_call_has_its_headers_and_no_body(sandbox, newsagent, changes):
    newsagent.create()
    headers = newsagent.headers() | {name: value for name, value in changes.items() if name != "data"}
    url = f"{sandbox.url('imovo')}/Subscription/CancelSubscriptionVoucher?SubscriptionId={newsagent.subscription_id}"
    answer = requests.get(url, headers=headers, data=changes.get("data"), timeout=60)
    assert (answer.status_code, answer.json()["successfulRequest"]) == (400, False)
    assert newsagent.get()["successfulRequest"] is True


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("GetSubscriptionVoucherDetails", {"SubscriptionId": ""}),
        ("GetSubscriptionVoucherDetails", {"MaxLines": 1}),
        ("RequestSubscriptionVouchers", {"SchemeName": "Guardian7Day"}),
        ("RequestSubscriptionVouchers", {"SchemeName": "Guardian7Day", "StartDate": "11/03/2025"}),
        ("RequestSubscriptionVouchers", {"SchemeName": "Guardian7Day", "StartDate": "20250311"}),
        ("ReplaceVoucherBySubscriptionId", {"SubscriptionType": "Card"}),
        ("CancelSubscriptionVoucher", {"LastActiveDay": "2025-02-29"}),
        ("SubscriptionRedemptionHistory", {"MaxLines": "0"}),
    ],
)
def test_a_malformed_call_is_400_without_effect(sandbox, newsagent, name, query):
    answer = newsagent.call(name, **query)
    assert (answer.status_code, answer.json()["successfulRequest"]) == (400, False)
    assert not any(sandbox.ledger()["totals"].values())


def test_another_method_or_path_is_unknown(sandbox, newsagent):
    url = f"{sandbox.url('imovo')}/Subscription/GetSubscriptionVoucherDetails"
    assert requests.post(url, headers=newsagent.headers(), timeout=60).status_code == 404
    assert newsagent.call("getsubscriptionvoucherdetails").status_code == 404


def test_calls_are_named_and_shown_with_their_query(sandbox, newsagent):
    newsagent.create()
    newsagent.cancel(LastActiveDay="2099-01-01")
    names = [(one["call"], one["query"]) for one in sandbox.calls(upstream="imovo")]
    mine = {"SubscriptionId": newsagent.subscription_id}
    assert names == [
        ("create-voucher", mine | {"SchemeName": "Guardian7Day", "StartDate": "2025-03-11"}),
        ("cancel-voucher", mine | {"LastActiveDay": "2099-01-01"}),
    ]


def test_subscriptions_know_nothing_of_each_other_and_reset_forgets_all(sandbox, newsagent):
    newsagent.create()
    newsagent.subscription_id = newsagent.subscription_id.lower()
    assert newsagent.get()["successfulRequest"] is False
    newsagent.create()
    sandbox.reset()
    assert newsagent.get()["successfulRequest"] is False
