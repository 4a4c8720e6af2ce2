"""How the storm is told: the table of accounts, the recoveries, and the timelines of what went wrong."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.installation import BenchFailed, Installation
from tests.storm.accounts import WRONGS, Account
from tests.storm.recovery import MEDIAN_SECONDS, WORST_SECONDS, Recovery, Spell
from tests.storm.trial import Trial

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
    console.print(table)
    why = Counter(why for one in told for why in one.given_up.values())
    for reason, number in why.items():
        some = [workflow for one in told for workflow, given in one.given_up.items() if given == reason]
        console.print(f"{number} given up, as they have to be ({reason}): {' '.join(some[:_MOST_TIMELINES])}")


def figures(console: Console, trial: Trial, seconds: float) -> None:
    """How much there was, how fast it went, and how the upstreams answered."""
    kinds, callers = trial.pace.kinds, trial.callers
    each = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    rate = trial.pace.finished / seconds
    console.print(f"\n{kinds.total():,} workflows ({each}) in {seconds:.0f} s, {rate:.1f} ended per second")
    played, calls = Counter(trial.faults), trial.faults.get("calls", 0)
    wrong = {kind: number for kind, number in played.items() if kind not in {"calls", "delay"}}
    share = sum(wrong.values()) / calls if calls else 0
    console.print(f"upstreams: {calls:,} calls, {share:.0%} of them wrong: {counted(wrong)}")
    console.print(f"callers, asked again or not: {counted(callers.troubles) or 'every request was answered at once'}")


def counted(numbers: Mapping[str, int]) -> str:
    """`kind number`, the most first."""
    return ", ".join(f"{kind} {number:,}" for kind, number in Counter(numbers).most_common())


def _effects(one: Account) -> Iterator[str]:
    """What stands at the upstream, and what the rows say that should."""
    for what in dict.fromkeys((*one.effects, *one.rows)):
        yield f"{one.effects[what]} / {one.rows[what]} {what}"


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def recovered(console: Console, on: Installation, recovery: Recovery) -> None:
    """What killed workers held, and how long it lay still; the timelines of what was too slow."""
    judged = recovery.judged
    spells = recovery.spells
    apart = {
        "while more went wrong": [one for one in spells if one.disturbed and not one.suspect],
        "suspects, one at a time": [one for one in spells if one.suspect and not one.disturbed],
        "suspects, while more went wrong": [one for one in spells if one.suspect and one.disturbed],
    }
    kinds = {kind: [one for one in judged if one.kind == kind] for kind in sorted({one.kind for one in judged})}
    for name, some in {"with all else well": judged, **kinds, **apart}.items():
        if some:
            console.print(f"recovery, {name}: {len(some)} rows, {_spread(some)}")
    console.print(
        f"held by stopped workers: {recovery.stalled} rows, {recovery.taken_from_stalled} of them taken by others"
    )
    slow = sorted(recovery.too_slow, key=lambda one: -one.seconds)
    for one in slow[:_MOST_TIMELINES]:
        console.print(
            f"[bold red]too slow[/] ({MEDIAN_SECONDS:g} s, {WORST_SECONDS:g} s): {one.workflow} {one.seconds:.2f} s"
        )
        timeline(console, on, str(one.workflow))


def _spread(spells: Sequence[Spell]) -> str:
    taken, freed = [one.seconds for one in spells], [one.freed for one in spells]
    said = f"median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s"
    return f"{said} (until freed: {statistics.median(freed):.2f} s, {max(freed):.2f} s)"


def wrongs(console: Console, on: Installation, told: Sequence[Account]) -> None:
    """Everything that is wrong, and the timelines of the first workflows concerned."""
    found = [wrong for one in told for wrong in one.wrong]
    for wrong in found:
        console.print(f"[bold red]{wrong.kind}[/] {wrong.workflow}: {wrong.says}")
    named = (one for wrong in found for one in (wrong.rows or [wrong.workflow]))
    concerned = dict.fromkeys(one for one in named if len(one) == _UUID_LENGTH)
    for workflow in list(concerned)[:_MOST_TIMELINES]:
        timeline(console, on, workflow)


def timeline(console: Console, on: Installation, workflow: str) -> None:
    try:
        console.print(on.run("show", workflow), markup=False)
    except BenchFailed as unknown:
        console.print(str(unknown), markup=False)


def judged(console: Console, trial: Trial, ended: Sequence[str]) -> bool:
    """The accounts, and whether anything in them, among the callers or of the processes is wrong."""
    told, callers = trial.accounts(), trial.callers
    accounts(console, told)
    for request in callers.given_up:
        console.print(f"[bold red]never answered:[/] {request.method} {request.path}")
    for error in callers.broken:
        console.print(f"[bold red]a caller broke:[/] {error!r}")
    for process in ended:
        console.print(f"[bold red]ended by itself:[/] {process}")
    wrong = any(one.wrong for one in told)
    if wrong:
        wrongs(console, trial.on, told)
    return wrong or bool(callers.given_up or callers.broken or ended)
