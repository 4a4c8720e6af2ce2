"""Replays: which failed submissions are meant, whose turn has come, and what became of them.

Source: declarations contract, 2.5 and 3.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from app import states
from app.models.client import Client
from app.models.replay import Audit, Replay, ReplayItem
from app.models.workflow import Release, Worker
from app.store import declaration_jobs, releases, workflows
from app.store.declaration_jobs import KIND, D, Found, Page, Place, S
from app.store.workflows import NOW, W, seconds

LINE = "declarations"
_WHOLE = W.join(D, D.c.id == W.c.id)
_AGAIN: dict[str, Any] = {"attempt": 0, "crashes": 0, "intent": None, "in_doubt": False}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which failed submissions are meant; all given parts hold. Times: of the last failure, `failed_to` exclusive."""

    release: str | None = None
    failed_from: datetime | None = None
    failed_to: datetime | None = None
    error: str | None = None
    client: str | None = None
    references: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a replay is; the four parts add up to `matched`."""

    waiting: int
    submitted: int
    failed_again: int
    skipped: int

    @property
    def matched(self) -> int:
        return self.waiting + self.submitted + self.failed_again + self.skipped


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Items of a replay whose turn has come, as they are under their locks; those that others hold are left out.

    `stale`: no longer failed as they were when the replay was made. `last`: the last position looked at, None at the
    end.
    """

    failed: Sequence[Found]
    stale: Sequence[UUID]
    last: int | None


# What is meant


def preview(session: Session, wanted: Filter, *, sample: int) -> tuple[int, list[str]]:
    """How many submissions are meant, and the references of those that failed first."""
    which = _meant(wanted)
    matched = session.scalar(select(func.count()).select_from(_WHOLE).where(*which)) or 0
    first = select(D.c.charge_reference).select_from(_WHOLE).where(*which).order_by(W.c.finished_at, W.c.id)
    return matched, list(session.scalars(first.limit(sample)))


def add(session: Session, wanted: Filter, *, asked_by: str, reason: str, shown: dict[str, Any]) -> UUID:
    """Store a replay with all that is meant now, oldest failure first, and who asked for it. `shown`: the filter."""
    replay = Replay(line=LINE, asked_by=asked_by, filter=shown, reason=reason)
    session.add(replay)
    session.flush()
    before = W.c.finished_at <= replay.created_at
    place = func.row_number().over(order_by=(W.c.finished_at, W.c.id))
    rows = select(literal(replay.id), W.c.id, place, literal("queued")).select_from(_WHOLE)
    columns = ["replay_id", "workflow_id", "position", "state"]
    session.execute(insert(ReplayItem).from_select(columns, rows.where(*_meant(wanted), before)))
    told = {"line": LINE, "filter": shown, "reason": reason, "matched": counts(session, replay.id).matched}
    session.execute(insert(Audit).values(actor=asked_by, action="replay", subject=str(replay.id), detail=told))
    return replay.id


def _meant(wanted: Filter) -> list[ColumnElement[bool]]:
    parts: list[tuple[Any, Any]] = [
        (wanted.release, lambda name: W.c.release == name),
        (wanted.failed_from, lambda moment: W.c.finished_at >= moment),
        (wanted.failed_to, lambda moment: W.c.finished_at < moment),
        (wanted.error, lambda code: W.c.error["code"].astext == code),
        (wanted.client, lambda name: W.c.client_id.in_(select(Client.id).where(Client.name == name))),
        (wanted.references, D.c.charge_reference.in_),
    ]
    given = [condition(value) for value, condition in parts if value is not None]
    return [W.c.kind == KIND, W.c.state == S.FAILED, *given]


# What became of it


def is_known(session: Session, replay_id: UUID) -> bool:
    """Whether there is such a replay of declarations."""
    return bool(session.scalar(select(exists().where(Replay.id == replay_id, Replay.line == LINE))))


