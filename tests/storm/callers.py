"""Callers as they are: many at a time, and a request without an answer is sent again under its key until it has one."""

import queue
import random
import threading
import time
from collections.abc import Sequence

import requests

from tests.storm.orders import Answer, Order, Request

THREADS = 24
_LIMITS = 2.0, 10.0  # seconds to connect, to be answered
_PATIENCE = 150.0  # a key whose request died with Postgres is free again after 40 s
_BEING_ACCEPTED = "being accepted"  # the same request runs at this moment: ask again


class Callers:
    """Places every order at its time, in threads that end with the last one, or when told to."""

    def __init__(self, url: str, key: str, orders: Sequence[Order], *, seconds: float) -> None:
        self._url, self._key = url, key
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._waiting: queue.SimpleQueue[tuple[float, Order]] = queue.SimpleQueue()
        for number, order in enumerate(orders):
            self._waiting.put((self._begun + seconds * number / len(orders), order))
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(THREADS)]
        self.given_up: list[Request] = []
        self.broken: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Send nothing more."""
        self._over.set()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _call(self, number: int) -> None:
        dice = random.Random(number)
        with requests.Session() as session:
            while not self._over.is_set():
                try:
                    at, order = self._waiting.get_nowait()
                except queue.Empty:
                    return
                self._over.wait(max(at - time.monotonic(), 0))
                try:
                    self._place(order, session, dice)
                except BaseException as error:  # noqa: BLE001 - told at the end
                    self.broken.append(error)

    def _place(self, order: Order, session: requests.Session, dice: random.Random) -> None:
        asking = order.requests()
        request = next(asking)
        try:
            while (answer := self._answered(request, session, dice)) is not None:
                request = asking.send(answer)
        except StopIteration:
            return
        if not self._over.is_set():
            self.given_up.append(request)

    def _answered(self, request: Request, session: requests.Session, dice: random.Random) -> Answer | None:
        self._over.wait(request.pause)
        give_up, times = time.monotonic() + _PATIENCE, 0
        while time.monotonic() < give_up and not self._over.is_set():
            times += 1
            response = self._sent(request, session)
            if response is not None and _is_an_answer(response):
                return Answer(request, response.status_code, response.json() if response.content else None, times)
            self._over.wait(dice.uniform(0.2, 1.0))
        return None

    def _sent(self, request: Request, session: requests.Session) -> requests.Response | None:
        own = {"x-api-key": self._key, "Idempotency-Key": request.name, "X-Correlation-ID": request.name}
        url, headers = self._url + request.path, own | dict(request.headers)
        try:
            return session.request(request.method, url, json=request.body, headers=headers, timeout=_LIMITS)
        except requests.RequestException:
            return None


def _is_an_answer(response: requests.Response) -> bool:
    status = response.status_code
    return status < 500 and status != 423 and not (status == 409 and _BEING_ACCEPTED in response.text)
