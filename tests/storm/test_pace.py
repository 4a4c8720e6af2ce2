"""The storm knows how far it is, when there is room for more, and when nothing goes on; it counts each call once."""

import random
import time
from typing import Any

import pytest
import requests

from tests.storm import callers, orders, pace
from tests.storm.callers import Callers, Rotation
from tests.storm.pace import Pace
from tests.storm.sent import DECLARING, Sent

URL = "http://127.0.0.1:1"


def test_the_load_is_what_somebody_has_to_work_at() -> None:
    at = Pace("", target=1_000, say=print)
    at.noted([("claim", pace.MOST_OPEN + 90, 90, 0), ("declaration", pace.MOST_OPEN, 0, 1)], 0.0)
    assert (at.room("claim"), at.room("declaration"), at.room("notification")) == (False, True, True)
    assert at.open.total() == 2 * pace.MOST_OPEN - 1


def test_the_rate_is_that_of_the_last_minute() -> None:
    at = Pace("", target=1_000, say=print)
    at._past.clear()
    for second in range(121):
        at.noted([("claim", 400, second if second < 60 else 60 + 3 * (second - 60), 0)], float(second))
    assert at.rate == pytest.approx(3.0)
    assert at.line() == "240 of 1,000 finished, 160 under way, 3.0/s, 4.2 min left"


def test_nothing_goes_on_when_nothing_has_ended_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    at, clock = Pace("", target=1, say=print), [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def stuck(finished: int, *, after: float) -> bool:
        clock[0] += after
        at.noted([("claim", 9, finished, 0)], clock[0])
        return at.stuck

    assert not stuck(1, after=1)
    assert not stuck(1, after=pace.STUCK_SECONDS)
    assert stuck(1, after=1)
    assert not stuck(2, after=1)


def test_each_call_is_counted_once_however_often_it_is_read() -> None:
    body = {"simpleDeclarationRequest": {"requestCommon": {"acknowledgementReference": "X10"}}}
    log: list[dict[str, Any]] = [
        {"call": DECLARING, "number": 1, "body": body},
        {"call": "replace-voucher", "number": 3, "query": {"SubscriptionId": "S"}},
    ]
    asked: list[str] = []

    def get(path: str) -> dict[str, Any]:
        asked.append(path)
        return {"calls": [one for one in log if f"call={one['call']}&" in path]}

    sent = Sent(get)
    sent.read()
    log += [
        {"call": "replace-voucher", "number": 2, "query": {"SubscriptionId": "S"}},  # told later than its successor
        {"call": "set-holiday", "number": 900, "query": {"SubscriptionId": "S"}},
    ]
    sent.read()
    sent.read()
    assert (dict(sent.declarations), dict(sent.vouchers)) == ({"X10": 1}, {"S": 3})
    assert "calls?call=set-holiday&after=700" in asked


def test_a_line_without_room_leaves_the_others_alone() -> None:
    placed = orders.chosen(random.Random(1), 1, 30)
    asking = Callers(Rotation([]), "", placed, room=lambda kind: kind != "claim")
    dice = random.Random(2)
    some = [asking._next_order(dice) for _ in range(10)]
    assert {type(one) for one in some} == {orders.Declaration, orders.Subscription}


def test_what_is_out_of_rotation_is_asked_for_nothing() -> None:
    at = Rotation([URL])
    at.back("http://127.0.0.1:2")
    at.without(URL)
    assert {at.any() for _ in range(20)} == {"http://127.0.0.1:2"}


def test_a_refused_connection_is_told_from_one_that_broke() -> None:
    with pytest.raises(requests.ConnectionError) as refused:
        requests.get(URL, timeout=5)
    assert callers.trouble(refused.value) == callers.REFUSED
    broken = requests.ConnectionError("('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))")
    assert callers.trouble(broken) == "ConnectionError"
