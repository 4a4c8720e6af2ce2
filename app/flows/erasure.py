"""Erasure: what is personal goes a while after a claim is final. Source: travel-claims contract 3.2 and 3.3."""

from app import config, db, states
from app.db import Session
from app.flows import dispatch, lines
from app.store import erasure, workflows
from app.store.erasure import Pending

BATCH = 200
_ENDINGS = {
    states.NOTIFICATION.kind: (states.Notification.SKIPPED, {"reason": "data-erased"}),
    states.CLAIM_CALLBACK.kind: (states.ClaimCallback.UNDELIVERED, {}),
}


def erase_some() -> tuple[int, bool]:
    """Erase the oldest claims that are due, one batch in one transaction. Returns how many, and whether to go on.

    A claim whose text or callback a worker holds at this moment is left for the next round.
    """
    with db.transaction() as session:
        ids = erasure.due(session, after=config.settings().travel_claims.erase_after_seconds, limit=BATCH)
        busy = {child.claim_id for child in erasure.pending(session, ids) if not _stopped(session, child)}
        ready = [one for one in ids if one not in busy]
        if ready:
            erasure.erase(session, ready)
    return len(ready), bool(ready) and len(ids) == BATCH


def _stopped(session: Session, child: Pending) -> bool:
    """End a text or callback for which nothing is left to send; False: somebody is at it."""
    seen = workflows.read(session, child.id)
    if seen is None or child.held:
        return False
    to, values = _ENDINGS[seen.kind]
    if not workflows.move(session, seen, to, actor="timer", reason="data-erased", holder=False):
        return False
    flow = lines.FLOWS[seen.kind]
    workflows.save(session, flow.table, seen.id, values)
    dispatch.follow_up(session, seen.kind, flow.load(session, seen.id), to)
    return True
