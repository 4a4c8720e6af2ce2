"""`throughline replay`: what the operators' route does, from the command line, and one operation on a voucher.

It moves the work itself, so it needs Postgres alone; the workers carry it out. Sources: declarations contract, 2.5;
vouchers contract, 3.1.
"""

import getpass
import time
from typing import Any
from uuid import UUID

import click
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app import db, fields
from app.flows import replays, voucher_replay
from app.flows.replay_request import Asked
from app.store.replays import Counts

LOOK_EVERY_SECONDS = 0.5
MOST_REASON = 200
_OPTIONS = {"failedFrom": "--from", "failedTo": "--to", "references": "--reference"}


def run(*, everything: bool, dry_run: bool, reason: str | None, **filters: Any) -> None:
    """Replay, and show how far it is until it is done. Raises click.UsageError for what is no good question."""
    asked = _asked(everything=everything, dry_run=dry_run, reason=reason, filters=filters)
    with db.transaction() as session:
        if asked.dry_run:
            matched, sample = replays.preview(session, asked)
            click.echo("\n".join([f"{matched} would be replayed.", *sample]))
            return
        replay_id, counts = replays.open_replay(session, asked, by=_operator())
    click.echo(f"replay {replay_id}")
    try:
        counts = _watch(replay_id, counts)
    except KeyboardInterrupt:
        click.echo("The workers go on with it.", err=True)
        counts = replays.counts(replay_id) or counts
    click.echo(_told(counts))


def of_voucher(operation_id: UUID | None, *, dry_run: bool, reason: str | None, **others: Any) -> None:
    """Replay one operation on a voucher. Raises click.UsageError, and what `voucher_replay.replay` raises."""
    if operation_id is None or any(others.values()):
        raise click.UsageError("Say which with --operation; for vouchers nothing else says which.")
    reason = (reason or "").strip()
    if not dry_run and not 1 <= len(reason) <= MOST_REASON:
        raise click.UsageError(f"--reason: Must have 1 to {MOST_REASON} characters, unless --dry-run is given.")
    state = voucher_replay.replay(operation_id, by=_operator(), reason=reason, dry_run=dry_run)
    click.echo(f"{operation_id} {'would be' if dry_run else 'is'} {state}.")


def _operator() -> str:
    """Who types this; a container may know no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "command line"


def _asked(*, everything: bool, dry_run: bool, reason: str | None, filters: dict[str, Any]) -> Asked:
    given = {name: value for name, value in filters.items() if value not in (None, ())}
    if not given and not everything:
        raise click.UsageError("Say which: --release, --from, --to, --error, --client, --reference, or --all.")
    body = {
        "filter": {to_camel(name): list(value) if name == "references" else value for name, value in given.items()},
        "dryRun": dry_run,
    }
    if reason is not None:
        body["reason"] = reason
    try:
        return Asked.model_validate(body)
    except ValidationError as error:
        raise click.UsageError("\n".join(map(_fault, fields.faults(error)))) from error


def _fault(fault: dict[str, str]) -> str:
    _, *place = fault["pointer"].removeprefix("/filter").split("/")
    return f"{_OPTIONS.get(place[0], '--' + place[0])}: {fault['detail']}"


def _watch(replay_id: UUID, counts: Counts) -> Counts:
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*bar, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("replay", total=counts.matched)
        while counts.waiting:
            replays.carry(replay_id)
            counts = replays.counts(replay_id) or counts
            progress.update(task, completed=counts.matched - counts.waiting, description=_told(counts))
            if counts.waiting:
                time.sleep(LOOK_EVERY_SECONDS)
    return counts


def _told(counts: Counts) -> str:
    return (
        f"matched {counts.matched}, waiting {counts.waiting}, submitted {counts.submitted}, "
        f"failed again {counts.failed_again}, skipped {counts.skipped}"
    )
