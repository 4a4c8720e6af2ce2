"""The whole system as real processes in a folder of its own: Postgres with fsync on, Redis, sandbox, web, workers."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import redis

from bench import cpu
from local import environment, programs, services
from sandbox import Sandbox

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv/bin"
START_SECONDS = 40.0
_TAIL = 1_500
T = TypeVar("T")


class BenchFailed(RuntimeError):
    """Something did not happen that had to; the text says what."""


def wait_for(what: Callable[[], T], *, seconds: float, why: str, log: Path | None = None, pause: float = 0.02) -> T:
    """Poll until it is true; the value that was true. Raises BenchFailed, with the end of the log."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-_TAIL:] if log else ""
            raise BenchFailed(f"not within {seconds:g} s: {why}\n{tail}".strip())
        time.sleep(pause)
    return found


class Installation:
    """Servers, and whatever processes a measure starts; `close` ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = services.Postgres(folder / "postgres")
        self.redis = services.Redis(folder / "redis")
        self.at = environment.Ports(
            web=services.free_port(), flower=1, sandbox=services.free_port(in_a_row=len(Sandbox().listeners))
        )
        self.environment: dict[str, str] = {}
        self.key = ""
        self._processes: dict[str, programs.Program] = {}
        self._database: psycopg.Connection[Any] | None = None

    def open(self) -> None:
        """Start the servers and the sandbox, make schema and client. Raises StartFailed or BenchFailed."""
        self.postgres.start()
        self.redis.start()
        metrics = self.folder / "metrics"
        metrics.mkdir()
        self.environment = {
            "HOME": str(self.folder),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),  # this tree's code, wherever the virtual environment was installed from
            **environment.complete({}, self.at, self.folder),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "BENCH_ENDS": str(self.folder / "ends"),
            "SANDBOX_RECEIPTS_URL": "",  # receipts would be requests that nobody counts
            "TRAVEL_PAY_RATE_PER_MINUTE": "0",
        }
        self.start("sandbox", [sys.executable, "-m", "sandbox"])
        self.run("migrate")
        self.key = self.client("bench", "--scope", "claims", "--product", "pci")
        self._database = psycopg.connect(self.postgres.url, autocommit=True)
        wait_for(lambda: _answers(self._sandbox("ledger")), seconds=START_SECONDS, why="the sandbox answers")

    def close(self) -> None:
        for name in list(self._processes):
            self.stop(name)
        if self._database is not None:
            self._database.close()
        self.redis.stop()
        self.postgres.stop()

    def client(self, name: str, *options: str) -> str:
        """Add a client; its key."""
        return self.run("clients", "add", name, *options)

    # Processes

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        self._processes[name] = programs.start(command, log=self.log(name), environment=self.environment)

    def start_web(self) -> None:
        """The Procfile's web process, and wait until it is ready."""
        self.start("web", ["/bin/sh", "-c", procfile("web")])
        url = f"http://127.0.0.1:{self.at.web}/readyz"
        wait_for(lambda: _answers(url), seconds=START_SECONDS, why="web is ready", log=self.log("web"))

    def start_worker(self, name: str, app: str = "tasks.celery") -> float:
        """A worker with the Procfile's command; the moment at which it was ready."""
        self.start(name, ["/bin/sh", "-c", procfile("worker").replace("tasks.celery", app)])
        log = self.log(name)
        wait_for(lambda: " ready." in log.read_text(), seconds=START_SECONDS, why="ready", log=log, pause=0.005)
        return time.time()

    def stop(self, name: str) -> None:
        programs.stop(self._processes.pop(name))

    def kill(self, name: str) -> None:
        programs.kill(self._processes.pop(name))

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def runs(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def run_python(self, *arguments: str) -> str:
        """Run a Python program of ours to its end; what it printed. Raises BenchFailed."""
        return self._told([BIN / "python", *arguments])

    def run(self, *arguments: str) -> str:
        """Run a `throughline` command to its end; what it printed. Raises BenchFailed."""
        return self._told([BIN / "throughline", *arguments])

    def _told(self, command: Sequence[str | Path]) -> str:
        told = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        if told.returncode != 0:
            raise BenchFailed(f"{' '.join(map(str, command))}: {told.stderr[-1_000:]}")
        return told.stdout.strip()

    # Counters

    def used(self, *workers: str) -> dict[str, float]:
        """CPU seconds used so far, by process; `worker` is the sum of those named."""
        return {
            "worker": sum(cpu.seconds(self.pid(name)) for name in workers),
            "Postgres": cpu.seconds(self.postgres.pid),
            "Redis": cpu.seconds(self.redis.pid),
            "web": cpu.seconds(self.pid("web")) if "web" in self._processes else 0.0,
            "sandbox": cpu.seconds(self.pid("sandbox")),
        }

    def counted(self) -> dict[str, float]:
        """What no other load on the machine changes: writing transactions and Redis commands so far."""
        with redis.Redis.from_url(self.redis.url) as client:
            commands = client.info("stats")["total_commands_processed"]
        query = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        return {"commits": float(self.sql(query)), "commands": float(commands)}

    def sql(self, query: str, *values: object) -> Any:
        """The first column of the first row; None where there is no row."""
        if self._database is None:
            raise BenchFailed("the installation is not open")
        row = self._database.execute(query, values).fetchone()
        return row and row[0]

    # The sandbox

    def fault(self, **members: object) -> int:
        """Set a fault; its id."""
        return int(self.control("POST", "faults", members)["id"])

    def _sandbox(self, path: str) -> str:
        return f"http://127.0.0.1:{self.at.sandbox}/_/{path}"

    def ledger(self) -> Mapping[str, Any]:
        """Every effect at the upstreams so far."""
        found: Mapping[str, Any] = self.control("GET", "ledger")
        return found

    def control(self, method: str, path: str, members: Mapping[str, object] | None = None) -> Any:
        """Ask the sandbox's control; its answer."""
        body = json.dumps(members).encode() if members is not None else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._sandbox(path), data=body, method=method, headers=headers)  # noqa: S310 - our own sandbox
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
            return json.load(answer)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Installation]:
    """An installation that is running, and gone afterwards whatever happens."""
    made = Installation(folder)
    try:
        made.open()
        yield made
    finally:
        made.close()


def procfile(name: str) -> str:
    """The command of a process, as everybody starts it."""
    lines = (line.partition(":") for line in (ROOT / "Procfile").read_text().splitlines())
    return next(command.strip() for found, _, command in lines if found == name)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own processes
            return True
    except OSError:
        return False
