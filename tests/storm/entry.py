"""What the storm's programs have in common: their arguments, their folder, how they end, and their clock."""

import argparse
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.installation import ROOT, BenchFailed, Installation, opened
from local import services

console = Console(highlight=False, soft_wrap=True)


class Clock:
    """Tells things with the seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._begun:6.1f} s[/]  {text}")


def main(name: str, run: Callable[[Installation, argparse.Namespace], int], *, workflows: int) -> int:
    """Run it over an installation of its own. 0 and 1 are its own; 2: it could not be tried."""
    asked = _arguments(name, workflows)
    signal.signal(signal.SIGTERM, _ended)
    var = ROOT / "var"
    var.mkdir(exist_ok=True)
    console.print(f"SEED={asked.seed} WORKFLOWS={asked.workflows}")
    try:
        status = _run(Path(tempfile.mkdtemp(prefix="storm-", dir=asked.folder or var)), run, asked)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except (BenchFailed, services.StartFailed, OSError) as problem:
        console.print(f"[bold red]Could not be tried:[/] {problem}")
        return 2
    if status:
        console.print(f"[bold red]This was SEED={asked.seed} WORKFLOWS={asked.workflows}.[/]")
    else:
        console.print(f"[green]Nothing lost, nothing twice.[/] SEED={asked.seed}")
    return status


def _run(folder: Path, run: Callable[[Installation, argparse.Namespace], int], asked: argparse.Namespace) -> int:
    """The folder stays, with data and logs, if anything is wrong and it was asked for."""
    status = 2
    try:
        folder.chmod(0o755)  # Postgres runs as another user when we are root
        with opened(folder) as on:
            status = run(on, asked)
        return status
    finally:
        if status == 0 or asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _arguments(name: str, workflows: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="the choices; by default, any")
    parser.add_argument("--workflows", type=int, default=workflows)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where data and logs are put, and stay if anything is wrong; by default, var, gone afterwards",
    )
    return parser.parse_args()


def _ended(*_: Any) -> None:
    raise KeyboardInterrupt
