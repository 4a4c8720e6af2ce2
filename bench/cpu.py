"""CPU seconds that processes have used, as Linux counts them: what a busy machine does not change."""

import contextlib
import os
from pathlib import Path

from local import programs

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """Of a process and its children, those that have ended and those that run."""
    return sum(_times(pid)[:4]) + sum(sum(_times(child)[:2]) for child in programs.children(pid))


def _times(pid: int) -> list[float]:
    """User, system, and both of children waited for; zeros for a process that is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return [int(ticks) / _TICKS for ticks in fields[11:15]]
    return [0.0] * 4
