"""Notify against the sandbox: each of its answers has its class (contract 4.7 and 5.6)."""

import logging
import socket

import jwt
import pytest

from app import errors, steps
from app.upstreams import notify, outcomes
from app.upstreams.shared import of_process
from tests.upstreams.conftest import IN_TIME

REFERENCE = "0197c2a4-8a02-7c11-8f60-b7d2e94c5a13"
TEXT = {
    "phone": "+12025550143",
    "template": "success",
    "personalisation": {"claim_number": "3890", "appt_date": "Mar 02"},
}


@pytest.fixture(autouse=True)
def fresh(configured, shared, upstreams):
    """No state of an earlier test, in the process or in Redis."""
    notify._upstreams.clear()
    of_process.cache_clear()
    yield
    notify._upstreams.clear()
    of_process.cache_clear()


@pytest.fixture
def texts(configured, work):
    return notify.Notify(configured.notify, product="pci", work=work)


def elsewhere(configured, work, url, **more):
    settings = configured.notify.model_copy(update={"url": url, "timeout": IN_TIME, **more})
    return notify.Notify(settings, product="pci", work=work)


def fail(verb, *args, **more):
    with pytest.raises(outcomes.Failed) as caught:
        verb(*args, **more)
    return caught.value


def test_a_text_is_sent_once_as_the_contract_says(texts, upstreams, work):
    notify_id = texts.send(REFERENCE, **TEXT)
    (call,) = upstreams.calls()
    assert call["body"] == {
        "phone_number": "+12025550143",
        "template_id": "11111111-2222-4333-8444-555555555501",
        "sms_sender_id": "11111111-2222-4333-8444-5555555555f1",
        "reference": REFERENCE,
        "personalisation": {"claim_number": "3890", "appt_date": "Mar 02"},
    }
    assert call["correlation_id"] == "correlation-1"
    assert work.asked == [0]
    assert (work.calls[0].upstream, work.calls[0].path, work.calls[0].status) == ("notify", "v2/notifications/sms", 201)
    assert texts.find(REFERENCE) == notify_id


def test_a_product_has_its_own_sender_and_templates(configured, work, upstreams):
    notify.Notify(configured.notify, product="oh", work=work).send(REFERENCE, **TEXT | {"template": "timeout"})
    body = upstreams.calls()[-1]["body"]
    assert body["sms_sender_id"] == "11111111-2222-4333-8444-5555555555f2"
    assert body["template_id"] == configured.notify.template_oh_timeout


def test_a_missing_template_names_its_variable(configured, work):
    bare = configured.notify.model_copy(update={"template_pci_success": None})
    with pytest.raises(errors.BadSettings, match="NOTIFY_TEMPLATE_PCI_SUCCESS"):
        notify.Notify(bare, product="pci", work=work).send(REFERENCE, **TEXT)


def test_an_unknown_text_is_none(texts, upstreams, work):
    assert texts.find(REFERENCE) is None
    assert work.asked == ["renew"]
    upstreams.fault("find-sms", "wrong-shape", body={"notifications": [{"id": "x", "reference": "another"}]})
    assert texts.find(REFERENCE) is None


def test_the_key_is_cut_into_issuer_and_secret(texts, upstreams):
    texts.send(REFERENCE, **TEXT)
    told = {name.lower(): value for name, value in upstreams.calls()[0]["headers"].items()}["authorization"]
    known = upstreams.credentials
    claims = jwt.decode(told.removeprefix("Bearer "), known.notify_secret, algorithms=["HS256"])
    assert claims["iss"] == known.notify_service_id


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_tried_three_times_ten_minutes_apart(texts, upstreams, status):
    for call, verb in (
        ("send-sms", lambda: texts.send(REFERENCE, **TEXT)),
        ("find-sms", lambda: texts.find(REFERENCE)),
    ):
        upstreams.fault(call, "status", status=status, message="Error: Your system clock must be accurate")
        ending = fail(verb).outcome
        assert (type(ending), ending.after, ending.limit, ending.free) == (steps.Retry, 600, 3, False)
        assert ending.failure.message == "Error: Your system clock must be accurate"


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_definite_no(texts, upstreams, status):
    upstreams.fault("send-sms", "status", status=status, message="Not so")
    failed = fail(texts.send, REFERENCE, **TEXT)
    assert (type(failed.outcome), failed.status, failed.message) == (steps.Rejected, status, "Not so")


