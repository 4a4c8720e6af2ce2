"""The outcome callback: begun with the outcome, tried with the same body until it is taken, and counted."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest
import redis
from prometheus_client import REGISTRY
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app import config, db, queue, states
from app.flows import callbacks as flow
from app.flows import claim_requests, claim_view, dispatch, engine, lines, sweep
from app.models.callback import ClaimCallback
from app.store import callbacks, claims, clients, workflows
from app.upstreams import callbacks as receivers
from sandbox import Sandbox
from tests.flows.conftest import moves, row, shift, take, write
from tests.flows.test_claims import accept, carry, texts_of

B, S = states.ClaimCallback, states.Claim
SECRET = "whsec-example-0123456789abcdef"


class Receiver(ThreadingHTTPServer):
    """Answers the n-th post with the n-th of `statuses`, then with 204; keeps what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/travel?sig=keep-me"


class _Post(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver(quick: None, set_settings: Callable[..., None]) -> Iterator[Receiver]:
    """A receiver that is allowed, and a client with a webhook secret."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        set_settings(
            TRAVEL_CLAIMS_CALLBACK_HOSTS=f"127.0.0.1:{server.server_port}", TRAVEL_CLAIMS_CALLBACK_INSECURE="true"
        )
        receivers._upstreams.clear()
        yield server
        for upstream in receivers._upstreams.values():
            upstream.session.close()
        receivers._upstreams.clear()
        server.shutdown()
        thread.join()


def accepted(receiver: Receiver, *, secret: str | None = SECRET, **more: Any) -> UUID:
    claim_id = accept(callback_url=receiver.url, **more)
    with db.transaction() as session:
        clients.named(session, "shop").webhook_secret = secret
    return claim_id


def finished(receiver: Receiver, **more: Any) -> tuple[UUID, Any]:
    """A claim that has come to its end, and its callback."""
    claim_id = accepted(receiver, **more)
    carry(claim_id)
    (callback,) = callbacks_of(claim_id)
    return claim_id, callback


def callbacks_of(claim_id: UUID) -> list[ClaimCallback]:
    with db.transaction() as session:
        return list(session.scalars(select(ClaimCallback).where(ClaimCallback.claim_id == claim_id)))


def shown(claim_id: UUID) -> dict[str, Any]:
    with db.transaction() as session:
        found = claims.view(session, claim_id, None)
        assert found
        return claim_view.render(found)


def counted(result: str) -> float:
    labels = {"product": "pci", "result": result}
    return REGISTRY.get_sample_value("claims_callbacks_total", labels) or 0.0


def forget_limits() -> None:
    """A 429 closes the host's limiter for a minute: let it be over."""
    redis.Redis.from_url(config.settings().redis_url).flushall()
    receivers._upstreams.clear()


def wait_of(workflow_id: UUID) -> float:
    """Seconds until it is due."""
    with db.transaction() as session:
        return float((row(workflow_id).due_at - workflows.now(session)).total_seconds())


# What is told, and when.


def test_the_outcome_is_posted_once_with_the_claim_as_it_is_shown(receiver: Receiver, upstreams: Sandbox) -> None:
    before = counted("delivered")
    claim_id, callback = finished(receiver)
    assert (callback.state, callback.run, receiver.got) == (B.PENDING, 1, [])
    at_the_end = shown(claim_id)
    assert at_the_end["callback"] == {"state": "pending", "attempts": 0, "lastStatus": None}
    done = carry(callback.id)
    assert (done.state, done.attempts, done.last_status) == (B.DELIVERED, 1, 204)
    ((headers, body),) = receiver.got
    told = json.loads(body)
    assert list(told) == ["id", "type", "createdAt", "claim"]
    assert (told["id"], told["type"]) == (str(callback.id), "travel-claim.submitted")
    assert told["claim"] == at_the_end
    assert told["createdAt"] >= at_the_end["updatedAt"]
    assert (headers["X-Throughline-Delivery"], headers["X-Correlation-ID"]) == (str(callback.id), "corr-1")
    moment = int(headers["X-Throughline-Signature"].split(",")[0][2:])
    assert headers["X-Throughline-Signature"] == receivers.signature(SECRET, moment, body)
    assert shown(claim_id)["callback"] == {"state": "delivered", "attempts": 1, "lastStatus": 204}
    assert counted("delivered") == before + 1


def test_nothing_is_begun_for_who_asks_for_no_callback(receiver: Receiver, upstreams: Sandbox) -> None:
    claim_id = accept()
    carry(claim_id)
    assert (callbacks_of(claim_id), shown(claim_id)["callback"]) == ([], None)


def test_nothing_is_begun_before_the_claim_is_final(receiver: Receiver, upstreams: Sandbox) -> None:
    claim_id = accepted(receiver)
    while not states.CLAIM.is_finished(row(claim_id).state):
        assert callbacks_of(claim_id) == []
        assert shown(claim_id)["callback"] == {"state": "none", "attempts": 0, "lastStatus": None}
        step = lines.FLOWS["claim"].step_in(row(claim_id).state)
        assert step
        engine.perform("claim", step.name, claim_id)
    assert [callback.state for callback in callbacks_of(claim_id)] == [B.PENDING]


def test_a_cancelled_claim_calls_back_though_it_sends_no_text(receiver: Receiver, upstreams: Sandbox) -> None:
    claim_id = accepted(receiver)
    assert claim_requests.cancel(claim_id) == "done"
    (callback,) = callbacks_of(claim_id)
    carry(callback.id)
    told = json.loads(receiver.got[0][1])
    assert (told["type"], told["claim"]["state"]) == ("travel-claim.cancelled", "cancelled")
    assert texts_of(claim_id) == []


@pytest.mark.parametrize(
    ("fault", "rollback", "state"),
    [
        ({"fault": "status", "status": 422, "message": "No."}, False, "failed"),
        ({"fault": "status", "status": 422, "message": "No."}, True, "rolled-back"),
    ],
)
def test_every_final_state_is_told_with_its_error(
    receiver: Receiver, upstreams: Sandbox, fault: dict[str, Any], rollback: bool, state: str
) -> None:
    upstreams.fault("add-expense", **fault)
    claim_id, callback = finished(receiver, rollback=rollback)
    carry(callback.id)
    told = json.loads(receiver.got[0][1])
    assert (told["type"], told["claim"]["state"]) == (f"travel-claim.{state}", state)
    assert told["claim"]["error"] == shown(claim_id)["error"]
    assert told["claim"]["error"]["message"] == "No."


def test_a_claim_whose_holders_kept_dying_tells_its_end_and_not_what_was_read_before(
    receiver: Receiver, upstreams: Sandbox
) -> None:
    claim_id = accepted(receiver)
    mine = take(claim_id, state=S.ACCEPTED)
    assert mine
    with db.transaction() as session:
        sweep._poisoned(session, mine)
    (callback,) = callbacks_of(claim_id)
    carry(callback.id)
    told = json.loads(receiver.got[0][1])["claim"]
    assert (told["state"], told["final"], told["error"]["code"]) == ("failed", True, "crashed")


def test_each_run_calls_back_once_and_tells_of_itself(receiver: Receiver, upstreams: Sandbox) -> None:
    upstreams.fault("submit-claim", "status", status=422, times=1)
    claim_id, first = finished(receiver)
    assert claim_requests.retry(claim_id, notify=False, actor="client") == "done"
    assert shown(claim_id)["callback"] == {"state": "none", "attempts": 0, "lastStatus": None}
    carry(claim_id)
    carry(first.id)
    one, two = sorted(callbacks_of(claim_id), key=lambda callback: callback.run)
    carry(two.id)
    assert ([one.run, two.run], one.id) == ([1, 2], first.id)
    told = [json.loads(body) for _, body in receiver.got]
    assert [(one["type"], one["claim"]["run"]) for one in told] == [
        ("travel-claim.failed", 1), ("travel-claim.submitted", 2),
    ]  # fmt: skip
    with db.transaction() as session:
        claim = claims.load(session, claim_id)
    with pytest.raises(IntegrityError), db.transaction() as session:
        callbacks.begin(session, claim, state="submitted", deadline=1, lead=1)


def test_the_claim_is_not_changed_by_how_it_ends(receiver: Receiver, upstreams: Sandbox) -> None:
    claim_id, callback = finished(receiver)
    before, history = vars(row(claim_id)), moves(claim_id)
    receiver.statuses = [410]
    carry(callback.id)
    after = vars(row(claim_id))
    for columns in (before, after):
        columns.pop("_sa_instance_state")
    assert (after, moves(claim_id)) == (before, history)


# Trying again.


def test_it_is_repeated_with_the_same_id_and_body_until_it_is_taken(receiver: Receiver, upstreams: Sandbox) -> None:
    receiver.statuses = [500, 404, 429, 302, 202]
    claim_id, callback = finished(receiver)
    for tries, status in enumerate((500, 404, 429, 302), start=1):
        engine.run(callback.id)
        shift(callback.id, max(wait_of(callback.id), 0) + 0.1)
        forget_limits()
        assert (row(callback.id).state, row(callback.id).attempts) == (B.PENDING, tries)
        assert shown(claim_id)["callback"] == {"state": "pending", "attempts": tries, "lastStatus": status}
    done = carry(callback.id)
    assert (done.state, done.attempts, done.last_status) == (B.DELIVERED, 5, 202)
    assert len({body for _, body in receiver.got}) == 1
    assert {headers["X-Throughline-Delivery"] for headers, _ in receiver.got} == {str(callback.id)}


def test_it_waits_30_s_doubling_to_an_hour(receiver: Receiver, upstreams: Sandbox) -> None:
    receiver.statuses = [500] * 9
    _, callback = finished(receiver)
    for planned in (30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600):
        engine.run(callback.id)
        wait = wait_of(callback.id)
        assert 0.8 * planned - 9 <= wait <= 1.2 * planned
        shift(callback.id, wait + 0.01)


def test_after_24_h_it_is_undelivered_and_not_before(receiver: Receiver, upstreams: Sandbox) -> None:
    receiver.statuses = [500] * 3
    before = counted("undelivered")
    claim_id, callback = finished(receiver)
    engine.run(callback.id)
    shift(callback.id, 86_400 - 60)
    engine.run(callback.id)
    assert row(callback.id).state == B.PENDING
    assert wait_of(callback.id) <= 60
    shift(callback.id, 61)
    engine.run(callback.id)
    done = row(callback.id)
    assert (done.state, done.attempts, done.last_status) == (B.UNDELIVERED, 3, 500)
    assert shown(claim_id)["callback"] == {"state": "undelivered", "attempts": 3, "lastStatus": 500}
    assert counted("undelivered") == before + 1


def test_no_answer_at_all_is_repeated_and_has_no_status(receiver: Receiver, upstreams: Sandbox) -> None:
    claim_id, callback = finished(receiver)
    receiver.socket.close()
    engine.run(callback.id)
    assert shown(claim_id)["callback"] == {"state": "pending", "attempts": 1, "lastStatus": None}


def test_410_ends_it_at_once(receiver: Receiver, upstreams: Sandbox) -> None:
    receiver.statuses = [410]
    _, callback = finished(receiver)
    engine.run(callback.id)
    done = row(callback.id)
    assert (done.state, done.attempts, done.last_status) == (B.UNDELIVERED, 1, 410)


def test_a_host_that_is_no_longer_allowed_ends_it_without_a_call(
    receiver: Receiver, upstreams: Sandbox, set_settings: Callable[..., None]
) -> None:
    _, callback = finished(receiver)
    set_settings(TRAVEL_CLAIMS_CALLBACK_HOSTS="another.example")
    engine.run(callback.id)
    done = row(callback.id)
    assert (done.state, done.error["code"], receiver.got) == (B.UNDELIVERED, "callback-url-not-allowed", [])


def test_a_worker_that_died_in_the_middle_costs_a_repeat_at_most(receiver: Receiver, upstreams: Sandbox) -> None:
    _, callback = finished(receiver)
    with db.transaction() as session:
        assert workflows.take(
            session, "claim-callback", callback.id, among={B.PENDING}, release="test", worker=callback.id, lease=25
        )
    engine.run(callback.id)
    assert receiver.got == []
    write(callback.id, worker=None, fence=row(callback.id).fence + 1)
    assert carry(callback.id).state == B.DELIVERED


# Who may not be called now.


def test_without_a_secret_nothing_is_sent_until_there_is_one(
    receiver: Receiver, upstreams: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    _, callback = finished(receiver, secret=None)
    caplog.set_level(logging.INFO)
    engine.run(callback.id)
    assert "'code': 'no-webhook-secret'" in caplog.text
    assert (receiver.got, row(callback.id).state, row(callback.id).attempts) == ([], B.PENDING, 0)
    with db.transaction() as session:
        secret = clients.renew_webhook_secret(session, "shop")
    carry(callback.id)
    ((headers, body),) = receiver.got
    moment = int(headers["X-Throughline-Signature"].split(",")[0][2:])
    assert headers["X-Throughline-Signature"] == receivers.signature(secret, moment, body)


def test_a_client_whose_line_is_off_is_not_called_until_it_is_on_again(receiver: Receiver, upstreams: Sandbox) -> None:
    _, callback = finished(receiver)
    with db.transaction() as session:
        clients.set_toggle(session, "shop", "claims", on=False)
    before = row(callback.id).deadline_at
    engine.run(callback.id)
    held = row(callback.id)
    assert (receiver.got, held.state, held.attempt) == ([], B.PENDING, 0)
    assert held.deadline_at > before
    with db.transaction() as session:
        clients.set_toggle(session, "shop", "claims", on=True)
    assert carry(callback.id).state == B.DELIVERED


# What is kept, sent and logged.


def test_url_and_body_are_sealed_and_in_no_log_or_timeline(
    receiver: Receiver, upstreams: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [500]
    caplog.set_level(logging.WARNING, logger="urllib3")  # as `logs.configure` has it
    caplog.set_level(logging.DEBUG)
    claim_id, callback = finished(receiver)
    carry(callback.id)
    assert "claims.callback" in caplog.text
    with db.transaction() as session:
        raw = session.connection().exec_driver_sql("SELECT url, body FROM claim_callbacks").one()
        claim_url = session.connection().exec_driver_sql("SELECT callback_url FROM claims").scalar_one()
        kept = repr([list(workflows.timeline(session, one)) for one in (claim_id, callback.id)])
    assert b"keep-me" not in bytes(raw[0]) + bytes(claim_url)
    assert b"travel-claim" not in bytes(raw[1])
    for place in (caplog.text, kept, repr(row(callback.id).error)):
        assert "keep-me" not in place
        assert SECRET not in place


def test_its_one_task_is_known_to_the_workers(
    receiver: Receiver, upstreams: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.claims  # noqa: F401, PLC0415

    sent: list[tuple[str, ...]] = []
    monkeypatch.setattr(queue, "send", lambda to, names, *rest: sent.append(tuple(names)))
    _, callback = finished(receiver)
    dispatch.enqueue(callback.id)
    assert sent[-1] == ("claims.deliver",)
    assert "claims.deliver" in queue.celery().tasks
    assert flow.FLOW.policy().lease > receivers.WHOLE_SECONDS
