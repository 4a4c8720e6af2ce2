"""Keeps processes and servers running: starts again what dies, says so, shows warnings, stops everything at the end."""

import json
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from local import programs

TICK_SECONDS = 0.2
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 30.0
HOPELESS = 3
LINES_SHOWN = 5
LONGEST = 240
STOP_SECONDS = 25.0

Say = Callable[[str, str], None]


class Died(RuntimeError):
    """A process ended that everything else needs; the text holds the end of its log."""


class Server(Protocol):
    """What the supervisor needs of an embedded server."""

    @property
    def alive(self) -> bool: ...
    def start(self) -> object: ...
    def stop(self) -> None: ...


@dataclass(slots=True)
class Child:
    """One process, and how it has fared."""

    name: str
    command: Sequence[str | Path]
    log: Path
    program: programs.Program | None = None
    started: float = 0.0
    again_at: float = 0.0
    deaths: int = 0
    read_to: int = 0


@dataclass(slots=True)
class Supervisor:
    """Holds everything one `make up` runs. `say(name, text)` shows a line; all output of processes goes to log files.

    Use it from the main thread: whatever it starts ends with the thread that started it.
    """

    logs: Path
    environment: Mapping[str, str]
    say: Say
    verbose: bool = False
    servers: dict[str, Server] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    hurry: bool = False

    def serve(self, name: str, server: Server) -> None:
        """Start an embedded server and keep it running."""
        self.servers[name] = server
        server.start()

    def run(self, name: str, command: Sequence[str | Path]) -> None:
        """Run a process to its end. Raises Died when it fails."""
        child = self._new(name, command)
        self._start(child)
        assert child.program is not None  # noqa: S101 - for the type checker; just started
        status = child.program.wait()
        self._show(child)
        if status != 0:
            raise Died(f"{name} ended with status {status}:\n{_tail(child.log)}")
        self.children.remove(child)

    def keep(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a process and keep it running."""
        self._start(self._new(name, command))

    def wait(self, done: Callable[[], bool] = lambda: False, *, seconds: float = float("inf")) -> bool:
        """Look after everything until `done` or the time is over; tells which of the two (True: done)."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= deadline:
                return False
            self.tick()
            time.sleep(TICK_SECONDS)
        return True

    def tick(self) -> None:
        """Start again what died and show what was logged."""
        for name, server in self.servers.items():
            if not server.alive:
                self.say(name, "died; starting it again")
                server.start()
        for child in self.children:
            self._show(child)
            self._revive(child)

    def give_up_on_the_hopeless(self) -> None:
        """Raise Died when a process dies over and over: while starting up that is a mistake, not bad luck."""
        for child in self.children:
            if child.deaths >= HOPELESS:
                raise Died(f"{child.name} keeps dying; all of it is in {child.log}:\n{_tail(child.log)}")

    def stop(self) -> None:
        """Stop the processes together, then the servers, the last one started first. `hurry` shortens it."""
        running = [child.program for child in self.children if child.program is not None]
        for program in running:
            with suppress(ProcessLookupError):
                program.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while any(program.poll() is None for program in running) and time.monotonic() < deadline and not self.hurry:
            time.sleep(0.05)
        for program in running:
            programs.kill(program)
        for server in reversed(self.servers.values()):
            server.stop()

    def _new(self, name: str, command: Sequence[str | Path]) -> Child:
        child = Child(name, command, self.logs / f"{name}.log")
        child.log.write_bytes(b"")
        self.children.append(child)
        return child

    def _start(self, child: Child) -> None:
        child.program = programs.start(child.command, log=child.log, environment=self.environment)
        child.started = time.monotonic()

    def _revive(self, child: Child) -> None:
        now = time.monotonic()
        if child.program is None:
            if now >= child.again_at:
                self._start(child)
        elif (status := child.program.poll()) is not None:
            programs.kill(child.program)
            child.program = None
            child.deaths = 1 if now - child.started > STEADY_SECONDS else child.deaths + 1
            pause = BACK_OFF_SECONDS[min(child.deaths, len(BACK_OFF_SECONDS)) - 1]
            child.again_at = now + pause
            self.say(child.name, f"{_ending(status)}; starting it again in {pause:g} s (log: {child.log.name})")

    def _show(self, child: Child) -> None:
        with child.log.open("rb") as file:
            file.seek(child.read_to)
            news = file.read()
        complete = news[: news.rfind(b"\n") + 1]
        child.read_to += len(complete)
        lines = [shown for line in complete.decode(errors="replace").splitlines() if (shown := self._worth(line))]
        limit = len(lines) if self.verbose else LINES_SHOWN
        for line in lines[:limit]:
            self.say(child.name, line)
        if len(lines) > limit:
            self.say(child.name, f"... and {len(lines) - limit} more such lines in {child.log.name}")

    def _worth(self, line: str) -> str:
        return line if self.verbose else warning(line)


def warning(line: str) -> str:
    """The short form of a log line that somebody should see, and nothing of any other line."""
    with suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict):
            return _short(record) if str(record.get("level")).lower() in {"warning", "error", "critical"} else ""
    return line if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line) else ""


def _short(record: dict[str, object]) -> str:
    told = {"level", "event", "timestamp", "exception", "logger", "release", "host", "pid"}
    fields = " ".join(f"{name}={value}" for name, value in record.items() if name not in told and value is not None)
    text = f"{record['level']}: {record.get('event', '')} {fields}".strip()
    return text.splitlines()[0][:LONGEST]


def _ending(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _tail(log: Path, *, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
