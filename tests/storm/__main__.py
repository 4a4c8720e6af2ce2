"""`make storm`: everything goes wrong at once, and afterwards all is counted. SEED makes the same choices again.

Real processes: web, three workers, two beats, the sandbox, Postgres with fsync on, Redis. Callers of all three lines
place orders through the API while workers are killed and stopped, Redis is killed and flushed, Postgres is restarted,
messages are lost and doubled, and every fifth call of an upstream goes wrong. 0: nothing was lost, nothing is there
twice; 1: something was; 2: it could not be tried.
"""

import argparse
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import requests
from psycopg.rows import dict_row
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.installation import ROOT, BenchFailed, Installation, opened
from local import services
from tests.storm import claims, declarations, disasters, orders, report, upstreams, vouchers
from tests.storm.accounts import MISSING, WORKFLOWS, Account, Row
from tests.storm.callers import Callers
from tests.storm.disasters import Processes
from tests.storm.orders import VOUCHERS, Claim, Declaration, Order, Subscription

LEAST_SECONDS, WORKFLOWS_PER_SECOND = 45.0, 10.0
SETTLE_SECONDS = 180.0
_UNFINISHED = """
    SELECT id FROM workflows
    WHERE finished_at IS NULL AND state NOT IN ('pending-payment', 'payment-failed', 'payment-cancelled')
"""
_FINISHED = "SELECT count(*) FROM workflows WHERE finished_at IS NOT NULL"
_SCOPES = ("--scope", "claims", "--scope", "declarations", "--scope", "vouchers", "--product", "pci")
console = Console(highlight=False)


