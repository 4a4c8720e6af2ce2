"""i-Movo's faults, seen from the caller: what is answered, and whether the effect took place."""

from datetime import date

import pytest
import requests
import time_machine


def codes(shown):
    return {one["subscriptionType"]: one["voucherCode"] for one in shown["subscriptionVouchers"]}


@pytest.fixture
def effects(sandbox):
    """How many kinds were replaced."""
    return lambda: sandbox.ledger()["totals"]["replacements"]


@pytest.mark.parametrize("effect", [True, False])
def test_refused_tells_the_given_texts(*, sandbox, newsagent, effects, effect):
    newsagent.create()
    sandbox.fault("replace-voucher", "refused", texts=["One", "Two"], effect=effect, times=1)
    assert newsagent.replace() == {"errorMessages": ["One", "Two"], "successfulRequest": False}
    assert effects() == 2 * effect
    sandbox.fault("*", "refused", texts=[], status=422, upstream="imovo")
    answer = newsagent.call("SetHoliday")
    assert (answer.status_code, answer.json()["errorMessages"]) == (422, [])


@pytest.mark.parametrize("effect", [True, False])
def test_empty_list_is_a_success_without_codes(*, sandbox, newsagent, effects, effect):
    made = newsagent.create()
    sandbox.fault("replace-voucher", "empty-list", effect=effect)
    assert newsagent.replace() == made | {"subscriptionVouchers": []}
    assert effects() == 2 * effect


def test_empty_list_of_a_create_and_of_the_history(sandbox, newsagent):
    sandbox.fault("*", "empty-list", upstream="imovo")
    shown = newsagent.create()
    assert (shown["schemeName"], shown["subscriptionId"]) == ("Guardian7Day", newsagent.subscription_id)
    assert (newsagent.history()["lines"], newsagent.history()["voucherHistoryItem"]) == (0, [])
    assert sandbox.ledger()["totals"]["vouchers"] == 0


@pytest.mark.parametrize("effect", [True, False])
def test_inactive_only_shows_no_active_type(*, sandbox, newsagent, effects, effect):
    newsagent.create()
    sandbox.fault("replace-voucher", "inactive-only", effect=effect)
    shown = newsagent.replace()
    assert (shown["successfulRequest"], codes(shown).keys()) == (True, {"InactiveCard", "InactiveLetter"})
    assert effects() == 2 * effect


@pytest.mark.parametrize(("kind", "left"), [("card", "ActiveLetter"), ("letter", "ActiveCard")])
def test_kind_missing_leaves_one_active_type(*, sandbox, newsagent, kind, left):
    sandbox.fault("create-voucher", "kind-missing", kind=kind)
    assert codes(newsagent.create()).keys() == {left}
    assert codes(newsagent.get()).keys() == {"ActiveCard", "ActiveLetter"}


@pytest.mark.parametrize("effect", [True, False])
def test_same_codes_claims_a_replacement_that_does_not_show(*, sandbox, newsagent, effects, effect):
    made = newsagent.create()
    sandbox.fault("replace-voucher", "same-codes", effect=effect)
    assert newsagent.replace() == made
    assert effects() == 2 * effect
    assert (codes(newsagent.get()) != codes(made)) == effect


def test_same_codes_of_what_is_not_live_is_the_refusal(sandbox, newsagent):
    sandbox.fault("replace-voucher", "same-codes")
    assert newsagent.replace()["successfulRequest"] is False


@pytest.mark.parametrize("kind", ["card", "letter"])
def test_half_replaced_changes_one_kind_whatever_was_asked(sandbox, newsagent, kind):
    old = codes(newsagent.create())
    sandbox.fault("replace-voucher", "half-replaced", kind=kind)
    new = codes(newsagent.replace())
    assert {name for name in old if old[name] != new[name]} == {f"Active{kind.capitalize()}"}
    assert [one["kind"] for one in sandbox.ledger()["replacements"]] == [kind]