def test_too_many_texts_is_a_free_retry(texts, upstreams):
    upstreams.fault("send-sms", "rate-limit", retry_after=120)
    ending = fail(texts.send, REFERENCE, **TEXT).outcome
    assert (type(ending), ending.free, ending.after) == (steps.Retry, True, 120)


@pytest.mark.parametrize(
    ("fault", "more", "code"),
    [
        ("status", {"status": 500}, "upstream-unavailable"),
        ("status", {"status": 503}, "upstream-unavailable"),
        ("status", {"status": 504}, "upstream-timeout"),
        ("status", {"status": 302, "headers": {"Location": "/elsewhere"}}, "upstream-unavailable"),
        ("drop-after", {}, "upstream-unavailable"),
        ("reset", {}, "upstream-unavailable"),
        ("malformed-json", {}, "malformed-answer"),
        ("missing-field", {}, "malformed-answer"),
        ("wrong-shape", {}, "malformed-answer"),
    ],
)
def test_a_lost_answer_is_unknown_after_send_and_a_retry_after_find(*, texts, upstreams, fault, more, code):
    for call in ("send-sms", "find-sms"):
        upstreams.fault(call, fault, **more)
    failed = fail(texts.send, REFERENCE, **TEXT)
    assert (type(failed.outcome), failed.outcome.failure.code) == (steps.Unknown, code)
    if fault != "missing-field":
        assert isinstance(fail(texts.find, REFERENCE).outcome, steps.Retry)
    assert len(upstreams.calls()) == 1 + (fault != "missing-field")


def test_no_connection_is_a_retry_though_the_library_calls_it_a_503(configured, work):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    failed = fail(elsewhere(configured, work, url).send, REFERENCE, **TEXT)
    assert (type(failed.outcome), failed.status, work.asked) == (steps.Retry, None, [])


def test_no_answer_in_time_is_unknown(configured, work, server):
    server.acts = [server.hang]
    failed = fail(elsewhere(configured, work, f"http://127.0.0.1:{server.port}", timeout=0.3).send, REFERENCE, **TEXT)
    assert (type(failed.outcome), failed.outcome.failure.code) == (steps.Unknown, "upstream-timeout")
    assert work.asked == [0]


@pytest.mark.parametrize("stop", [errors.LeaseLost(), errors.StopAsked(), errors.NotSent("late")])
def test_what_stops_a_text_passes_untouched(texts, upstreams, work, stop):
    work.stop = stop
    with pytest.raises(type(stop)) as caught:
        texts.send(REFERENCE, **TEXT)
    assert caught.value is stop
    assert upstreams.calls() == []


def test_the_library_logs_nothing_of_what_notify_says(texts, upstreams, caplog):
    caplog.set_level(logging.DEBUG)
    upstreams.fault("send-sms", "status", status=400, message="phone_number +12025550143 is wrong")
    failed = fail(texts.send, REFERENCE, **TEXT)
    assert "2025550143" not in caplog.text + failed.message + work_text(texts)
    assert "phone_number" not in caplog.text


def work_text(texts):
    return repr(texts._work.calls)


def test_connections_are_kept_over_clients(configured, work, server):
    body = b'{"notifications": []}'
    server.acts = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body] * 3
    one = elsewhere(configured, work, f"http://127.0.0.1:{server.port}")
    assert [one.find(REFERENCE) for _ in range(3)] == [None] * 3
    assert server.connections == 1
