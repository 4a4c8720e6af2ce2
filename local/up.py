"""`make up`: everything on this machine, one sample of each line, and the addresses; Ctrl-C stops it."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich.markup
from honcho import environ as procfile
from rich.console import Console

from local import environment, sample, services, supervisor

ROOT = Path(__file__).resolve().parents[1]
VAR = ROOT / "var"
BIN = Path(sys.executable).parent
READY_SECONDS = 60.0
LEAVING_SECONDS = 3.0  # what an earlier run that was killed needs to give its ports back

COLORS = {"web": "cyan", "worker": "green", "beat": "magenta", "flower": "blue", "sandbox": "yellow"}
DEMO_CLIENTS = {
    "demo-pci": ("--scope", "claims", "--product", "pci"),
    "demo-oh": ("--scope", "claims", "--product", "oh"),
    "demo-passengers": ("--scope", "declarations"),
    "demo-salesforce": ("--scope", "vouchers"),
    "demo-operator": ("--scope", "operator"),
}

console = Console(highlight=False, soft_wrap=True)


class CannotStart(RuntimeError):
    """Something on this machine is in the way; the text is one line that says what to do."""


class Stop:
    """What a signal means: the first one ends the run, any later one makes the ending quick."""

    def __init__(self, keeper: supervisor.Supervisor) -> None:
        self._keeper = keeper
        self._stopping = False
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, self._on_signal)

    def everything(self) -> None:
        """Stop in order, undisturbed by further signals."""
        self._stopping = True
        console.print("\nStopping ...")
        self._keeper.stop()

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if self._stopping:
            self._keeper.hurry = True
            return
        self._stopping = True
        raise KeyboardInterrupt


def main(*, verbose: bool = False) -> int:
    """Run everything until Ctrl-C or SIGTERM and return the exit status. `verbose` shows every log line."""
    VAR.mkdir(exist_ok=True)
    try:
        with _only_one():
            _run(supervisor.Supervisor(VAR / "log", {}, _say, verbose=verbose))
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 0
    except (CannotStart, supervisor.Died, services.StartFailed, sample.SampleFailed) as problem:
        console.print(f"[bold red]Stopped:[/] {rich.markup.escape(str(problem))}")
        return 1
    return 0


def _run(keeper: supervisor.Supervisor) -> None:
    at = _free_ports()
    for folder in (keeper.logs, VAR / "metrics"):
        _empty(folder)
    known = environment.read(VAR / "dev.env")
    variables = environment.complete(known, at, VAR)
    # A shell that has read var/dev.env brings nothing of its own.
    outside = {name: value for name, value in os.environ.items() if known.get(name) != value}
    stop = Stop(keeper)
    try:
        embedded = _start_servers(keeper, outside, variables)
        keeper.environment = _settle(variables, outside)
        _start_processes(keeper)
        if embedded:
            _add_demo_clients(keeper, variables)
            keeper.environment = _settle(variables, outside)
        _wait_until_ready(keeper, at)
        if embedded:
            _show_samples(keeper, at)
        _show_addresses(at, keeper.environment)
        keeper.wait()
    finally:
        stop.everything()


def _free_ports() -> environment.Ports:
    try:
        at = environment.ports()
    except ValueError as fault:
        raise CannotStart(str(fault)) from fault
    deadline = time.monotonic() + LEAVING_SECONDS
    for port, variable in at.all.items():
        while not services.is_free(port):
            if time.monotonic() > deadline:
                raise CannotStart(f"port {port} is busy; choose another one, e.g. {variable}={port + 1000} make up")
            time.sleep(0.1)
    return at


def _start_servers(keeper: supervisor.Supervisor, outside: Mapping[str, str], variables: dict[str, str]) -> bool:
    """Start what the environment does not bring along; tell whether the database is our own."""
    postgres, redis = services.Postgres(VAR / "postgres"), services.Redis(VAR / "redis")
    if not postgres.data.exists():
        for name in DEMO_CLIENTS:
            variables.pop(_variable(name), None)
    servers: dict[str, services.Server] = {"DATABASE_URL": postgres, "REDIS_URL": redis}
    for variable, server in servers.items():
        name = type(server).__name__
        if outside.get(variable):
            variables.pop(variable, None)
            _done(f"{name} as {variable} says")
        else:
            keeper.serve(name.lower(), server)
            variables[variable] = server.url
            _done(f"{name} on port {server.port}, data in {_short(server.folder)}")
    return "DATABASE_URL" in variables


def _start_processes(keeper: supervisor.Supervisor) -> None:
    commands = procfile.parse_procfile((ROOT / "Procfile").read_text()).processes
    keeper.run("release", _shell(commands.pop("release")))
    _done("Schema up to date")
    keeper.keep("sandbox", [sys.executable, "-m", "sandbox"])
    for name, command in commands.items():
        keeper.keep(name, _shell(command))
    _done(f"Started sandbox, {', '.join(commands)}; logs in {_short(keeper.logs)}")


def _shell(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]


def _add_demo_clients(keeper: supervisor.Supervisor, variables: dict[str, str]) -> None:
    for name, options in DEMO_CLIENTS.items():
        if (variable := _variable(name)) not in variables:
            variables[variable] = _key(keeper.environment, name, options)
        keeper.tick()
    _done(f"Demo clients {', '.join(DEMO_CLIENTS)}; keys in {_short(VAR / 'dev.env')}")


def _variable(client: str) -> str:
    return f"{client.upper().replace('-', '_')}_KEY"


def _key(variables: Mapping[str, str], name: str, options: tuple[str, ...]) -> str:
    """A key of a new client, or another one of a client that exists but whose key was lost."""
    for command in (("add", name, *options), ("rotate", name)):
        told = _throughline(variables, "clients", *command)
        if told.returncode == 0:
            return told.stdout.strip()
    raise CannotStart(f"no key for {name}: {told.stderr.strip()[-500:]}")


def _throughline(variables: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [BIN / "throughline", *arguments]
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def _wait_until_ready(keeper: supervisor.Supervisor, at: environment.Ports) -> None:
    def ready() -> bool:
        keeper.give_up_on_the_hopeless()
        return _answers(f"http://127.0.0.1:{at.sandbox}/_/ledger") and _answers(f"http://127.0.0.1:{at.web}/readyz")

    if not keeper.wait(ready, seconds=READY_SECONDS):
        raise CannotStart(f"not ready after {READY_SECONDS:g} s; see {_short(keeper.logs)}")
    _done("Ready")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own processes
            return True
    except OSError:
        return False


def _show_samples(keeper: supervisor.Supervisor, at: environment.Ports) -> None:
    api = sample.Api(f"http://127.0.0.1:{at.web}", BIN / "throughline", keeper.environment)
    for title, tell in sample.SAMPLES.items():
        console.print(f"\n[bold]A sample {title}[/]")
        start = None
        for told in tell(api):
            if isinstance(told, sample.Sent):
                console.print(f"  {rich.markup.escape(told.request)} -> {rich.markup.escape(told.result)}")
                continue
            start = start or told.at
            after = f"{(told.at - start).total_seconds():+8.3f} s" if told.at and start else "finally".rjust(10)
            console.print(
                f"  [dim]{after}[/]  {rich.markup.escape(told.what):<36} [dim]{rich.markup.escape(told.detail)}[/]"
            )
            keeper.tick()


def _show_addresses(at: environment.Ports, variables: Mapping[str, str]) -> None:
    host = "http://localhost"
    user, _, password = variables["FLOWER_BASIC_AUTH"].partition(":")
    rows = {
        "API": f"{host}:{at.web}/docs",
        "Tasks (Flower)": f"{host}:{at.flower}   user {user}, password {password}",
        "Sandbox": f"{host}:{at.sandbox}/_/   what arrived: /_/ledger",
        "Keys and settings": _short(VAR / "dev.env"),
        "Logs": f"{_short(VAR / 'log')}/",
    }
    console.print("\n[bold]Throughline runs.[/]")
    for name, where in rows.items():
        console.print(f"  {name:<18} {rich.markup.escape(where)}")
    console.print("  Ctrl-C stops everything. Warnings and restarts follow.\n")


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold this clone's lock. Raises CannotStart while another run holds it."""
    with (VAR / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise CannotStart("`make up` runs in this folder already; stop that one first") from held
        yield


def _settle(variables: Mapping[str, str], outside: Mapping[str, str]) -> dict[str, str]:
    """Write the file, and return what the processes get: it, whatever is set outside, and our programs on the path."""
    environment.write(VAR / "dev.env", variables)
    path = f"{BIN}{os.pathsep}{outside.get('PATH', os.defpath)}"
    return {**variables, **{name: value for name, value in outside.items() if value}, "PATH": path}


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _say(name: str, text: str) -> None:
    color = COLORS.get(name, "white")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    console.print(f"[{color}]{name:<8}|[/] {rich.markup.escape(plain)}")


def _done(text: str) -> None:
    console.print(f"[green]✓[/] {rich.markup.escape(text)}")


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))
