"""Crash points: a warm parent that forks workers, and the table of what was tried."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from sandbox import Sandbox

ROOT = Path(__file__).parents[2]
STALL_SECONDS = 0.2


@dataclass
class Scenario:
    """One way of a workflow: how it begins, and what must be true at its end, whatever happened in between."""

    name: str
    begin: Callable[[Sandbox, str], UUID]
    right: Callable[[Sandbox, str, UUID], list[str]]


@dataclass
class Table:
    """What was tried at each boundary, and what came out wrong."""

    tried: dict[tuple[str, str, str], int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, scenario: str, boundary: str, how: str, faults: list[str]) -> None:
        key = (scenario, boundary, how)
        self.tried[key] = self.tried.get(key, 0) + 1
        self.wrong += [f"{scenario}: {how} at {boundary!r}: {fault}" for fault in faults]


class Parent:
    """The warm parent, as the tests talk to it."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "ERROR"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.warm"],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, workflow_id: UUID, *, at: int | None, how: str = "die") -> tuple[list[str], bool]:
        """Let a worker carry it, to its end or to boundary number `at`. The boundaries reached; whether it stalls."""
        self._tell({"workflow": str(workflow_id), "at": at, "how": how})
        reached, told = [], self._hear()
        if "reached" in told:
            reached, told = told["reached"], self._hear()
        if at is None or len(reached) <= at:
            assert os.waitstatus_to_exitcode(told["status"]) == 0, "the worker failed by itself"
        return reached, os.WIFSTOPPED(told["status"])

    def go_on(self) -> None:
        """Wake the stalled worker, and wait until it has ended."""
        self._tell("go on")
        told = self._hear()
        while "status" not in told:
            told = self._hear()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _tell(self, order: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the parent of the workers is gone"
        told: dict[str, Any] = json.loads(line)
        return told


@pytest.fixture
def parent(database: None, upstreams: Sandbox, set_settings: Callable[..., None]) -> Iterator[Parent]:
    set_settings(
        TRAVEL_PAY_CONNECT_TIMEOUT=1, TRAVEL_PAY_READ_TIMEOUT=2, TRAVEL_PAY_AUTH_READ_TIMEOUT=2, NOTIFY_TIMEOUT=2
    )
    made = Parent()
    yield made
    made.close()


@pytest.fixture
def forget(redis_server: Any) -> Callable[[], None]:
    """Forget what processes share about upstreams."""
    return lambda: redis.Redis.from_url(redis_server.url).flushall() and None


def stall() -> None:
    """Longer than a call may be sent after its intent."""
    time.sleep(STALL_SECONDS)
