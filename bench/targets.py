"""The speed targets, which stand nowhere else, each with its reason; and the table that shows how they were met.

A target is a ratio against a baseline of the same run, or a count: what a busy or slow machine changes little. The
limits have head-room for noise; they are there to tell a regression, not to praise a machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.measures import Drained, Intake, median, p95

PROMISED = 3.0
WORKER_CPU, POSTGRES_CPU, REDIS_CPU = 10.0, 2.5, 5.0
TASKS, COMMITS, COMMANDS = 1.5, 1.15, 2.5
WEB_CPU, INTAKE, INTAKE_TAIL = 50.0, 80.0, 8.0
IDLE, IDLE_TAIL = 40.0, 4.0
RECOVERY = 1.5
PAID, PAID_TAIL = 0.2, 1.0


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
        return (self.most is not None and self.ratio > self.most) or (
            self.least is not None and self.ratio < self.least
        )


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
    paid: Sequence[float],
    recovered: Sequence[float],
) -> list[Row]:
    """Every measure beside its baseline. One claim is five steps and a text: six tasks against five that do nothing."""
    return [
        *_throughput(plain, drained),
        *_intake(claims, checks),
        *_waiting(plain_idle, idle),
        *_payments(paid),
        _recovery(recovered),
    ]


def _throughput(plain: Drained, drained: Drained) -> list[Row]:
    cpu, base = drained.cpu, plain.cpu
    return [
        # Told, not judged: it shares the cores with Postgres, the sandbox and whatever else runs.
        Row(
            name="backlog, per second",
            value=f"{drained.rate:.0f} claims",
            base=f"{plain.rate:.0f} chains",
            ratio=drained.rate / plain.rate,
        ),
        # Celery is a sixth of a claim's CPU at best; the rest is calls, SQL and sealing. Above this, work was added.
        _times("worker CPU per claim", cpu["worker"], base["worker"], most=WORKER_CPU),
        # A commit is what Postgres is paid in: its CPU follows the statements and rows that a step writes.
        _times("Postgres CPU per claim", cpu["Postgres"], base["worker"], most=POSTGRES_CPU),
        # Redis carries wake-ups only; twice the baseline's share means that messages are sent in vain.
        _times("Redis CPU per claim", cpu["Redis"], base["Redis"], most=REDIS_CPU),
        Row(name="sandbox CPU per claim", value=f"{cpu['sandbox']:.1f} ms"),
        # Six are needed. More are doubled messages, or a sweep that sends again what only waits its turn.
        Row(name="tasks per claim", value=f"{drained.tasks:.1f}", base="6", ratio=drained.tasks / 6, most=TASKS),
        # Take, intent and move of six steps, less the intents of the two that have no effects: 16, and the heartbeat.
        Row(name="commits per claim", value=f"{drained.counts['commits']:.1f}", base="16",
            ratio=drained.counts["commits"] / 16, most=COMMITS),
        # The same count as Redis CPU, but exact.
        Row(name="Redis commands per claim", value=f"{drained.counts['commands']:.0f}",
            base=f"{plain.counts['commands']:.0f}", ratio=drained.counts["commands"] / plain.counts["commands"],
            most=COMMANDS),
    ]  # fmt: skip


def _intake(claims: Intake, checks: Intake) -> list[Row]:
    ours, base = claims.ran, checks.ran
    return [
        # Told, not judged, as above.
        Row(
            name="intake, per second",
            value=f"{ours.rate:.0f} claims",
            base=f"{base.rate:.0f} checks",
            ratio=ours.rate / base.rate,
        ),
        # Key, checks, sealing, three rows and a message against a route that does nothing.
        _times("web CPU per request", claims.cpu, checks.cpu, most=WEB_CPU),
        # Under full load the median is the rate seen from a caller: CPU, mostly.
        _times("intake latency, median", 1_000 * median(ours.latencies), 1_000 * median(base.latencies), most=INTAKE),
        # The tail shows callers that wait for each other: for a connection, a lock, a process.
        _times("intake latency, p95", 1_000 * p95(ours.latencies), 1_000 * median(ours.latencies), most=INTAKE_TAIL),
    ]


def _waiting(plain_idle: Sequence[float], idle: Sequence[float]) -> list[Row]:
    ours, base = 1_000 * median(idle), 1_000 * median(plain_idle)
    return [
        # Six steps with seven calls, and the pauses of the wait (50, 65, 85 ms ...) on top.
        _times("idle latency, median", ours, base, most=IDLE),
        # One more pause of the wait is fair; the sweep's second or the next dispatch's five are a lost message.
        _times("idle latency, p95", 1_000 * p95(idle), ours, most=IDLE_TAIL),
    ]


def _payments(paid: Sequence[float]) -> list[Row]:
    # What the contract promises of a healthy MDG and idle workers, from the 202 on: 0.2 s, and 1 s for 95 of 100.
    return [
        _times("paid to MDG, median", 1_000 * median(paid), 1_000 * PAID, most=1),
        _times("paid to MDG, p95", 1_000 * p95(paid), 1_000 * PAID_TAIL, most=1),
    ]


def _recovery(recovered: Sequence[float]) -> Row:
    # A killed holder is known after two heartbeats (2) and taken away by the next sweep (1): 3 is what is promised.
    ours = median(recovered)
    return Row(
        name="retaken after kill -9",
        value=f"{ours:.1f} s",
        base=f"{PROMISED:g} s",
        ratio=ours / PROMISED,
        most=RECOVERY,
    )


def _times(name: str, ours: float, base: float, *, most: float) -> Row:
    return Row(name=name, value=f"{ours:.1f} ms", base=f"{base:.1f} ms", ratio=ours / base, most=most)
