"""A whole installation of real processes, each started from the Procfile with nothing but its environment."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import requests

from local import programs, services
from sandbox import Sandbox
from tests.conftest import KEYS

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def wait_for(what: Callable[[], T], *, seconds: float, why: str = "") -> T:
    """Poll until it is true; the value that was true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, why or f"not within {seconds} s"
        time.sleep(0.05)
    return found


class Installation:
    """Postgres, Redis, the sandbox, and whatever processes a test starts."""

    def __init__(self, folder: Path, postgres: services.Postgres, redis: services.Redis, sandbox: Sandbox) -> None:
        self.folder, self.postgres, self.redis, self.sandbox = folder, postgres, redis, sandbox
        self.processes: dict[str, programs.Program] = {}
        self.port = services.free_port(in_a_row=2)  # the second one is Flower's
        self.environment = {
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url,
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "WEB_CONCURRENCY": "1",
            "WORKER_CONCURRENCY": "16",
            "RELEASE": "test",
            "TRAVEL_PAY_RATE_PER_MINUTE": "0",
            "TRAVEL_PAY_CONNECT_TIMEOUT": "1",
            "TRAVEL_PAY_READ_TIMEOUT": "4",
            "TRAVEL_PAY_AUTH_READ_TIMEOUT": "4",
            "TRAVEL_PAY_FIND_SECONDS": "1",
            "TRAVEL_PAY_SETTLE_SECONDS": "8",
            "TRAVEL_PAY_BACKOFF_SECONDS": "1",
            "NOTIFY_TIMEOUT": "3",
            "NOTIFY_SETTLE_SECONDS": "9",
            "NOTIFY_BACKOFF_SECONDS": "1",
            **KEYS,
            **sandbox.environment(),
        }
        self.key = ""

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def start(self, process: str, name: str = "", **more: str) -> None:
        """Start a process of the Procfile, under `name`."""
        name = name or process
        self.processes[name] = programs.start(
            [ROOT / "local/run", process], log=self.folder / f"{name}.log", environment={**self.environment, **more}
        )

    def run(self, *command: str) -> str:
        told = subprocess.run(
            [ROOT / ".venv/bin/throughline", *command],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        return told.stdout.strip()

    def start_web(self) -> None:
        self.start("web")
        wait_for(self.is_ready, seconds=100, why=self.log("web")[-2_000:])

    def is_ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    def start_worker(self, name: str = "worker") -> None:
        """Start a worker and wait for its first heartbeat."""
        before = self.sql("SELECT count(*) FROM workers")
        self.start("worker", name)
        wait_for(lambda: self.sql("SELECT count(*) FROM workers") != before, seconds=100, why="no heartbeat")
        wait_for(lambda: "ready" in self.log(name), seconds=100, why="not ready")

    def end(self, name: str, how: int) -> None:
        """Send a signal to all of a process's own."""
        program = self.processes.pop(name)
        os.killpg(program.pid, how)
        if how in {signal.SIGKILL, signal.SIGTERM}:
            program.wait(timeout=100)

    def post(self, number: int, **more: Any) -> requests.Response:
        """File the claim of visit `number`; its station and time tell it apart at the upstream."""
        body = {
            "icn": f"{1_000_000_000 + number}V{number:06}",
            "appointment": {
                "dateTime": f"2026-03-02T{number // 60 % 24:02}:{number % 60:02}:00",
                "stationNumber": "983",
            },
            "phone": f"+1202555{number:04}",
            **more.pop("body", {}),
        }
        headers = {"x-api-key": self.key, "X-Correlation-ID": f"visit-{number}", **more.pop("headers", {})}
        return requests.post(
            f"http://127.0.0.1:{self.port}/travel-claims", json=body, headers=headers, timeout=100, **more
        )

    def get(self, claim_id: str) -> dict[str, Any]:
        answer = requests.get(
            f"http://127.0.0.1:{self.port}/travel-claims/{claim_id}", headers={"x-api-key": self.key}, timeout=100
        )
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def sql(self, query: str) -> Any:
        with psycopg.connect(self.postgres.url) as connection:
            row = connection.execute(query).fetchone()
            return row and row[0]

    def unfinished(self) -> int:
        return int(self.sql("SELECT count(*) FROM workflows WHERE wake_at IS NOT NULL"))

    def all_finished(self) -> None:
        wait_for(lambda: self.unfinished() == 0, seconds=240, why="work is left")

    def effects(self) -> dict[str, tuple[int, int]]:
        """Per kind: how many effects there are, and how many of them too often."""
        ledger = self.sandbox.ledger()
        kinds = ("claims", "expenses", "submissions", "texts")
        return {kind: (len(ledger[kind]), sum(entry["count"] - 1 for entry in ledger[kind])) for kind in kinds}

    def each_once(self, number: int) -> None:
        """So many of every effect, none twice; every claim submitted."""
        assert self.effects() == dict.fromkeys(("claims", "expenses", "submissions", "texts"), (number, 0))
        query = "SELECT count(*) FROM workflows WHERE kind = 'claim' AND state = 'submitted'"
        assert self.sql(query) == number

    def close(self) -> None:
        for program in self.processes.values():
            programs.stop(program)


@pytest.fixture
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A migrated database, one client, nothing running yet."""
    folder = tmp_path_factory.mktemp("installation")
    with (
        services.Postgres(folder / "postgres", fsync=False) as postgres,
        services.Redis(folder / "redis") as redis,
        Sandbox() as sandbox,
    ):
        found = Installation(folder, postgres, redis, sandbox)
        try:
            found.run("migrate")
            found.key = found.run("clients", "add", "shop", "--scope", "claims", "--product", "pci")
            yield found
        finally:
            found.close()
