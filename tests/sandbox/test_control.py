"""The control API: what can be read, set and put back, over HTTP, and what it says to a malformed request."""

import socket
import threading
import time

import pytest
import requests

from sandbox import Sandbox


@pytest.fixture
def control(sandbox):
    with requests.Session() as session:

        def send(method, path, json=None):
            return session.request(method, f"{sandbox.url()}{path}", json=json, timeout=60)

        yield send


def test_ledger_and_calls_are_read_over_http(sandbox, control, veteran):
    veteran.claim_id()
    assert control("GET", "/ledger").json() == sandbox.ledger()
    assert control("GET", f"/ledger?correlation_id={veteran.correlation_id}").json()["totals"]["claims"] == 1
    assert control("GET", "/ledger?correlation_id=nobody").json()["claims"] == []
    calls = control("GET", "/calls").json()["calls"]
    assert calls == sandbox.calls()
    number = calls[-1]["number"]
    assert control("GET", f"/calls?call=create-claim&after={number - 1}&limit=1").json()["calls"] == calls[-1:]
    assert control("GET", "/calls?call=read-claim").json() == {"calls": []}


def test_faults_are_set_listed_and_cleared(control, veteran):
    added = control("POST", "/faults", {"call": "find-or-add", "fault": "status", "status": 503, "times": 1})
    assert (added.status_code, added.json()["left"], added.json()["used"]) == (201, 1, 0)
    assert [veteran.find().status_code for _ in range(2)] == [503, 200]
    [shown] = control("GET", "/faults").json()["faults"]
    assert (shown["id"], shown["left"], shown["used"]) == (added.json()["id"], 0, 1)
    other = control("POST", "/faults", {"call": "*", "fault": "drop-before"}).json()["id"]
    assert control("DELETE", f"/faults/{other}").json() == {"removed": 1}
    assert control("DELETE", "/faults").json() == {"removed": 1}
    assert control("GET", "/faults").json() == {"faults": []}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "the body must be a JSON object"),
        ({}, "a fault needs call and fault"),
        ({"call": "create-claim", "fault": "explode"}, "fault must be one of: altered, broken-off"),
        ({"call": "add-mileage", "fault": "delay"}, "call must be * or one of: veis-token, system-token"),
        ({"call": "*", "fault": "delay", "upstream": "x"}, "upstream must be one of: travel-pay-auth, travel-pay, "),
        ({"call": "send-sms", "fault": "delay", "upstream": "travel-pay"}, "call send-sms belongs to upstream notify"),
        ({"call": "send-sms", "fault": "duplicate"}, "fault duplicate can be set on: *, create-claim"),
        ({"call": "*", "fault": "delay", "secs": 1}, "unknown member 'secs' for delay; allowed: call, upstream"),
        ({"call": "*", "fault": "delay", "seconds": "1"}, "seconds must be a number of seconds"),
        ({"call": "*", "fault": "status", "status": 99}, "status must be 200 to 599, or null"),
        ({"call": "*", "fault": "delay", "times": 0}, "times must be a whole number from 1"),
        ({"call": "*", "fault": "delay", "probability": 2}, "probability must be a number from 0 to 1"),
        ({"call": "*", "fault": "delay", "seed": [1]}, "seed must be a number or a string"),
        ({"call": "*", "fault": "delay", "match": "x"}, "match must be an object"),
        ({"call": "*", "fault": "altered", "members": []}, "members must be an object"),
        ({"call": "*", "fault": "altered", "without": "x"}, "without must be a list of strings"),
        ({"call": "*", "fault": "refused", "texts": [1]}, "texts must be a list of strings, or null"),
        ({"call": "*", "fault": "kind-missing", "kind": "Card"}, "kind must be card or letter"),
        ({"call": "*", "fault": "foreign-voucher", "holidays": [["2025-04-01"]]}, "holidays must be a list of ["),
        ({"call": "*", "fault": "foreign-voucher", "holidays": [["2025-04-08", "2025-04-01"]]}, "holidays must be"),
        ({"call": "*", "fault": "foreign-voucher", "holidays": [["soon", "later"]]}, "holidays must be"),
    ],
)
def test_a_malformed_fault_is_told_what_is_allowed(control, body, said):
    answer = control("POST", "/faults", body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(said)
    assert control("GET", "/faults").json() == {"faults": []}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/listeners", {"upstream": "notify"}),
        ("/listeners", {"upstream": "nobody", "open": False}),
        ("/listeners", {"upstream": ["notify"], "open": False}),
        ("/settings", {"claim_delete": 1}),
        ("/settings", {"claims_delete": True}),
        ("/settings", {"receipts": {"statuses": []}}),
        ("/settings", {"receipts": {"url": "http://x"}}),
        ("/settings", {"receipts": {"callback_url": "ftp://x"}}),
        ("/settings", {"receipts": {"repeat": 0}}),
        ("/settings", {"receipts": None}),
    ],
)
def test_malformed_settings_and_listeners_are_refused(control, path, body):
    answer = control("POST", path, body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize("path", ["/calls?limit=x", "/calls?status=200", "/ledger?kind=claims"])
def test_malformed_queries_are_refused(control, path):
    assert control("GET", path).status_code == 400


def test_unknown_routes_name_the_known_ones(control):
    answer = control("PUT", "/ledger")
    assert answer.status_code == 404
    assert "GET /_/ledger" in answer.json()["error"]


def test_a_body_that_is_not_json_is_refused(sandbox):
    answer = requests.post(f"{sandbox.url()}/faults", data="{", timeout=60)
    assert (answer.status_code, answer.json()["error"][:24]) == (400, "the body is not JSON: Ex")


def test_settings_are_changed_member_by_member(control):
    control("POST", "/settings", {"receipts": {"delay": 0.1}})
    shown = control("POST", "/settings", {"claim_delete": True}).json()
    assert (shown["claim_delete"], shown["receipts"]["delay"], shown["receipts"]["repeat"]) == (True, 0.1, 1)
    assert control("GET", "/settings").json() == shown


def test_a_closed_listener_refuses_connections_until_opened_again(control, veteran):
    visit_id = veteran.appointment_id()
    shown = control("POST", "/listeners", {"upstream": "travel-pay", "open": False}).json()["listeners"]
    assert [one["open"] for one in shown.values()] == [True, False, True, True, True]
    for _ in range(2):
        with pytest.raises(requests.ConnectionError, match="Connection refused"):
            veteran.create(visit_id)
    control("POST", "/listeners", {"upstream": "travel-pay", "open": True})
    assert veteran.create(visit_id).status_code == 200


def test_the_first_port_may_be_closed_and_opened_over_another(sandbox, control, veteran):
    assert control("POST", "/listeners", {"upstream": "travel-pay-auth", "open": False}).status_code == 200
    with pytest.raises(requests.ConnectionError, match="Connection refused"):
        veteran.get_veis()
    elsewhere = f"{sandbox.url('notify')}/_/listeners"
    requests.post(elsewhere, json={"upstream": "travel-pay-auth", "open": True}, timeout=60)
    assert veteran.get_veis().status_code == 200


def test_the_last_open_port_stays_open(sandbox):
    for name in ("travel-pay-auth", "travel-pay", "mdg", "imovo"):
        sandbox.listen(name, open=False)
    url = f"{sandbox.url('notify')}/_/listeners"
    assert requests.post(url, json={"upstream": "notify", "open": False}, timeout=60).status_code == 400


def test_a_call_under_way_is_answered_though_its_listener_closes(sandbox, veteran, until):
    veteran.appointment_id()
    sandbox.fault("find-or-add", "delay", seconds=2)
    statuses = []
    caller = threading.Thread(target=lambda: statuses.append(veteran.find().status_code))
    caller.start()
    until(lambda: sandbox.calls()[-1]["status"] is None)
    sandbox.listen("travel-pay", open=False)
    caller.join()
    assert statuses == [200]


def test_reset_puts_everything_back(sandbox, control, veteran, texter):
    veteran.claim_id()
    texter.send("ref")
    sandbox.fault("*", "status")
    sandbox.change({"claim_delete": True})
    sandbox.listen("notify", open=False)
    assert control("POST", "/reset").json() == {"reset": True}
    assert not any(sandbox.ledger()["totals"].values())
    assert sandbox.calls() == sandbox.faults() == []
    assert sandbox.world.settings.claim_delete is False
    assert veteran.find().status_code == 401
    assert texter.find("ref").json()["notifications"] == []


def test_calls_from_before_a_reset_have_no_effect_after_it(sandbox, veteran, until):
    visit_id = veteran.appointment_id()
    sandbox.fault("veis-token", "late", seconds=0.1, times=1)
    with pytest.raises(requests.ConnectionError):
        veteran.get_veis()
    sandbox.fault("create-claim", "delay", seconds=30)
    ends = []

    def create():
        try:
            veteran.create(visit_id)
        except requests.ConnectionError:
            ends.append("dropped")

    caller = threading.Thread(target=create)
    caller.start()
    until(lambda: sandbox.calls(call="create-claim"))
    sandbox.reset()
    caller.join(timeout=60)
    time.sleep(0.15)
    assert ends == ["dropped"]
    assert not any(sandbox.ledger()["totals"].values())


def test_the_page_for_people_shows_effects_faults_and_calls(sandbox, control, veteran):
    veteran.claim_id()
    listener = sandbox.listeners["notify"]
    with socket.create_connection((listener.host, listener.port), timeout=60) as sock:
        sock.sendall(b"GET /<b> HTTP/1.1\r\nConnection: close\r\nX-Correlation-ID: <b>\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 Not Found")
    veteran.get_veis()
    page = control("GET", "/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert 'http-equiv="refresh"' in page.text
    assert "<td>create-claim</td>" in page.text
    assert "<td>veis_mints</td><td>2</td>" in page.text
    assert page.text.count("&lt;b&gt;") == 2
    assert "<b>" not in page.text
    assert requests.head(f"{sandbox.url()}/", timeout=60).status_code == 200


def test_its_environment_names_urls_and_credentials(sandbox):
    found = sandbox.environment()
    assert found["TRAVEL_PAY_URL"] == sandbox.url("travel-pay")
    assert found["NOTIFY_API_KEY"].endswith(sandbox.credentials.notify_secret)
    assert found["TRAVEL_PAY_OH_SECRET"] == "oh-secret"
    assert (found["MDG_URL"], found["IMOVO_URL"]) == (sandbox.url("mdg"), sandbox.url("imovo"))


def test_credentials_follow_the_environment(sandbox):
    found = sandbox.environment() | {
        "TRAVEL_PAY_CLIENT_SECRET": "other",
        "TRAVEL_PAY_OH_SECRET": "another",
        "NOTIFY_CALLBACK_TOKEN": "new,old",
        "MDG_BEARER_TOKEN": "mdg-other",
        "IMOVO_API_KEY": "imovo-other",
        "NOTIFY_API_KEY": "key-33333333-3333-4444-8555-666666666601-44444444-3333-4444-8555-666666666602",
    }
    credentials = type(sandbox.credentials).from_env(found)
    assert (credentials.client_secret, credentials.products[1].secret) == ("other", "another")
    assert credentials.products[0] == sandbox.credentials.products[0]
    assert credentials.notify_callback_token == "new"
    assert (credentials.mdg_bearer_token, credentials.imovo_api_key) == ("mdg-other", "imovo-other")
    assert credentials.notify_service_id == "33333333-3333-4444-8555-666666666601"
    assert credentials.notify_secret == "44444444-3333-4444-8555-666666666602"
    assert type(sandbox.credentials).from_env({}) == sandbox.credentials


def test_two_sandboxes_know_nothing_of_each_other(sandbox, veteran):
    with Sandbox() as other:
        veteran.claim_id()
        assert other.url() != sandbox.url()
        assert not any(other.ledger()["totals"].values())
