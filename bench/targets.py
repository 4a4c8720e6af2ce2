"""The speed targets, which stand nowhere else, each with its reason; and the table that shows how they were met.

A target is a ratio against a baseline of the same run, or a count: what a busy or slow machine changes little. The
limits have head-room for noise; they are there to tell a regression, not to praise a machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.measures import Drained, Intake, median, p95


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. `ratio` is what is judged: at most `most`, or at least `least`."""

    name: str
    value: str
    base: str = ""
    ratio: float | None = None
    most: float | None = None
    least: float | None = None

    @property
    def missed(self) -> bool:
        if self.ratio is None:
            return False
        return (self.most is not None and self.ratio > self.most) or (self.least is not None and self.ratio < self.least)


def report(console: Console, rows: Sequence[Row]) -> int:
    """Show the table; 1 where a target was missed, else 0."""
    table = Table("measure", "here", "baseline", "ratio", "target", "", box=None, pad_edge=False)
    for row in rows:
        target = f"<= {row.most:g}" if row.most is not None else f">= {row.least:g}" if row.least is not None else ""
        mark = "" if not target else "[bold red]MISSED[/]" if row.missed else "[green]ok[/]"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, row.value, row.base, ratio, target, mark)
    console.print()
    console.print(table)
    return int(any(row.missed for row in rows))


def rows(
    *,
    plain: Drained,
    plain_idle: Sequence[float],
    claims: Intake,
    checks: Intake,
    drained: Drained,
    idle: Sequence[float],
    recovered: Sequence[float],
) -> list[Row]:
    return []
