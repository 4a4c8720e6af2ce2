"""`make mutants`: each rule that the crash points are there for is taken out once, in a copy; they must turn red.

The find of submit_claim is none of them: Travel Pay refuses a second submission, so that a repeat finds out as much.
0: every mutant was caught; 1: one was not.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 100  # a test that waits for what a mutant never does has seen it
COPIED = ("app", "tasks", "tests", "sandbox", "local", "migrations", "bench", "alembic.ini", "pyproject.toml")
console = Console(highlight=False)


@dataclass(frozen=True)
class Mutant:
    """A rule taken out: in `file`, `rule` becomes `instead`. `seen_by`: the crash points that must see it (-k)."""

    name: str
    file: str
    rule: str
    instead: str
    seen_by: str


def _without_find(step: str, file: str, find: str, seen_by: str) -> Mutant:
    return Mutant(f"{step} without its find", file, f"find={find}", "find=None", seen_by)


STORE = "app/store/workflows.py"
MUTANTS = (
    Mutant(
        "move() without its guard",
        STORE,
        "    if not _write(session, seen, *guard, state=to, fence=fence, worker=None, updated_at=NOW, **values):\n"
        "        return False\n",
        "    updates.run(session, W, seen.id, state=to, fence=fence, worker=None, updated_at=NOW, **values)\n",
        "at_it",
    ),
    Mutant("no fence", STORE, '"seen_fence": seen.fence}', '"seen_fence": W.c.fence}', "at_it"),
    Mutant(
        "an intent that leaves no doubt", STORE, "**call, in_doubt=True,", "**call, in_doubt=False,", "die and text"
    ),
    _without_find("create_claim", "app/flows/claims.py", "claim_steps.find_claim", "die and claim"),
    _without_find("add_expenses", "app/flows/claims.py", "claim_expenses.find_expense", "die and claim"),
    _without_find("send_text", "app/flows/notifications.py", "find", "die and text"),
    _without_find("carry_out", "app/flows/vouchers.py", "voucher_steps.find", "die and replace"),
    Mutant(
        "a sweep that leaves what the dead held",
        "app/store/due.py",
        "or_(died, W.c.wake_at <= NOW)",
        "W.c.wake_at <= NOW",
        "sweep_may",
    ),
)


def caught(mutant: Mutant, folder: Path) -> bool:
    """Whether a crash point turns red. Raises LookupError where the rule is not in the file."""
    for name in COPIED:
        whole = ROOT / name
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    mutated = folder / mutant.file
    text = mutated.read_text()
    if text.count(mutant.rule) != 1:
        raise LookupError(f"{mutant.file} has not one {mutant.rule!r}")
    mutated.write_text(text.replace(mutant.rule, mutant.instead))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "tests/crash",
        "-k",
        mutant.seen_by,
        "-p",
        "no:cacheprovider",
        f"--timeout={LIMIT_SECONDS}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    told = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if told.returncode not in (0, 1):
        raise RuntimeError(told.stdout[-2_000:] + told.stderr[-2_000:])
    return told.returncode == 1


def main() -> int:
    missed = []
    for mutant in MUTANTS:
        with console.status(mutant.name), tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            Path(folder).chmod(0o755)  # Postgres runs as another user when we are root
            found = caught(mutant, Path(folder))
        console.print(f"{'[green]caught[/]' if found else '[bold red]missed[/]'}  {mutant.name}")
        missed += [] if found else [mutant]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
