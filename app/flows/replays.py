"""Sending failed submissions again: once per newer release by itself, and whenever an operator asks for it.

Source: declarations contract, 2.5 and 3.5. What is moved is found by the workers' sweep, as many as there is room for.
"""

import time
from functools import partial
from typing import Any
from uuid import UUID

from app import config, db, errors, logs, metrics, queue
from app.db import Session
from app.flows.declaration_jobs import each, in_pages
from app.flows.declarations import fields
from app.flows.replay_request import Asked
from app.store import replays
from app.store.declaration_jobs import Found
from app.store.replays import Counts

TASK = "sweeps.declaration_replays"
BATCH = 100
PASSES, PAUSE_SECONDS = 10, 0.1
SAMPLE = 10
log = logs.get("declarations")


def by_release() -> int:
    """Send again what an older release made fail, once under the newest one. Returns how many were moved.

    Does nothing while no worker of that release is alive: going back to an older release is no newer one.
    """
    with db.transaction() as session:
        release = replays.served(session, dead=config.settings().lease_dead_seconds)
    if release is None:
        return 0
    return in_pages(
        lambda session, after: replays.failed_before(session, release, limit=BATCH, after=after),
        partial(_under, release),
    )


def _under(release: str, session: Session, found: Found) -> bool:
    trigger = "start" if replays.is_start(release) else "release"
    told = {"trigger": trigger, "release": release, "replayId": None}
    return _again(session, found, actor="timer", told=told, for_release=release)


def _again(session: Session, found: Found, *, actor: str, told: dict[str, Any], for_release: str | None) -> bool:
    moved = replays.send_again(session, found, actor=actor, detail=told, for_release=for_release)
    if moved:
        db.after_commit(session, partial(_replayed, found, told))
    return moved


def _replayed(found: Found, told: dict[str, Any]) -> None:
    metrics.declarations_replays.labels(told["trigger"]).inc()
    log.info("replayed", **fields(found), **told, **{"from": "failed", "to": "paid"})


# By an operator


def preview(session: Session, asked: Asked) -> tuple[int, list[str]]:
    """How many would be replayed, and the references of those that failed first."""
    return replays.preview(session, asked.filter.as_filter(), sample=SAMPLE)


def open_replay(session: Session, asked: Asked, *, by: str) -> tuple[UUID, Counts]:
    """Store what is to be replayed, all of it waiting, and who asked for it and why."""
    replay_id = replays.add(
        session, asked.filter.as_filter(), asked_by=by, reason=asked.reason or "", shown=asked.filter.shown()
    )
    db.after_commit(session, partial(log.info, "replay.opened", line=replays.LINE, replayId=str(replay_id), by=by))
    return replay_id, replays.counts(session, replay_id)


def kick(replay_id: UUID) -> None:
    """Let a worker begin at once. Best effort: the job finds what is left."""
    try:
        queue.send(queue.JOBS, [TASK], replay_id, queue.Rank.NEW)
    except errors.BrokerAway as away:
        metrics.engine_dispatch_failures.inc()
        log.warning("replay.broker-away", reason=str(away))


def carry(replay_id: UUID) -> None:
    """Move every submission of a replay; safe to run twice at once, or again.

    Those that others hold at this moment are looked at again a few times; what is left then the job finds.
    """
    for _ in range(PASSES):
        position: int | None = 0
        while position is not None:
            with db.transaction() as session:
                position = _carry_some(session, replay_id, after=position)
        with db.transaction() as session:
            if replay_id not in replays.unfinished(session):
                return
        time.sleep(PAUSE_SECONDS)


def _carry_some(session: Session, replay_id: UUID, *, after: int) -> int | None:
    turn = replays.next_turn(session, replay_id, after=after, limit=BATCH)
    told = {"trigger": "operator", "release": None, "replayId": str(replay_id)}
    moved = each(session, turn.failed, partial(_again, actor="operator", told=told, for_release=None))
    replays.settle(session, replay_id, [found.id for found in moved], "sent")
    replays.settle(session, replay_id, turn.stale, "skipped")
    return turn.last


def carry_all() -> None:
    """Go on with every replay of which something is left to move."""
    with db.transaction() as session:
        left = replays.unfinished(session)
    for replay_id in left:
        carry(replay_id)


def counts(replay_id: UUID) -> Counts | None:
    """How far a replay is; None where there is no such replay."""
    with db.transaction() as session:
        return replays.counts(session, replay_id) if replays.is_known(session, replay_id) else None


def at_start() -> None:
    """What a starting worker does of it; a database that is away only delays it until the job."""
    try:
        by_release()
    except Exception as error:
        if not db.unreachable(error):
            raise
        log.warning("replay.postgres-away")
