"""Callers as they are: many at a time, and a request without an answer is sent again under its key until it has one."""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import requests

from tests.storm.orders import Answer, Order, Request

THREADS = 64
REFUSED = "refused connection"  # no process listens there: nothing was sent, and another instance may be asked
_LIMITS = 2.0, 10.0  # seconds to connect, to be answered
_PATIENCE = 150.0  # a key whose request died with Postgres is free again after 40 s
_BEING_ACCEPTED = "being accepted"  # the same request runs at this moment: ask again
_KEPT = ("id", "_id", "operationId")  # of an answer's body


class Rotation:
    """The instances of the API that a balancer would send requests to. Safe to use from several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(urls)

    def any(self) -> str:
        return random.choice(self._urls)

    def without(self, url: str) -> None:
        self._urls = tuple(one for one in self._urls if one != url)

    def back(self, url: str) -> None:
        self._urls = (*self._urls, url)


class Callers:
    """Places the orders one by one, those of a kind in turn and while there is `room` for it, in threads that end with
    the last one, or when told to; each of the THREADS rests between two orders, for `rest` seconds in the mean.

    `troubles`: how often a request was not answered as it should be, by what came instead: a status of 5xx, REFUSED, or
    the error that broke it off.
    """

    def __init__(
        self, at: Rotation, key: str, orders: Sequence[Order], *, room: Callable[[str], bool], rest: float = 0
    ) -> None:
        self._at, self._key, self._room, self._rest = at, key, room, rest
        self._orders: dict[str, deque[Order]] = {}
        for order in orders:
            self._orders.setdefault(order.kind, deque()).append(order)
        self._next = threading.Lock()
        self._closed, self._over = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(THREADS)]
        self.given_up: list[Request] = []
        self.broken: list[BaseException] = []
        self.troubles: Counter[str] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Begin no further order."""
        self._closed.set()

    def end(self) -> None:
        """Send nothing more."""
        self.close()
        self._over.set()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _call(self, number: int) -> None:
        dice = random.Random(number)
        with requests.Session() as session:
            while (order := self._next_order(dice)) is not None:
                try:
                    self._place(order, session, dice)
                except BaseException as error:  # noqa: BLE001 - told at the end
                    self.broken.append(error)
                self._closed.wait(dice.uniform(0, 2 * self._rest))

    def _next_order(self, dice: random.Random) -> Order | None:
        while not self._closed.is_set():
            with self._next:
                left = [orders for orders in self._orders.values() if orders]
                if not left:
                    return None
                if wanted := [orders for orders in left if self._room(orders[0].kind)]:
                    return dice.choices(wanted, [len(orders) for orders in wanted])[0].popleft()
            self._closed.wait(dice.uniform(0.1, 0.5))
        return None

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
                return Answer(response.status_code, _kept(response), times)
            self._over.wait(dice.uniform(0.2, 1.0))
        return None

    def _sent(self, request: Request, session: requests.Session) -> requests.Response | None:
        own = {"x-api-key": self._key, "Idempotency-Key": request.name, "X-Correlation-ID": request.name}
        url, headers = self._at.any() + request.path, own | dict(request.headers)
        try:
            response = session.request(request.method, url, json=request.body, headers=headers, timeout=_LIMITS)
        except requests.RequestException as error:
            self._trouble(trouble(error))
            return None
        if response.status_code >= 500:
            self._trouble(str(response.status_code))
        return response

    def _trouble(self, what: str) -> None:
        with self._next:
            self.troubles[what] += 1


def trouble(error: requests.RequestException) -> str:
    """What broke a request off, in a word or two."""
    return REFUSED if "Connection refused" in str(error) else type(error).__name__


def _is_an_answer(response: requests.Response) -> bool:
    status = response.status_code
    return status < 500 and status != 423 and not (status == 409 and _BEING_ACCEPTED in response.text)


def _kept(response: requests.Response) -> dict[str, str]:
    body = response.json() if response.content else {}
    return {name: body[name] for name in _KEPT if name in body}
