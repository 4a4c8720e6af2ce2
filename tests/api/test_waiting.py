"""For how many requests of a process there is room to wait. What is answered when a wait is over: see each route."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from app import queue
from app.api import waiting
from tests.api.declaration_factories import Passengers
from tests.api.factories import visit
from tests.flows.declared import failed
from tests.system.conftest import wait_for

Requests = list[Callable[[], Any]]
REPLAY = {"filter": {}, "reason": "port list corrected"}


class Room:
    """Who waits, waits until it is `over`."""

    def __init__(self) -> None:
        self.waiting, self.over, self._lock = 0, threading.Event(), threading.Lock()

    def until(self, reached: Any, *, seconds: float) -> None:
        with self._lock:
            self.waiting += 1
        assert self.over.wait(300)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    found = Room()
    monkeypatch.setattr(waiting, "until", found.until)
    yield found
    found.over.set()


def at_once(room: Room, requests: Requests) -> tuple[int, list[Any]]:
    """Of requests at the same time: how many of them wait, and the answers of the others."""
    with ThreadPoolExecutor(len(requests)) as callers:
        sent = [callers.submit(request) for request in requests]
        try:
            wait_for(lambda: room.waiting + sum(one.done() for one in sent) == len(sent), seconds=100)
            return room.waiting, [one.result() for one in sent if one.done()]
        finally:
            room.over.set()


@pytest.fixture
def operator(add_client: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The headers of an operator who waits."""
    monkeypatch.setattr(queue, "send", lambda *args: None)
    return {"x-api-key": add_client("demo-operator", scopes=["operator"], product=None), "Prefer": "wait=20"}


@pytest.fixture
def claimed(app: Any, key: str, dispatched: Any) -> Callable[[int], Requests]:
    """Requests of clients that wait, each for a claim of its own."""
    headers = {"x-api-key": key, "Prefer": "wait=20"}

    def file(number: int) -> Any:
        return app.test_client().post("/travel-claims", json=visit(number), headers=headers)

    return lambda many: [partial(file, number) for number in range(many)]


@pytest.fixture
def paid(app: Any, passengers: Passengers, dispatched: Any) -> Callable[[int], Requests]:
    """Notices of payments by clients that wait for what becomes of them."""

    def pay(reference: str) -> Any:
        return Passengers(app.test_client(), passengers.key).update(reference, Prefer="wait=20")

    return lambda many: [partial(pay, passengers.made()) for _ in range(many)]


@pytest.fixture
def provided(app: Any, salesforce: str, dispatched: Any) -> Callable[[int], Requests]:
    """Vouchers that clients wait for."""

    def create(number: int) -> Any:
        place, headers = f"/DEV/digital-voucher/a2F5I00000{number:08}", {"x-api-key": salesforce}
        return app.test_client().put(place, json={"ratePlanName": "Sunday"}, headers=headers)

    return lambda many: [partial(create, number) for number in range(many)]


def test_claims_wait_on_half_of_the_threads_and_beyond_are_answered_at_once(room, claimed, set_settings):
    set_settings(WEB_THREADS=8, VOUCHER_MAX_WAITING=4)
    waits, answers = at_once(room, claimed(7))
    assert (waits, [one.status_code for one in answers]) == (4, [202] * 3)
    for one in answers:
        assert one.headers["Location"] == f"/travel-claims/{one.json['id']}"


def test_notices_wait_on_half_of_the_threads_and_beyond_are_answered_at_once(room, paid, set_settings):
    set_settings(WEB_THREADS=8, VOUCHER_MAX_WAITING=4)
    waits, answers = at_once(room, paid(7))
    assert (waits, [(one.status_code, one.data) for one in answers]) == (4, [(202, b"")] * 3)


def test_all_lines_together_leave_a_quarter_of_the_threads_to_others(room, claimed, paid, provided, set_settings):
    set_settings(WEB_THREADS=8, VOUCHER_MAX_WAITING=4)
    waits, answers = at_once(room, [*claimed(4), *paid(4), *provided(4)])
    assert (waits, [one.status_code for one in answers]) == (6, [202] * 6)


def test_many_who_wait_for_claims_leave_places_for_vouchers(room, claimed, provided, set_settings):
    set_settings(WEB_THREADS=8, VOUCHER_MAX_WAITING=4)
    waits, answers = at_once(room, [*claimed(8), *provided(2)])
    assert (waits, [one.json["state"] for one in answers]) == (6, ["accepted"] * 4)


def test_where_there_is_one_thread_nobody_waits_for_a_claim_or_a_replay(room, app, claimed, operator, set_settings):
    set_settings(WEB_THREADS=1, IMOVO_URL="")
    failed()
    (file,) = claimed(1)
    waits, (filed,) = at_once(room, [file])
    look = partial(app.test_client().get, filed.headers["Location"], headers=operator)
    replay = partial(app.test_client().post, "/bc-passengers-declarations/replay", json=REPLAY, headers=operator)
    waits, answers = at_once(room, [look, replay])
    assert (waits, sorted(one.status_code for one in answers)) == (0, [200, 202])


def test_whoever_leaves_gives_the_place_back(room, claimed, set_settings):
    set_settings(WEB_THREADS=2, VOUCHER_MAX_WAITING=1)
    first, second, third = claimed(3)
    waits, answers = at_once(room, [first, second])
    assert (waits, len(answers)) == (1, 1)
    third()
    assert room.waiting == 2


def test_whoever_fails_while_waiting_gives_the_place_back(room, claimed, set_settings, monkeypatch):
    set_settings(WEB_THREADS=2, VOUCHER_MAX_WAITING=1)
    first, second = claimed(2)
    with monkeypatch.context() as broken:
        broken.setattr(waiting, "until", lambda *args, **rest: 1 / 0)
        assert first().status_code == 500
    room.over.set()
    second()
    assert room.waiting == 1
