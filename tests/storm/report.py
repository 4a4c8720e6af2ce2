"""How the storm is told: the table of accounts, the recoveries, and the timelines of what went wrong."""

import statistics
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from bench.installation import BenchFailed, Installation
from tests.storm.accounts import WRONGS, Account
from tests.storm.recovery import MEDIAN_SECONDS, WORST_SECONDS, Recovery

_MOST_TIMELINES = 10
_UUID_LENGTH = 36


def accounts(console: Console, told: Sequence[Account]) -> None:
    """One column per line of business."""
    table = Table("", *(one.line for one in told), box=None, pad_edge=False)
    table.add_row("accepted", *(str(one.accepted) for one in told))
    table.add_row(
        "became", *(_lines(f"{number} {state}" for state, number in one.states.most_common()) for one in told)
    )
    table.add_row("upstream / rows", *(_lines(_effects(one)) for one in told))
    for kind in WRONGS:
        table.add_row(kind, *(f"[bold red]{number}[/]" if (number := one.number(kind)) else "0" for one in told))
    table.add_row("given up", *(str(len(one.given_up)) for one in told))
    console.print(table)
    for workflow in (workflow for one in told for workflow in one.given_up):
        console.print(f"given up, as it has to be: {workflow}")


def _effects(one: Account) -> Iterator[str]:
    """What stands at the upstream, and what the rows say that should."""
    for what in dict.fromkeys((*one.effects, *one.rows)):
        yield f"{one.effects[what]} / {one.rows[what]} {what}"


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def recovered(console: Console, recovery: Recovery) -> None:
    """What killed workers held, and how long it lay still."""
    for name, spells in (
        ("all", recovery.spells),
        ("with all else well", [one for one in recovery.spells if not one.disturbed]),
    ):
        if seconds := [one.seconds for one in spells]:
            median, worst = statistics.median(seconds), max(seconds)
            console.print(f"recovery, {name}: {len(seconds)} rows, median {median:.2f} s, worst {worst:.2f} s")
    for one in recovery.too_slow:
        console.print(
            f"[bold red]too slow[/] ({MEDIAN_SECONDS:g} s, {WORST_SECONDS:g} s): {one.workflow} {one.seconds:.2f} s"
        )


def wrongs(console: Console, on: Installation, told: Sequence[Account]) -> None:
    """Everything that is wrong, and the timelines of the first workflows concerned."""
    found = [wrong for one in told for wrong in one.wrong]
    for wrong in found:
        console.print(f"[bold red]{wrong.kind}[/] {wrong.workflow}: {wrong.says}")
    concerned = dict.fromkeys(wrong.workflow for wrong in found if len(wrong.workflow) == _UUID_LENGTH)
    for workflow in list(concerned)[:_MOST_TIMELINES]:
        timeline(console, on, workflow)


def timeline(console: Console, on: Installation, workflow: str) -> None:
    try:
        console.print(on.run("show", workflow), markup=False)
    except BenchFailed as unknown:
        console.print(str(unknown), markup=False)
