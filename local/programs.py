"""Starting and ending programs: each in a process group of its own, none outliving the process that started it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")

Program = subprocess.Popen[bytes]


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: str = "-",
    death_signal: signal.Signals = signal.SIGTERM,
) -> Program:
    """Start `command` with its output added to `log`; it gets `death_signal` should this process die."""
    launch: list[str | Path] = [sys.executable, "-I", "-S", LAUNCH, str(os.getpid()), str(int(death_signal)), user]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launch, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def stop(program: Program, *, ask: signal.Signals = signal.SIGTERM, patience: float = 20.0) -> None:
    """Ask the program to end, and after `patience` seconds end its whole group."""
    if program.poll() is None:
        program.send_signal(ask)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(patience)
    kill(program)


def kill(program: Program) -> None:
    """End the program and whatever is left of its process group at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


def children(pid: int) -> list[int]:
    """Process ids of the children of a process, where the system tells."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill_strays(pids: Sequence[int]) -> None:
    """End processes that a killed program left behind in groups of their own, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while any(runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
