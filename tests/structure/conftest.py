"""The source as a tree, and programs in processes of their own."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("app", "tasks", "local", "sandbox", "migrations", "bench", "tests")
SECONDS = 500


def sources(*folders: str) -> Iterator[Path]:
    """The Python files of these folders."""
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A process of ours with this environment alone."""
    basics = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, env={**basics, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def ask(program: str, environment: dict[str, str]) -> Any:
    """What a fresh Python prints as JSON on its last line."""
    told = run([sys.executable, "-c", program], environment)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def unreachable(environment: dict[str, str]) -> dict[str, str]:
    """A complete environment in which nobody is at home."""
    return {
        **environment,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
