"""A scripted line of business: the engine's tests decide what every verb answers, and when."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import select, text, update
from sqlalchemy.orm import with_polymorphic

from app import db, states, steps
from app.flows import engine, lines, worker
from app.flows.flow import Ending, Flow, Policy
from app.models.claim import Claim
from app.models.client import Client
from app.models.orm import new_id
from app.models.workflow import Move, Workflow
from app.steps import Failure, Ok, Step
from app.store import claims, workflows
from app.store.workflows import Seen
from sandbox import Sandbox

S = states.Claim
POLICY = Policy(attempts=3, backoff=5, factor=3, backoff_max=900, find_after=5, settle=60, lease=65)
NO = Failure(code="rejected", http_status=422, message="No.")
LATER = Failure(code="upstream-unavailable", http_status=502, message="Down.")
LOST = Failure(code="upstream-timeout", http_status=504, message="Silence.")


@dataclass
class Script:
    """What the verbs do next, and what they did."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    effects: bool = True  # whether do announces a call with effects

    def verb(self, name: str, *, effects: bool) -> Callable[[Any, steps.Work], steps.Outcome]:
        def run(record: Any, work: steps.Work) -> steps.Outcome:
            if effects and self.effects:
                work.intend(0)
            else:
                work.renew()
            self.done.append(name)
            queue = self.answers.get(name, [])
            answer = queue.pop(0) if queue else Ok()
            outcome: steps.Outcome = answer(record, work) if callable(answer) else answer
            return outcome

        return run


@pytest.fixture
def script(database: None, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Two steps, `create` (safe to find) and `submit`, on the claims' state machine."""
    played = Script()
    two = (
        Step(
            name="create",
            of=S.APPOINTMENT_FOUND,
            to=S.CREATED,
            do=played.verb("create.do", effects=True),
            find=played.verb("create.find", effects=False),
        ),
        Step(
            name="add",
            of=S.CREATED,
            to=S.EXPENSED,
            do=played.verb("add.do", effects=True),
            find=played.verb("add.find", effects=False),
        ),
    )
    back = Step(name="rollback", of=S.ROLLING_BACK, to=S.ROLLED_BACK, do=played.verb("rollback.do", effects=False))
    flow = Flow(
        machine=states.CLAIM,
        line="toy",
        table=Claim,
        steps=(*two, back),
        undo_state=S.ROLLING_BACK,
        policy=lambda: POLICY,
        load=claims.load,
        held=lambda session, record: None,
        failed=lambda record, failure: Ending(state=S.ROLLING_BACK if record.rollback else S.FAILED),
        asked=lambda record: Ending(state=S.CANCELLED),
        entered=lambda session, record, state: [],
        observed=lambda record, verdict: None,
    )
    monkeypatch.setattr(lines, "FLOWS", {**lines.FLOWS, "claim": flow})
    return played


@pytest.fixture
def flow_of(script: Script, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change parts of the scripted flow."""

    def change(**parts: Any) -> None:
        monkeypatch.setattr(lines, "FLOWS", {**lines.FLOWS, "claim": replace(lines.FLOWS["claim"], **parts)})

    return change


def make(*, state: str = S.APPOINTMENT_FOUND, **columns: Any) -> UUID:
    """A workflow of the scripted line, due now."""
    claim_id = new_id()
    with db.transaction() as session:
        client = session.execute(select(Client)).scalars().first()
        if client is None:
            client = Client(name="test", scopes=["claims"], product="pci")
            session.add(client)
            session.flush()
        session.add(
            Claim(
                id=claim_id,
                state=state,
                client_id=client.id,
                correlation_id="corr-1",
                product="pci",
                visit=str(claim_id),
                slot=f"slot:{claim_id}",
                appointment={"dateTime": "2026-03-02T10:00:00", "stationNumber": "983"},
                expenses=[{"type": "mileage", "state": "pending", "expenseId": None}],
                **columns,
            )
        )
    return claim_id


def seen(workflow_id: UUID) -> Seen:
    with db.transaction() as session:
        found = workflows.read(session, workflow_id)
    assert found
    return found


def row(workflow_id: UUID) -> Any:
    """The row with the columns of its own line."""
    every_line = with_polymorphic(Workflow, "*")
    with db.transaction() as session:
        return session.execute(select(every_line).where(every_line.id == workflow_id)).scalar_one()


def moves(workflow_id: UUID) -> list[tuple[str | None, str | None]]:
    with db.transaction() as session:
        rows = session.execute(select(Move.of, Move.to).where(Move.workflow_id == workflow_id).order_by(Move.id))
        return [(of, to) for of, to in rows]


def shift(workflow_id: UUID, seconds: float) -> None:
    """Let so many seconds pass for this row: everything it waits for comes nearer."""
    with db.transaction() as session:
        session.execute(
            text(
                "UPDATE workflows SET updated_at = updated_at - make_interval(secs => :s), "
                "due_at = due_at - make_interval(secs => :s), "
                "wake_at = wake_at - make_interval(secs => :s), deadline_at = deadline_at - make_interval(secs => :s), "
                "intent = CASE WHEN intent ? 'at' THEN jsonb_set(intent, '{at}', "
                "to_jsonb((intent ->> 'at')::timestamptz - make_interval(secs => :s))) ELSE intent END WHERE id = :id"
            ),
            {"s": seconds, "id": workflow_id},
        )


def write(workflow_id: UUID, **columns: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Workflow).where(Workflow.id == workflow_id).values(**columns))


def take(workflow_id: UUID, *, by: UUID | None = None, state: str = S.APPOINTMENT_FOUND) -> Seen | None:
    """Take it as another worker would, and do nothing more."""
    with db.transaction() as session:
        return workflows.take(
            session, "claim", workflow_id, among={state}, release="test", worker=by or worker.incarnation(), lease=65
        )


def perform(workflow_id: UUID, step: str = "create") -> bool:
    return engine.perform("claim", step, workflow_id)


# For tests in which somebody is silent: limits so short that this is soon a timeout.
IMPATIENT = {"TRAVEL_PAY_READ_TIMEOUT": 1, "TRAVEL_PAY_AUTH_READ_TIMEOUT": 1, "NOTIFY_TIMEOUT": 1}


@pytest.fixture
def quick(set_settings: Callable[..., None], database: None, upstreams: Sandbox, redis_server: Any) -> None:
    """No breaker and no limit of an earlier test; limits of time that no answer of a busy machine comes near."""
    set_settings(
        TRAVEL_PAY_CONNECT_TIMEOUT=10,
        TRAVEL_PAY_READ_TIMEOUT=20,
        TRAVEL_PAY_AUTH_READ_TIMEOUT=20,
        TRAVEL_PAY_SETTLE_SECONDS=60,
        NOTIFY_TIMEOUT=20,
    )
    redis.Redis.from_url(redis_server.url).flushall()
