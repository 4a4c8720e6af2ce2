"""The breaker of an upstream: so many failed calls in a row open it, then one probe at a time until one succeeds.

Its state is shared by all workers through Redis; without Redis each process goes on with what it knows. While the
breaker is closed that costs one look in 0.2 s and a write per failure.
"""

import contextlib
import json
import math
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

import redis
from redis.client import Pipeline

from app import errors, logs, metrics
from app.upstreams.shared import PREFIX, Shared

_FORGET_SECONDS = 600
_LOOK_SECONDS = 0.2
_IN_FLIGHT_SECONDS = 5.0
_SKEW_SECONDS = 5.0
_log = logs.get(__name__)


class State(IntEnum):
    CLOSED = 0
    PROBING = 1
    OPEN = 2


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`failures` in a row open the breaker. Times in seconds.

    `waits`: from the opening to the first probe, from the first failed probe to the second one, and so on; the last
    repeats. `probe`: how long a probe keeps others from probing when it does not end. `spread`: those who are held
    back come again over so long a time.
    """

    failures: int = 10
    waits: tuple[float, ...] = (0.0, 1.0)
    probe: float = 1.0
    spread: float = 0.5


def doubling(first: float, longest: float) -> tuple[float, ...]:
    """Waits that double from `first` up to `longest`."""
    waits = [first]
    while waits[-1] < longest:
        waits.append(min(2 * waits[-1], longest))
    return tuple(waits)


@dataclass(frozen=True)
class Circuit:
    """What is known: failures in a row, failed probes since the opening, the probe on its way, no other before `until`.

    Times by the clock of the hosts, for it is shared among them.
    """

    failures: int = 0
    lost: int = 0
    probe: str = ""
    until: float = 0.0

    def state(self, rule: Rule) -> State:
        if self.failures < rule.failures:
            return State.CLOSED
        return State.PROBING if self.probe else State.OPEN

    def wait(self, rule: Rule, now: float) -> float:
        """Seconds until a probe may go; 0 where a call may be made now. A clock that was set back holds nobody."""
        left = self.until - now
        if self.state(rule) is State.CLOSED or left > max(*rule.waits, rule.probe) + _SKEW_SECONDS:
            return 0.0
        return max(left, 0.0)

    def probed(self, rule: Rule, now: float) -> "Circuit":
        if self.state(rule) is State.CLOSED or self.wait(rule, now) > 0:
            return self
        return replace(self, probe=uuid.uuid4().hex, until=now + rule.probe)

    def failed(self, rule: Rule, now: float, ticket: str) -> "Circuit":
        """One more failure. Once open, only that of the present probe prolongs it: others had been sent before."""
        counted = replace(self, failures=self.failures + 1)
        if counted.failures == rule.failures:
            return replace(counted, lost=0, probe="", until=now + rule.waits[0])
        if not ticket or ticket != self.probe:
            return counted
        lost = min(self.lost + 1, len(rule.waits) - 1)
        return replace(counted, lost=lost, probe="", until=now + rule.waits[lost])

    def let_go(self, ticket: str) -> "Circuit":
        return replace(self, probe="", until=0.0) if ticket == self.probe else self


_CLOSED = Circuit()
Change = Callable[[Circuit, float], Circuit]


class Breaker:
    """`check` before a call, then `failed` or `succeeded`, or `let_go` when it came to neither.

    `shown` is told the state whenever this process learns it.
    """

    def __init__(
        self, name: str, shared: Shared, rule: Rule | None = None, shown: Callable[[State], None] | None = None
    ) -> None:
        self._name = name
        self._shared = shared
        self._rule = rule or Rule()
        self._shown = shown
        self._key = f"{PREFIX}breaker:{name}"
        self._lock = threading.Lock()
        self._circuit = _CLOSED
        self._look_again = 0.0
        self._open = metrics.upstream_breaker_open.labels(name)

    def check(self) -> str:
        """Pass if a call may be made: "", or the ticket of the probe, to be handed to what ends it.

        Raises NotSent while open; `after` is the time until the next probe may go, or a few seconds at most while one
        is on its way. What other processes counted is noticed within 0.2 s.
        """
        if self._look(fresh=self._circuit.state(self._rule) is not State.CLOSED).state(self._rule) is State.CLOSED:
            return ""
        if self._circuit.wait(self._rule, time.time()) <= 0:
            before, after = self._change(lambda circuit, now: circuit.probed(self._rule, now))
            if after.probe != before.probe or after.state(self._rule) is State.CLOSED:
                return after.probe
        metrics.upstream_not_sent.labels(self._name, "breaker").inc()
        raise errors.NotSent("breaker", after=self._left() + random.uniform(0, self._rule.spread))

    def open_for(self) -> float:
        """Seconds it stays open, as known within 0.2 s; 0 when a call may be made."""
        self._look(fresh=False)
        return self._left()

    def calls(self) -> float:
        """How many calls it would let through now: any number, or while open one probe where it is time for one."""
        if self._look(fresh=self._circuit.state(self._rule) is not State.CLOSED).state(self._rule) is State.CLOSED:
            return math.inf
        return 0 if self._circuit.wait(self._rule, time.time()) > 0 else 1

    def failed(self, ticket: str = "") -> None:
        """Count a failed call."""
        before, after = self._change(lambda circuit, now: circuit.failed(self._rule, now, ticket))
        if before.state(self._rule) is State.CLOSED and after.state(self._rule) is not State.CLOSED:
            wait = self._rule.waits[0]
            _log.warning("upstream.breaker_opened", upstream=self._name, failures=after.failures, seconds=wait)

    def succeeded(self) -> None:
        """Close it. Costs nothing while there was no failure."""
        if not self._circuit.failures:
            return
        before, _ = self._change(lambda _circuit, _now: _CLOSED)
        if before.state(self._rule) is not State.CLOSED:
            _log.info("upstream.breaker_closed", upstream=self._name, failures=before.failures)

    def let_go(self, ticket: str) -> None:
        """Let another one probe; nothing where the ticket's probe has ended, or is none."""
        if ticket:
            self._change(lambda circuit, _now: circuit.let_go(ticket))

    def _left(self) -> float:
        circuit = self._circuit
        left = circuit.wait(self._rule, time.time())
        return min(left, _IN_FLIGHT_SECONDS) if circuit.probe else left

    def _look(self, *, fresh: bool) -> Circuit:
        if fresh or time.monotonic() >= self._look_again:
            self._look_again = time.monotonic() + _LOOK_SECONDS
            with contextlib.suppress(redis.RedisError):
                self._learn(self._shared.ask(lambda client: _read(client.get(self._key))))
        return self._circuit

    def _change(self, change: Change) -> tuple[Circuit, Circuit]:
        """The state before and after; where Redis is away, of this process."""
        try:
            before, after = self._shared.ask(lambda client: self._change_shared(client, change))
            self._learn(after)
        except redis.RedisError:
            with self._lock:
                before = self._circuit
                after = change(before, time.time())
                self._learn(after)
        return before, after

    def _change_shared(self, client: redis.Redis, change: Change) -> tuple[Circuit, Circuit]:
        seen: list[tuple[Circuit, Circuit]] = []

        def attempt(pipe: Pipeline) -> None:
            before = _read(pipe.get(self._key))
            after = change(before, time.time())
            seen.append((before, after))
            pipe.multi()
            if after != before:
                pipe.set(self._key, json.dumps(asdict(after)), ex=_FORGET_SECONDS)

        client.transaction(attempt, self._key)
        return seen[-1]

    def _learn(self, circuit: Circuit) -> None:
        self._circuit = circuit
        state = circuit.state(self._rule)
        self._open.set(state is not State.CLOSED)
        if self._shown:
            self._shown(state)


def _read(stored: Any) -> Circuit:
    return Circuit(**json.loads(stored)) if stored else _CLOSED