def test_half_replaced_may_be_refused_or_lost(sandbox, newsagent, effects):
    newsagent.create()
    sandbox.fault("replace-voucher", "half-replaced", texts=["No."], times=1)
    assert newsagent.replace()["errorMessages"] == ["No."]
    sandbox.fault("replace-voucher", "half-replaced", lost=True)
    with pytest.raises(requests.ConnectionError):
        newsagent.replace()
    assert effects() == 2


@pytest.mark.parametrize("effect", [True, False])
def test_altered_shows_another_subscription_scheme_or_flag(*, sandbox, newsagent, effects, effect):
    made = newsagent.create()
    changes = {"subscriptionId": "other", "schemeName": "GuardianSunday", "successfulRequest": "true"}
    sandbox.fault("replace-voucher", "altered", members=changes, effect=effect)
    shown = newsagent.replace()
    assert (shown.keys(), shown | changes) == (made.keys(), shown)
    assert effects() == 2 * effect


def test_altered_leaves_members_out_and_refusals_alone(sandbox, newsagent):
    sandbox.fault("*", "altered", without=["successfulRequest"], upstream="imovo")
    assert newsagent.create().keys() == {"schemeName", "subscriptionId", "subscriptionVouchers"}
    assert newsagent.cancel() == {"message": "OK"}
    assert newsagent.call("SetHoliday").json()["successfulRequest"] is False


def test_missing_field_takes_the_codes_away(sandbox, newsagent):
    sandbox.fault("get-voucher", "missing-field")
    newsagent.create()
    assert newsagent.get()["subscriptionVouchers"] == [{"subscriptionType": f"Active{k}"} for k in ("Card", "Letter")]


def test_a_fault_may_be_for_one_subscription(sandbox, newsagent):
    sandbox.fault("*", "status", status=500, body="", match={"SubscriptionId": newsagent.subscription_id})
    assert newsagent.call("GetSubscriptionVoucherDetails").status_code == 500
    assert newsagent.call("GetSubscriptionVoucherDetails", SubscriptionId="other").status_code == 200


def test_a_status_without_body_speaks_i_movos_shape(sandbox, newsagent):
    sandbox.fault("get-voucher", "status", status=500, message="Oh.")
    assert newsagent.get() == {"errorMessages": ["Oh."], "successfulRequest": False}


def test_foreign_voucher_is_one_that_nobody_here_asked_for(sandbox, newsagent):
    planted = {"scheme": "GuardianSunday", "card_code": "6027181854"}
    sandbox.fault("create-voucher", "foreign-voucher", times=1, **planted)
    assert "already exist" in newsagent.create()["errorMessages"][0]
    shown = newsagent.get()
    assert (shown["schemeName"], codes(shown)["ActiveCard"]) == ("GuardianSunday", "6027181854")
    assert len(codes(shown)["ActiveLetter"]) == 10
    assert not any(sandbox.ledger()["totals"].values())
    sandbox.fault("get-voucher", "foreign-voucher", scheme="Guardian6Day")
    assert newsagent.get() == shown


def test_foreign_voucher_may_bring_a_holiday_that_is_running(sandbox, newsagent):
    with time_machine.travel("2025-04-03T12:00:00Z", tick=False):
        sandbox.fault("set-holiday", "foreign-voucher", holidays=[["2025-04-01", "2025-04-08"]])
        assert "conflicting holiday" in newsagent.set_holiday("2025-05-01", "2025-05-02")["errorMessages"][0]


def test_a_voucher_is_planted_without_a_call(sandbox, newsagent):
    days = (date(2025, 4, 1), date(2025, 4, 8))
    sandbox.upstreams["imovo"].plant(newsagent.subscription_id, codes={"letter": "9410023375"}, holidays=[days])
    assert codes(newsagent.get())["ActiveLetter"] == "9410023375"
    assert not any(sandbox.ledger()["totals"].values())
