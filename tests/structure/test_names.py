"""The names of the tests are the same in every process: workers that collect other names refuse to run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_collected_once_more_the_tests_have_the_same_names(request: pytest.FixtureRequest) -> None:
    """Later and with another hash seed: a name that holds a moment or the order of a set differs."""
    again = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stdout[-2000:]
    here = {item.nodeid for item in request.session.items}
    assert sorted(here - set(again.stdout.splitlines())) == []
