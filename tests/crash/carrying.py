"""Carrying one workflow to its end while time flies: what it waits for comes at once, and who fell silent is dead."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.flows import engine, worker
from app.store import due
from tests.flows.conftest import row

DEAD_SECONDS = 0.05
ROUNDS = 40
SILENCE = text("UPDATE workers SET beat_at = beat_at - interval '1 hour' WHERE id <> :mine")
SHIFT = text("""
    UPDATE workflows SET
        deadline_at = deadline_at - (due_at - clock_timestamp()),
        updated_at = updated_at - (due_at - clock_timestamp()),
        intent = CASE WHEN intent ? 'at' THEN jsonb_set(intent, '{at}',
            to_jsonb((intent ->> 'at')::timestamptz - (due_at - clock_timestamp()))) ELSE intent END,
        due_at = clock_timestamp(), wake_at = clock_timestamp()
    WHERE due_at > clock_timestamp() AND due_at < 'infinity' AND worker IS NULL AND id = :one
""")


def carry(workflow_id: UUID) -> Any:
    """Run it until it rests. Returns its row. Raises AssertionError when it does not come to rest."""
    for _ in range(ROUNDS):
        take_from_the_dead()
        engine.run(workflow_id)
        found = row(workflow_id)
        if found.due_at is None:
            return found
        with db.transaction() as session:
            session.execute(SHIFT, {"one": workflow_id})
    raise AssertionError(f"still {found.state} after {ROUNDS} rounds: {found.error}")


def take_from_the_dead() -> None:
    """What the sweep does about holders that fell silent; all others have."""
    with db.transaction() as session:
        session.execute(SILENCE, {"mine": worker.incarnation()})
    with db.transaction() as session:
        due.take_away(session, dead=DEAD_SECONDS, gone=DEAD_SECONDS)