def counts(session: Session, replay_id: UUID) -> Counts:
    """How far this replay is."""
    items = select(ReplayItem.state, func.count()).where(ReplayItem.replay_id == replay_id).group_by(ReplayItem.state)
    found: dict[str, int] = {row[0]: row[1] for row in session.execute(items)}
    return Counts(
        waiting=found.get("queued", 0) + found.get("sent", 0),
        submitted=found.get("submitted", 0),
        failed_again=found.get("failed", 0),
        skipped=found.get("skipped", 0),
    )


def close(session: Session, workflow_id: UUID, state: str) -> None:
    """A submission that was replayed has come to its end: so has its item."""
    mine = update(ReplayItem).where(ReplayItem.workflow_id == workflow_id, ReplayItem.state == "sent")
    session.execute(mine.values(state=state))


# Whose turn has come


def unfinished(session: Session) -> list[UUID]:
    """Replays with items whose turn has yet to come, oldest first."""
    queued = exists().where(ReplayItem.replay_id == Replay.id, ReplayItem.state == "queued")
    return list(session.scalars(select(Replay.id).where(Replay.line == LINE, queued).order_by(Replay.created_at)))


def next_turn(session: Session, replay_id: UUID, *, after: int, limit: int) -> Turn:
    """The next so many items after this position."""
    items = (
        select(ReplayItem.workflow_id, ReplayItem.position)
        .where(ReplayItem.replay_id == replay_id, ReplayItem.state == "queued", ReplayItem.position > after)
        .order_by(ReplayItem.position)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    positions: dict[UUID, int] = {row[0]: row[1] for row in session.execute(items)}
    made = session.scalar(select(Replay.created_at).where(Replay.id == replay_id))
    found = sorted(declaration_jobs.lock(session, positions), key=lambda one: positions[one.id])
    failed = [
        one for one in found if one.seen.state == S.FAILED and one.finished_at and made and one.finished_at <= made
    ]
    stale = [one.id for one in found if one not in failed]
    return Turn(failed=failed, stale=stale, last=max(positions.values(), default=None))


def settle(session: Session, replay_id: UUID, workflow_ids: Sequence[UUID], state: str) -> None:
    """What became of these items at their turn."""
    mine = update(ReplayItem).where(ReplayItem.replay_id == replay_id, ReplayItem.workflow_id.in_(workflow_ids))
    session.execute(mine.values(state=state))


# Replay by release


def served(session: Session, *, dead: float) -> str | None:
    """The newest release, if one of its workers is alive; of those without a name the newest holds for all."""
    newest = releases.newest(session)
    if newest is None:
        return None
    theirs = Worker.release.like("start-%") if is_start(newest) else Worker.release == newest
    alive = exists().where(theirs, Worker.beat_at >= NOW - seconds(dead))
    return newest if session.scalar(select(alive)) else None


def is_start(release: str) -> bool:
    """Whether this is a start of workers that have no release."""
    return release.startswith("start-")


def failed_before(session: Session, release: str, *, limit: int, after: Place | None) -> Page:
    """Submissions that an older release made fail and that were not replayed under this one yet."""
    seen_at = select(Release.seen_at)
    first_seen = seen_at.where(Release.name == release).scalar_subquery()
    failed_by = seen_at.where(Release.name == W.c.release).correlate(W).scalar_subquery()
    wanted = [
        W.c.state == S.FAILED,
        or_(failed_by.is_(None), failed_by < first_seen),
        D.c.replayed_release.is_distinct_from(release),
    ]
    return declaration_jobs.page(session, wanted, by=W.c.finished_at, limit=limit, after=after)


def send_again(session: Session, found: Found, *, actor: str, detail: dict[str, Any], for_release: str | None) -> bool:
    """Back to paid and due now, as if nothing had been tried: no attempt, no doubt, the body to be built anew."""
    if not workflows.move(
        session, found.seen, states.Declaration.PAID, actor=actor, reason="replayed", holder=False, detail=detail,
        for_release=for_release, **_AGAIN,
    ):  # fmt: skip
        return False
    replayed = {"replayed_release": for_release} if for_release else {}
    declaration_jobs.mark(session, found, body_mode=None, overdue=False, **replayed)
    return True