class Storm:
    """One storm over one installation."""

    def __init__(self, on: Installation, seed: int, workflows: int, seconds: float) -> None:
        self.dice = random.Random(seed)
        self.orders: list[Order] = orders.chosen(self.dice, seed, workflows)
        self.on, self.seconds, self.workflows = on, seconds, workflows
        self.processes = Processes(on, self._say)
        self.key = on.client("storm", *_SCOPES)
        self.url = f"http://127.0.0.1:{on.at.web}"
        self.callers = Callers(self.url, self.key, self.orders, seconds=seconds)
        self.unfinished: list[str] = []
        self._begun = time.monotonic()

    def rage(self, progress: Progress) -> None:
        """Let everything happen, and then let it come to rest."""
        task = progress.add_task("starting", total=None)
        upstreams.refuse(self.on, self.orders)
        self.on.environment.update(upstreams.SETTINGS)
        self.processes.start()
        faults = upstreams.trouble(self.on, random.Random(self.dice.getrandbits(32)))
        progress.update(task, description="storm", total=self.workflows)
        self._begun = time.monotonic()
        self.callers.start()
        for disaster in disasters.chosen(random.Random(self.dice.getrandbits(32))):
            if time.monotonic() > self._begun + self.seconds:
                break
            self.processes.strike(disaster)
            progress.update(task, completed=self._finished())
        upstreams.calm(self.on, faults)
        self._say("calm: waiting until nothing is unfinished")
        progress.update(task, description="settling")
        self._settle(progress, task)

    def _settle(self, progress: Progress, task: Any) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            self.unfinished = [str(row["id"]) for row in self._rows(_UNFINISHED)]
            if not self.callers.busy and not self.unfinished:
                return
            self.processes.look_after()
            progress.update(task, completed=self._finished())
            time.sleep(0.5)

    def _say(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._begun:6.1f} s[/]  {text}")

    def _finished(self) -> int:
        return int(self._rows(_FINISHED)[0]["count"])

    def _rows(self, query: str) -> list[Row]:
        with psycopg.connect(self.on.postgres.url, row_factory=dict_row) as connection:
            return list(connection.execute(query).fetchall())

    # Afterwards

    def accounts(self) -> list[Account]:
        ledger, claim_rows = self.on.ledger(), self._workflows(claims.CLAIMS)
        filed = [one for one in self.orders if isinstance(one, Claim)]
        declared = [one for one in self.orders if isinstance(one, Declaration)]
        subscribed = [one for one in self.orders if isinstance(one, Subscription)]
        told = [
            claims.account(filed, claim_rows, ledger),
            claims.texts(claim_rows, self._workflows(claims.TEXTS), ledger),
            declarations.account(
                declared, self._workflows(declarations.ROWS), ledger, self._calls("submit-declaration")
            ),
            vouchers.account(
                subscribed,
                self._workflows(vouchers.ROWS),
                ledger,
                self._calls(*vouchers.SENDING),
                self._shown(subscribed),
            ),
        ]
        for one in self.unfinished:
            told[-1].add(MISSING, one, "it is not finished")
        return told

    def _workflows(self, query: str) -> list[Row]:
        """The rows of a line, with what all workflows have."""
        common = {row["id"]: row for row in self._rows(WORKFLOWS)}
        return [{**common[own["id"]], **own} for own in self._rows(query)]

    def _calls(self, *names: str) -> list[Row]:
        return [call for name in names for call in self.on.control("GET", f"calls?call={name}")["calls"]]

    def _shown(self, subscribed: Sequence[Subscription]) -> dict[str, Any]:
        """The codes of each subscription that the API shows live."""
        with requests.Session() as session:
            session.headers["x-api-key"] = self.key
            answers = {one.id: session.get(f"{self.url}{VOUCHERS}/{one.id}", timeout=30) for one in subscribed}
        return {subscription: answer.json() for subscription, answer in answers.items() if answer.ok}


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, _ended)
    var = ROOT / "var"
    var.mkdir(exist_ok=True)
    console.print(f"SEED={asked.seed} WORKFLOWS={asked.workflows}, {asked.seconds:.0f} s")
    try:
        with tempfile.TemporaryDirectory(prefix="storm-", dir=asked.folder or var) as folder:
            Path(folder).chmod(0o755)  # Postgres runs as another user when we are root
            return _run(Path(folder), asked)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except (BenchFailed, services.StartFailed, OSError) as problem:
        console.print(f"[bold red]Could not be tried:[/] {problem}")
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="the choices; by default, any")
    parser.add_argument("--workflows", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, help="how long it lasts; by default, as the workflows need")
    parser.add_argument("--folder", type=Path, help="where the servers keep their data; by default, var")
    asked = parser.parse_args()
    asked.seconds = asked.seconds or max(LEAST_SECONDS, asked.workflows / WORKFLOWS_PER_SECOND)
    return asked


def _run(folder: Path, asked: argparse.Namespace) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("finished"))
    with opened(folder) as on:
        storm = Storm(on, asked.seed, asked.workflows, asked.seconds)
        try:
            with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
                storm.rage(progress)
            return _judge(storm, asked)
        finally:
            storm.callers.end()
            storm.processes.end()


def _judge(storm: Storm, asked: argparse.Namespace) -> int:
    told, recovery, callers = storm.accounts(), storm.processes.recovery, storm.callers
    struck = ", ".join(f"{kind} {number}" for kind, number in storm.processes.struck.items())
    repeated = sum(answer.times - 1 for order in storm.orders for answer in order.answers)
    console.print(f"\ndisasters: {struck}; requests sent again: {repeated}")
    report.accounts(console, told)
    report.recovered(console, recovery)
    for request in callers.given_up:
        console.print(f"[bold red]never answered:[/] {request.method} {request.path}")
    for error in callers.broken:
        console.print(f"[bold red]a caller broke:[/] {error!r}")
    ended = storm.processes.ended
    for worker in ended:
        console.print(f"[bold red]ended by itself:[/] {worker}", markup=True)
    wrong = any(one.wrong for one in told)
    if not (wrong or ended or callers.given_up or callers.broken or recovery.too_slow):
        console.print("[green]Nothing lost, nothing twice.[/]")
        return 0
    report.wrongs(console, storm.on, told)
    console.print(f"[bold red]This was SEED={asked.seed} WORKFLOWS={asked.workflows}.[/]")
    return 1


def _ended(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
