"""Crash points: a warm parent that forks workers, and what is tried with them."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from app import boundaries
from sandbox import Sandbox
from tests.crash.carrying import carry
from tests.crash.scenarios import Scenario

ROOT = Path(__file__).parents[2]
STALL_SECONDS = 0.5  # longer than a stalled worker may send after its intent, and than it may hold a transaction
TRIES = 5
QUICK = {
    "TRAVEL_PAY_CONNECT_TIMEOUT": "10",
    "TRAVEL_PAY_READ_TIMEOUT": "20",
    "TRAVEL_PAY_AUTH_READ_TIMEOUT": "20",
    "NOTIFY_TIMEOUT": "20",
    "MDG_RATE_PER_SECOND": "1000",
    "IMOVO_RATE_PER_SECOND": "1000",
}


class Parent:
    """The warm parent, as the tests talk to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.warm"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout

    def run(
        self, workflow_id: UUID | None, settings: Mapping[str, str], *, at: int | str | None, how: str = "die"
    ) -> tuple[list[str], str]:
        """Let a worker carry it (None: sweep once), to its end or to boundary `at`.

        What it reached; `ended`, `died` or `stalls`.
        """
        workflow = str(workflow_id) if workflow_id else None
        self._tell({"workflow": workflow, "settings": {**QUICK, **settings}, "at": at, "how": how})
        reached: list[str] = []
        told = self._hear()
        if "reached" in told:
            reached, told = told["reached"], self._hear()
        if os.WIFSTOPPED(told["status"]):
            return reached, "stalls"
        code = os.waitstatus_to_exitcode(told["status"])
        assert code in (0, -9), f"the worker failed by itself: {code}"
        return reached, "died" if code else "ended"

    def go_on(self) -> None:
        """Wake the stalled workers, the first one first, and wait until each has ended."""
        self._tell("go on")
        while "went on" not in self._hear():
            pass

    def close(self) -> None:
        self._to.close()
        self._process.wait(60)
        self._from.close()

    def _tell(self, order: Any) -> None:
        self._to.write(json.dumps(order) + "\n")
        self._to.flush()

    def _hear(self) -> dict[str, Any]:
        line = self._from.readline()
        assert line, "the parent of the workers is gone"
        told: dict[str, Any] = json.loads(line)
        return told


@dataclass
class Trial:
    """Tries of one scenario, and what came out wrong."""

    scenario: Scenario
    parent: Parent
    sandbox: Sandbox
    forget: Callable[[], None]
    tried: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def way(self) -> list[str]:
        """The boundaries that an undisturbed worker reaches, in order."""
        return self._first(None, "die")[0]

    def die_at_each(self) -> None:
        """At every boundary a worker dies, and another recovers."""
        for at, boundary in enumerate(self.way()):
            for _ in range(TRIES):  # on a busy machine a worker may come another way, by a limit that ran out
                reached, workflow_id, correlation = self._first(at, "die")
                self.judge(f"die at {reached[-1]!r}", workflow_id, correlation, tried=reached[-1] == boundary)
                if reached[-1] == boundary:
                    break
            else:
                self.wrong.append(f"die at {boundary!r}: no worker came there")

    def stall_at_each(self) -> None:
        """At every boundary a worker stalls until long after another has taken over; then it goes on."""
        stalled = [(boundary, self._first(at, "stall")) for at, boundary in enumerate(self.way())]
        time.sleep(STALL_SECONDS)
        for _, (_, workflow_id, _) in stalled:
            carry(workflow_id)
        self.parent.go_on()
        for boundary, (reached, workflow_id, correlation) in stalled:
            self.judge(f"stall at {reached[-1]!r}", workflow_id, correlation, tried=reached[-1] == boundary)

    def overlap_at_each(self) -> None:
        """At every boundary a worker stalls; one that took over stalls before it writes what came of its own call;
        then the first one goes on, and after it the second."""
        for at, boundary in enumerate(self.way()):
            _, workflow_id, correlation = self._first(at, "stall")
            time.sleep(STALL_SECONDS)
            self.parent.run(workflow_id, self.scenario.settings, at=boundaries.called("do"), how="stall")
            time.sleep(STALL_SECONDS)
            self.parent.go_on()
            self.judge(f"overlap at {boundary!r}", workflow_id, correlation)

    def _first(self, at: int | None, how: str) -> tuple[list[str], UUID, str]:
        """Begin anew, with a worker that dies or stalls at boundary number `at`."""
        workflow_id, correlation = self._begin()
        reached, _ = self.parent.run(workflow_id, self.scenario.settings, at=at, how=how)
        return reached, workflow_id, correlation

    def dead(self, *, at: str) -> tuple[UUID, str]:
        """A workflow whose worker died at the first boundary of that name; and its correlation id."""
        workflow_id, correlation = self._begin()
        reached, _ = self.parent.run(workflow_id, self.scenario.settings, at=at)
        assert reached[-1].endswith(at)
        return workflow_id, correlation

    def twice(self, first: int, second: int) -> bool:
        """A worker dies at boundary `first`, the one that recovers at `second`. False: it did not get that far."""
        workflow_id, correlation = self._begin()
        reached, _ = self.parent.run(workflow_id, self.scenario.settings, at=first)
        again, state = self.parent.run(workflow_id, self.scenario.settings, at=second)
        where = again[-1] if again else "no boundary"
        self.judge(f"die at {reached[-1]!r}, then at {where!r}", workflow_id, correlation)
        return state == "died"

    def _begin(self) -> tuple[UUID, str]:
        self.sandbox.clear_faults()
        self.forget()
        correlation = f"crash-{next(_numbers)}"
        return self.scenario.begin(self.sandbox, correlation), correlation

    def judge(self, what: str, workflow_id: UUID, correlation: str, *, tried: bool = True) -> None:
        self.tried[what] += tried
        faults = self.scenario.right(self.sandbox, correlation, workflow_id)
        self.wrong += [f"{what}: {fault}" for fault in faults]

    def row(self) -> tuple[int, int, int]:
        """Of the table of crash points: how many there are, how many tries were made, how many of those went wrong."""
        return len(self.tried), sum(self.tried.values()), len({one.rpartition(":")[0] for one in self.wrong})


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def parent(environment: dict[str, str]) -> Iterator[Parent]:
    made = Parent()
    yield made
    made.close()


@pytest.fixture
def trial(
    database: None, upstreams: Sandbox, redis_server: Any, set_settings: Callable[..., None], parent: Parent
) -> Callable[[Scenario], Trial]:
    """Makes the trial of a scenario."""

    def forget() -> None:
        redis.Redis.from_url(redis_server.url).flushall()

    def make(scenario: Scenario) -> Trial:
        set_settings(**{**QUICK, **scenario.settings})
        return Trial(scenario, parent, upstreams, forget)

    return make
