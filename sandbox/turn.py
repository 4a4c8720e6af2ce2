"""One call being played: its route, its effect (atomic, under the one lock), its sleep, and its late self."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from sandbox.messages import Answer, Refusal, Request
from sandbox.world import Interrupted, World


class Call(NamedTuple):
    """A call by its name, what it does (under the lock; may raise Refusal), and the ids in its path."""

    name: str
    perform: Callable[..., Answer]
    ids: Mapping[str, str] = {}


class Upstream(Protocol):
    """What an upstream's module offers. Everything but `route`, `error` and `empty` runs under the world's lock."""

    name: str
    calls: tuple[str, ...]
    faults: Mapping[str, Any]

    def route(self, request: Request, /) -> Call | None:
        """The call that a request is; None when there is no such path."""

    def traits(self, call: Call, request: Request, /) -> Mapping[str, Any]:
        """What a fault's `match` may look at, beyond the body's members and the ids of the path."""

    def error(self, status: int, message: str, /) -> Answer:
        """An error in this upstream's own shape."""

    def empty(self, call: str, request: Request, /) -> Answer:
        """A success of that call with nothing in it: no id, no token, an empty list."""

    def reset(self) -> None:
        """Forgets everything."""


class Turn:
    """A call while it is played."""

    def __init__(self, *, world: World, upstream: Upstream, call: Call, request: Request) -> None:
        self.world = world
        self.upstream = upstream
        self.call = call
        self.request = request
        self._epoch = world.epoch

    def perform(self, effect: Callable[..., Answer] | None = None) -> Answer:
        """The effect (the call's own unless told) and its answer.

        Raises Interrupted, without effect, when the sandbox was reset meanwhile.
        """
        with self.world.lock:
            if self._epoch.over:
                raise Interrupted
            try:
                answer = (effect or self.call.perform)(self.request, **self.call.ids)
            except Refusal as refusal:
                return refusal.answer
        if answer.first is not None:
            answer.first()
        return answer

    def perform_as_is(self, _: Mapping[str, Any]) -> Answer:
        """For a fault that leaves the call itself alone."""
        return self.perform()

    def rest(self, seconds: float) -> None:
        self._epoch.rest(seconds)

    def perform_later(self, seconds: float) -> None:
        self.world.scheduler.later(seconds, lambda: void(self.perform()))

    def traits(self) -> dict[str, Any]:
        """Everything a fault's `match` may compare with."""
        with self.world.lock:
            found = dict(self.upstream.traits(self.call, self.request))
        own = {"correlation_id": self.request.correlation_id, "path": self.request.path}
        return {**self.request.arguments, **self.request.members(), **own, **self.call.ids, **found}


def void(_: Answer) -> None:
    """For an answer that nobody gets."""
