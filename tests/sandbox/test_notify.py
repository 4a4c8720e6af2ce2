"""Notify: who is let in, texts and their look-up, refusals, receipts; and its public client library against it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from notifications_python_client.notifications import NotificationsAPIClient


@pytest.fixture
def receiver():
    """Keeps the receipts posted to it."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.headers["Authorization"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/callbacks/notify", posted
        server.shutdown()


def test_a_text_is_answered_in_notifys_shape(sandbox, texter):
    answer = texter.send("ref-1").json()
    assert answer.keys() == {"id", "reference", "content", "uri", "template", "scheduled_for"}
    assert "3890" in answer["content"]["body"]
    assert answer["uri"] == f"{sandbox.url('notify')}/v2/notifications/{answer['id']}"
    assert answer["template"]["id"] == sandbox.credentials.products[0].templates["success"]


def test_the_same_reference_twice_is_two_texts(sandbox, texter):
    texter.send("ref-1")
    texter.send("ref-1")
    texter.send("ref-2")
    assert [(one["reference"], one["count"]) for one in sandbox.ledger()["texts"]] == [("ref-1", 2), ("ref-2", 1)]
    assert sandbox.ledger()["texts"][0]["template"] == "pci success"
    assert len(texter.find("ref-1").json()["notifications"]) == 2


def test_texts_are_found_by_reference_and_by_id(sandbox, texter):
    sent = texter.send("ref-1").json()
    found = texter.find("ref-1").json()
    assert found["links"].keys() == {"current"}
    [one] = found["notifications"]
    assert (one["id"], one["reference"], one["type"], one["status"]) == (sent["id"], "ref-1", "sms", "created")
    assert texter.find("ref-2").json()["notifications"] == []
    assert texter.session.get(sent["uri"], headers=texter.headers(), timeout=60).json()["id"] == sent["id"]
    missing = texter.session.get(sent["uri"] + "0", headers=texter.headers(), timeout=60)
    assert (missing.status_code, missing.json()["errors"][0]["error"]) == (404, "NoResultFound")


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"iat": 1_000_000_000}, 403, "Error: Your system clock must be accurate to within 30 seconds"),
        ({"iat": "now"}, 403, "Error: Your system clock must be accurate to within 30 seconds"),
        ({"iss": "22222222-3333-4444-8555-666666666699"}, 403, "Invalid token: service not found"),
        ({"secret": "22222222-3333-4444-8555-666666666699"}, 403, "Invalid token: API key not found"),
    ],
)
def test_a_wrong_token_is_an_auth_error(*, sandbox, texter, changes, status, said):
    answer = texter.send("ref-1", headers=texter.headers(**changes))
    assert answer.status_code == status
    assert answer.json() == {"status_code": status, "errors": [{"error": "AuthError", "message": said}]}
    assert sandbox.ledger()["texts"] == []


@pytest.mark.parametrize(("value", "status"), [("", 401), ("Bearer ", 401), ("Bearer x", 403), ("Bearer a.b.c", 403)])
def test_no_token_at_all_is_refused(texter, value, status):
    assert texter.send("ref-1", headers={"Authorization": value}).status_code == status


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"phone_number": None}, "ValidationError"),
        ({"phone_number": "202-555-0143"}, "ValidationError"),
        ({"template_id": None}, "ValidationError"),
        ({"template_id": "11111111-2222-4333-8444-000000000000"}, "BadRequestError"),
        ({"sms_sender_id": "11111111-2222-4333-8444-000000000000"}, "BadRequestError"),
        ({"personalisation": {"claim_number": "3890"}}, "BadRequestError"),
    ],
)
def test_a_text_that_cannot_be_sent_is_refused(sandbox, texter, change, error):
    answer = texter.send("ref-1", **change)
    assert (answer.status_code, answer.json()["errors"][0]["error"]) == (400, error)
    assert sandbox.ledger()["texts"] == []


def test_the_public_client_library_understands_it(sandbox):
    client = NotificationsAPIClient(sandbox.credentials.notify_api_key, base_url=sandbox.url("notify"), timeout=60)
    product = sandbox.credentials.products[1]
    sent = client.send_sms_notification(
        "+12025550143",
        product.templates["timeout"],
        personalisation={"claim_number": "unknown", "appt_date": "Mar 02"},
        reference="ref-1",
        sms_sender_id=product.sms_sender_id,
    )
    found = client.get_all_notifications(reference="ref-1")
    client.request_session.close()
    assert [one["id"] for one in found["notifications"]] == [sent["id"]]
    assert sandbox.ledger()["texts"][0]["template"] == "oh timeout"


def test_receipts_are_off_unless_asked_for(sandbox, texter):
    assert sandbox.world.settings.receipts.callback_url is None
    texter.send("ref-1")
    assert sandbox.ledger()["receipts"] == []


def test_receipts_are_posted_in_turn_and_repeated(sandbox, texter, receiver, until):
    url, posted = receiver
    asked = {"callback_url": url, "statuses": ["temporary-failure", "delivered"], "repeat": 2, "delay": 0.02}
    sandbox.change({"receipts": asked})
    sent = texter.send("ref-1").json()
    until(lambda: sandbox.ledger()["totals"]["receipts"] == 4)
    statuses = [receipt["status"] for _, receipt in posted]
    assert statuses == ["temporary-failure", "temporary-failure", "delivered", "delivered"]
    token, receipt = posted[-1]
    assert token == f"Bearer {sandbox.credentials.notify_callback_token}"
    assert (receipt["id"], receipt["reference"], receipt["to"]) == (sent["id"], "ref-1", "+12025550143")
    assert [(one["status"], one["count"], one["answered"]) for one in sandbox.ledger()["receipts"]] == [
        ("temporary-failure", 2, 204),
        ("delivered", 2, 204),
    ]
    assert texter.find("ref-1").json()["notifications"][0]["status"] == "delivered"


def test_an_early_receipt_arrives_before_the_send_is_answered(sandbox, texter, receiver):
    url, posted = receiver
    sandbox.change({"receipts": {"callback_url": url, "early": True, "token": "another"}})
    sent = texter.send("ref-1").json()
    [(token, receipt)] = posted
    assert (token, receipt["id"]) == ("Bearer another", sent["id"])


def test_a_receiver_that_is_away_harms_nothing(sandbox, texter):
    sandbox.change({"receipts": {"callback_url": "http://127.0.0.1:9/", "early": True}})
    assert texter.send("ref-1").status_code == 201
    assert sandbox.ledger()["receipts"][0]["answered"] == "ConnectionRefusedError"
