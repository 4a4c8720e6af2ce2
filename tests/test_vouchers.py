"""The pure rules of the vouchers: schemes, London dates around midnight and both clock changes, and texts."""

from datetime import UTC, date, datetime

import pytest
import time_machine

from app import vouchers


def test_every_plan_has_its_scheme_with_and_without_plus():
    assert vouchers.SCHEMES["Everyday+"] == vouchers.SCHEMES["Everyday"] == "Guardian7Day"
    assert vouchers.SCHEMES["Sixday+"] == vouchers.SCHEMES["Sixday"] == "Guardian6Day"
    assert vouchers.SCHEMES["Weekend"] == "GuardianWeekend"
    assert vouchers.SCHEMES["Saturday+"] == "GuardianSaturday"
    assert vouchers.SCHEMES["Sunday"] == "GuardianSunday"
    assert len(vouchers.SCHEMES) == 10
    assert "everyday" not in vouchers.SCHEMES


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2025-03-29T23:59:59+00:00", date(2025, 3, 29)),  # the night in which the clocks go forward
        ("2025-03-30T00:00:00+00:00", date(2025, 3, 30)),
        ("2025-03-30T22:59:59+00:00", date(2025, 3, 30)),
        ("2025-03-30T23:00:00+00:00", date(2025, 3, 31)),
        ("2025-10-25T22:59:59+00:00", date(2025, 10, 25)),  # the night in which they go back
        ("2025-10-25T23:00:00+00:00", date(2025, 10, 26)),
        ("2025-10-26T23:59:59+00:00", date(2025, 10, 26)),
        ("2025-10-27T00:00:00+00:00", date(2025, 10, 27)),
    ],
)
def test_days_are_londons(environment: dict[str, str], now: str, day: date):
    with time_machine.travel(datetime.fromisoformat(now), tick=False):
        assert vouchers.today() == day
        assert (vouchers.tomorrow() - day).days == 1


def test_the_day_is_that_of_the_zone_that_is_set(set_settings):
    set_settings(VOUCHER_TIME_ZONE="Pacific/Auckland")
    with time_machine.travel(datetime(2025, 3, 10, 12, tzinfo=UTC), tick=False):
        assert vouchers.today() == date(2025, 3, 11)


def test_a_suspension_is_lifted_at_twenty_past_two_utc_in_summer_too():
    assert vouchers.lifted_at(date(2025, 7, 1)) == datetime(2025, 7, 1, 2, 20, tzinfo=UTC)


def test_texts_name_the_kinds_in_one_order():
    text = "The card and letter of subscription a1 was already replaced on 2025-03-10"
    assert vouchers.already_replaced("a1", {"letter", "card"}, date(2025, 3, 10)) == text
    assert vouchers.unchanged(["letter"]) == "i-Movo reported a replacement but the letter did not change"


def test_a_refusal_without_texts_says_so():
    assert vouchers.refused("cancel", "") == "i-Movo refused to cancel the voucher: no reason given"
    assert vouchers.refused("create", "No; never") == "i-Movo refused to create the voucher: No; never"


def test_schemes_are_compared_ignoring_case():
    assert vouchers.same_scheme("guardian7day", "Guardian7Day")
    assert not vouchers.same_scheme(None, None)
