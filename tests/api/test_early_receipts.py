"""Receipts that come before our own send has been answered, and many at once: contract 2.8."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import update
from werkzeug.serving import make_server

from app import db, states
from app.flows import engine
from app.models.workflow import Workflow
from app.store import workflows
from tests.api.factories import add_text, claim
from tests.api.texts import NOTIFY_ID, TOKEN, Counts, receipts, state, text_of


def in_flight(ended: str, **columns: Any) -> str:
    intent = {"step": "send_text", "index": 0, "verb": "do", "at": "2026-03-02T10:00:00+00:00"}
    return add_text(ended, "pending", **{"in_doubt": True, "intent": intent, "fence": 3, **columns})


@pytest.mark.parametrize(
    ("status", "becomes", "gained"),
    [
        ("delivered", "delivered", {"success": 1, "delivered": 1}),
        ("permanent-failure", "undelivered", {"success": 1, "error": 1, "silent": 1}),
        ("sending", "sent", {"success": 1}),
        ("created", "sent", {"success": 1}),
        ("what", "undelivered", {"success": 1, "error": 1, "silent": 1}),
    ],
)
def test_a_receipt_proves_that_a_lost_send_took_effect(send, ended, status, becomes, gained):
    text = in_flight(ended)
    counts = Counts()
    assert send(status, reference=text).status_code == 204
    row = text_of(text)
    assert (row.state, row.in_doubt, row.intent, row.wake_at, row.due_at) == (becomes, False, None, None, None)
    assert row.fence > 3
    assert row.worker is None
    assert counts.gained() == gained


def test_the_senders_own_writes_hit_nothing_afterwards(send, ended):
    text = in_flight(ended)
    with db.transaction() as session:
        seen = workflows.read(session, UUID(text))
    send("sending", reference=text)
    with db.transaction() as session:
        assert seen
        assert not workflows.renew(session, seen, lease=5)
        assert not workflows.later(session, seen, after=1, attempt=1, intent=None)
        assert not workflows.move(session, seen, states.Notification.FAILED, actor="worker")


def test_a_text_that_was_never_in_doubt_is_sent_too(send, ended):
    text = add_text(ended, "pending")
    send("delivered", reference=text)
    assert state(text) == "delivered"


def test_a_sender_that_begins_its_call_meanwhile_is_read_again(send, ended, monkeypatch):
    """An intent changes neither state nor fence; the receipt's write must not overlook it."""
    text = add_text(ended, "pending")
    real, reads = workflows.read, []

    def read(session: Any, workflow_id: UUID) -> Any:
        seen = real(session, workflow_id)
        reads.append(seen)
        if len(reads) == 1:
            with db.transaction() as other:
                other.execute(update(Workflow).where(Workflow.id == UUID(text)).values(in_doubt=True))
        return seen

    monkeypatch.setattr(workflows, "read", read)
    counts = Counts()
    assert send("delivered", reference=text).status_code == 204
    assert state(text) == "delivered"
    assert [one.in_doubt for one in reads[:2]] == [False, True]
    assert counts.gained() == {"success": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("status", "gained"), [("delivered", {"success": 1, "delivered": 1}), ("sending", {"success": 1})]
)
def test_many_receipts_at_once_count_once(app, tokens, ended, status, gained):
    text = in_flight(ended)
    _send_at_once(app, text, status, gained)


def test_many_receipts_at_once_that_change_nothing_count_once(app, tokens, ended):
    text = add_text(ended)
    _send_at_once(app, text, "sending", {})


def _send_at_once(app: Flask, text: str, status: str, gained: dict[str, float]) -> None:
    counts, before = Counts(), receipts(status)
    barrier = threading.Barrier(12)

    def deliver(_: int) -> int:
        barrier.wait()
        body = {"reference": text, "id": NOTIFY_ID, "status": status}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return int(app.test_client().post("/callbacks/notify", json=body, headers=headers).status_code)

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(deliver, range(12))) == {204}
    assert counts.gained() == gained
    assert receipts(status) == before + 1


# With the sandbox


@pytest.fixture
def receiver(app: Flask) -> Iterator[str]:
    """The API, listening."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/callbacks/notify"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "outcome", [("delivered", "delivered"), ("sending", "sent"), ("technical-failure", "undelivered")]
)
def test_a_receipt_that_overtakes_the_answer_of_the_send_is_the_truth(post, upstreams, receiver, dispatched, outcome):
    status, becomes = outcome
    upstreams.change({"receipts": {"callback_url": receiver, "early": True, "statuses": [status]}})
    engine.run(UUID(post(claim(phone="+12025550143")).json["id"]))
    text = dispatched[-1]
    engine.run(text)
    assert state(str(text)) == becomes
    assert text_of(str(text)).notify_id
    ledger = upstreams.ledger()
    assert [one["answered"] for one in ledger["receipts"]] == [204]
    assert ledger["totals"]["texts"] == 1
