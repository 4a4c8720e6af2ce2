"""The `throughline` command: run, migrate, manage clients and toggles, look into a workflow, find out what is wrong."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table

from app import config, db, diagnosis, errors, logs, remedies
from app.diagnosis import Finding
from app.store import clients, declaration_jobs, names, workflows
from app.store.workflows import Seen

ROOT = Path(__file__).parents[1]


class _Friendly(click.Group):
    """A stranger gets one sentence, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (errors.Throughline, LookupError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            if sentence := remedies.against(error):
                raise click.ClickException(sentence) from error
            raise


@click.group(cls=_Friendly)
def main() -> None:
    """Throughline carries work through slow back ends and lands each piece exactly once."""


@main.command()
@click.option("--verbose", is_flag=True, help="Show every log line of every process.")
def up(verbose: bool) -> None:
    """Run everything on this machine and send one sample of each line."""
    from local.up import main as run

    sys.exit(run(verbose=verbose))


@main.command()
def migrate() -> None:
    """Bring the schema to the newest version."""
    from alembic import command
    from alembic.config import Config

    logs.configure(config.settings().log_level)
    command.upgrade(Config(str(ROOT / "alembic.ini")), "head")
    with db.transaction() as session:
        declaration_jobs.start_charge_references(session, config.settings().declarations.charge_reference_start)
    click.echo("The schema is at its newest version.", err=True)


@main.group("clients")
def clients_group() -> None:
    """Those who may call the API."""


@clients_group.command("add")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(list(clients.SCOPES)), help="Repeatable."
)
@click.option("--product", type=click.Choice(["pci", "oh"]), help="Needed for travel claims.")
def add_client(name: str, scopes: tuple[str, ...], product: str | None) -> None:
    """Add a client; its key is printed once, alone on stdout."""
    with db.transaction() as session:
        key = clients.add(session, name, scopes=scopes, product=product)
    click.echo(key)


@clients_group.command("rotate")
@click.argument("name")
def rotate_key(name: str) -> None:
    """Make a new key; the one before it stays valid, older ones do not."""
    with db.transaction() as session:
        key = clients.rotate(session, name)
    click.echo(key)


@clients_group.command("webhook-secret")
@click.argument("name")
def renew_webhook_secret(name: str) -> None:
    """Make the secret that signs a client's callbacks; it is printed once, and the one before it is used no more."""
    with db.transaction() as session:
        secret = clients.renew_webhook_secret(session, name)
    click.echo(secret)


@clients_group.command("list")
def list_clients() -> None:
    """All clients, their scopes, product and toggles."""
    table = Table("client", "scopes", "product", "toggles")
    with db.transaction() as session:
        for client, toggles_of in clients.every(session):
            shown = " ".join(f"{name}:{'on' if on else 'off'}" for name, on in toggles_of.items())
            table.add_row(client.name, " ".join(client.scopes), client.product or "-", shown)
    _print(table)


@main.group()
def toggles() -> None:
    """Switch a line on or off for a client, while everything runs."""


@toggles.command("set")
@click.argument("client")
@click.argument("name", type=click.Choice(clients.TOGGLES))
@click.argument("state", type=click.Choice(["on", "off"]))
def set_toggle(client: str, name: str, state: str) -> None:
    """Switch toggle NAME of CLIENT on or off."""
    with db.transaction() as session:
        clients.set_toggle(session, client, name, on=state == "on")
    click.echo(f"{name} is {state} for {client}.", err=True)


@main.command()
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs: one line per workflow.")
def show(name: str, as_json: bool) -> None:
    """The timeline of a workflow: its moves and its upstream calls.

    ID: its own, a charge reference, or a subscription id (then its newest operations).
    """
    with db.transaction() as session:
        found = [(workflows.read(session, one), workflows.timeline(session, one)) for one in names.find(session, name)]
    if not found:
        raise click.ClickException(f"There is no workflow {name}, nor a charge reference or subscription of that name.")
    for seen, timeline in found:
        if seen:
            _show(seen, [{**entry, "at": entry["at"].isoformat()} for entry in timeline], as_json=as_json)


def _show(seen: Seen, entries: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"id": str(seen.id), "kind": seen.kind, "state": seen.state, "timeline": entries}))
        return
    click.echo(f"{seen.kind} {seen.id}: {seen.state}")
    table = Table("at", "what", "who", "detail", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry["at"][11:23], entry["what"], entry["actor"], entry["detail"])
    _print(table)


@main.command()
@click.option("--line", required=True, type=click.Choice(["declarations", "vouchers"]), help="The line of business.")
@click.option("--operation", type=click.UUID, help="Of vouchers: the operation that failed or is unresolved.")
@click.option("--release", help="Failed under this release.")
@click.option("--from", "failed_from", help="Failed then or later, e.g. 2026-11-20T00:00:00Z.")
@click.option("--to", "failed_to", help="Failed before then.")
@click.option("--error", help="With this error code, e.g. mdg-400.")
@click.option("--client", help="Of this client.")
@click.option("--reference", "references", multiple=True, help="With this charge reference. Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Needed where nothing else says which.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be replayed.")
@click.option("--reason", help="Why; needed unless --dry-run.")
def replay(line: str, operation: UUID | None, **said: Any) -> None:
    """Send failed work again. Declarations: by filter, watched until done; Ctrl-C leaves them to the workers.
    Vouchers: one operation; what is unresolved is looked at, not sent."""
    from app import replay_command

    if line == "vouchers":
        replay_command.of_voucher(operation, **said)
    elif operation:
        raise click.UsageError("--operation: for --line vouchers.")
    else:
        replay_command.run(**said)


def _print(table: Table) -> None:
    """As wide as the terminal, or, into a file or pipe, as wide as its lines are."""
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)


@main.command()
def doctor() -> None:
    """What is wrong here, and what to do about it."""
    _tell(diagnosis.run())


@main.command()
def alive() -> None:
    """Whether the workers of this host take work; for a health check.

    Ends with 1 and says why where one does nothing though there is something to do, or none runs. Ends with 0 while
    Postgres is away: no restart of a worker would help.
    """
    _tell(diagnosis.workers_here())


def _tell(findings: Sequence[Finding]) -> None:
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("WRONG", fg="red")
        click.echo(f"{mark} {finding.what}: {finding.detail}")
        if finding.remedy:
            click.echo(f"      -> {finding.remedy}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)
