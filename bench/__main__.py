"""`make bench`: how fast Throughline is here, against what plain Celery and HTTP can do on the same machine now."""

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import load, measures, targets
from bench.installation import ROOT, BenchFailed, opened
from local import services

LIMIT_SECONDS = 175
console = Console(highlight=False)
_begun = time.monotonic()


def say(text: str) -> None:
    console.print(f"[dim]{time.monotonic() - _begun:5.1f} s[/]  {text}")


def main() -> int:
    """0: every target met; 1: one was missed; 2: it could not be measured."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGTERM, _ended)
    signal.alarm(LIMIT_SECONDS)
    var = ROOT / "var"
    var.mkdir(exist_ok=True)  # on the disk that `make up` uses: fsync must mean the same
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=var) as folder:
            rows = _measure(Path(folder))
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except (BenchFailed, load.WrongAnswer, services.StartFailed, OSError) as problem:
        console.print(f"[bold red]Could not measure:[/] {problem}", markup=True)
        return 2
    return targets.report(console, rows)


def _measure(folder: Path) -> list[targets.Row]:
    folder.chmod(0o755)  # Postgres runs as another user when we are root
    say("starting Postgres, Redis, the sandbox")
    with opened(folder) as on:
        plain, plain_idle = measures.baseline(on, say)
        on.start_web()
        claims, checks = measures.intake(on, say)
        drained = measures.drain(on, say)
        idle = measures.idle(on, say)
        paid = measures.payments(on, say)
        recovered = measures.recovery(on, say)
        say("stopping")
    return targets.rows(
        plain=plain,
        plain_idle=plain_idle,
        claims=claims,
        checks=checks,
        drained=drained,
        idle=idle,
        paid=paid,
        recovered=recovered,
    )


def _too_long(*_: Any) -> None:
    raise BenchFailed(f"the benchmark took longer than {LIMIT_SECONDS} s: this machine is too busy to measure")


def _ended(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
