"""What becomes of a call, over real sockets: how far it got decides whether it may be repeated."""

import datetime
import socket
import ssl
import time
from decimal import Decimal

import pytest

from app import clock, errors, steps
from app.upstreams import http, outcomes
from tests.upstreams.conftest import IN_TIME

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"answer":"yes"}'
SAFE, EFFECT = None, 3


def request(*, effect=None, read=IN_TIME, **more):
    return http.Request(
        call="ask", method="POST", template="a/{id}", ids={"id": "x/y"}, effect=effect, read=read, **more
    )


def answer_of(answer):
    try:
        return answer.json["answer"]
    except (TypeError, KeyError) as error:
        raise outcomes.NotUnderstood from error


def head(status, *lines, body=b""):
    rows = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(rows).encode() + body


def fail(upstream, work, **more):
    with pytest.raises(outcomes.Failed) as caught:
        upstream.send(work, request(**more), answer_of)
    return caught.value


@pytest.fixture(params=[SAFE, EFFECT], ids=["safe", "effect"])
def effect(request):
    return request.param


def lost(effect):
    """What an answer that never came, or says nothing definite, amounts to."""
    return steps.Retry if effect is None else steps.Unknown


# How a call is made.


def test_a_success_is_returned_noted_and_sent_once(*, upstream, server, work):
    server.acts = [OK]
    assert upstream.send(work, request(effect=3, json={"cost": Decimal("12.10"), "name": "Zoë"}), answer_of) == "yes"
    assert work.asked == [3]
    sent = server.requests[0].decode()
    assert sent.startswith("POST /a/x%2Fy HTTP/1.1\r\n")
    assert "X-Correlation-ID: correlation-1\r\n" in sent
    assert sent.endswith('{"cost":12.1,"name":"Zoë"}')
    (call,) = work.calls
    assert (call.path, call.name, call.status, call.outcome) == ("a/{id}", "ask", 200, "ok")


def test_a_safe_call_renews_the_lease_and_intends_nothing(upstream, server, work):
    server.acts = [OK]
    upstream.send(work, request(), answer_of)
    assert work.asked == ["renew"]


def test_connections_are_kept(upstream, server, work):
    server.acts = [OK, OK, OK]
    for _ in range(3):
        upstream.send(work, request(), answer_of)
    assert server.connections == 1


def test_cookies_of_one_call_are_not_sent_with_the_next(upstream, server, work):
    server.acts = [OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: veteran=one; Path=/\r\n\r\n", 1), OK]
    for _ in range(2):
        upstream.send(work, request(), answer_of)
    assert b"cookie" not in server.requests[1].lower()


def test_the_environment_has_no_say(upstream, server, work, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.acts = [OK]
    assert upstream.send(work, request(), answer_of) == "yes"


@pytest.mark.parametrize("stop", [errors.LeaseLost(), errors.StopAsked(), errors.NotSent("late"), BrokenPipeError()])
def test_what_stops_a_call_passes_untouched_and_not_a_byte_is_sent(*, upstream, server, work, effect, stop):
    work.stop = stop
    with pytest.raises(type(stop)) as caught:
        upstream.send(work, request(effect=effect), answer_of)
    assert caught.value is stop
    assert (server.requests, work.calls) == ([], [])
    work.stop, server.acts = None, [OK]
    assert upstream.send(work, request(effect=effect), answer_of) == "yes"


def test_clearance_is_asked_for_after_connecting_and_directly_before_the_first_byte(upstream, server, work):
    """A slow connect must not come between intent and call, and an intent before a failed connect is needless."""
    seen = []

    def intend(index):
        time.sleep(0.05)
        seen.append((index, server.connections, list(server.requests)))

    work.intend = intend
    server.acts = [OK]
    upstream.send(work, request(effect=3), answer_of)
    assert seen == [(3, 1, [])]


# Nothing was sent: it may simply be repeated.


def unreachable(monkeypatch, how):
    if how == "refused":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            return f"http://127.0.0.1:{taken.getsockname()[1]}"
    if how == "dns":

        def unknown(*_args, **_more):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    return "http://no-such-host.invalid"


@pytest.mark.parametrize("how", ["refused", "dns"])
def test_without_a_connection_it_is_a_retry_and_no_intent(*, monkeypatch, work, effect, how):
    upstream = http.Upstream("tested", unreachable(monkeypatch, how))
    failed = fail(upstream, work, effect=effect)
    assert isinstance(failed.outcome, steps.Retry)
    assert (failed.outcome.failure.code, failed.outcome.failure.http_status) == ("upstream-unavailable", 502)
    assert (failed.status, work.asked) == (None, [])
    assert (work.calls[0].outcome, work.calls[0].status) == ("retry", None)


def test_a_connect_timeout_is_a_retry(work, effect):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        upstream = http.Upstream("tested", f"http://127.0.0.1:{full.getsockname()[1]}")
        failed = fail(upstream, work, effect=effect, connect=0.2)
        for one in crowd:
            one.close()
    assert isinstance(failed.outcome, steps.Retry)
    assert failed.outcome.failure.code == "upstream-unavailable"
    assert work.asked == []


def test_a_failed_handshake_is_a_retry(server, work, effect):
    server.wrap = lambda conn: (conn.recv(65536), conn.sendall(b"I speak no TLS\r\n"), conn)[2]
    failed = fail(http.Upstream("tested", f"https://127.0.0.1:{server.port}"), work, effect=effect)
    assert isinstance(failed.outcome, steps.Retry)
    assert failed.outcome.failure.code == "upstream-unavailable"
    assert work.asked == []


# Something was sent and the answer is lost.


@pytest.mark.parametrize("act", ["drop", "reset"])
def test_a_connection_that_breaks_after_sending(*, upstream, server, work, effect, act):
    server.acts = [getattr(server, act)]
    failed = fail(upstream, work, effect=effect)
    assert isinstance(failed.outcome, lost(effect))
    assert (failed.outcome.failure.code, failed.outcome.failure.http_status) == ("upstream-unavailable", 502)
    assert len(server.requests) == 1


@pytest.mark.parametrize("act", ["drop", "reset"])
def test_a_kept_connection_that_breaks_is_not_tried_again(*, upstream, server, work, effect, act):
    server.acts = [OK, getattr(server, act), OK]
    upstream.send(work, request(), answer_of)
    failed = fail(upstream, work, effect=effect)
    assert isinstance(failed.outcome, lost(effect))
    assert len(server.requests) == 2


def test_a_kept_connection_found_closed_is_replaced(upstream, server, work, until):
    server.acts = [lambda conn: conn.sendall(OK), OK]
    upstream.send(work, request(), answer_of)
    until(lambda: server.closed == 1)
    assert upstream.send(work, request(effect=3), answer_of) == "yes"
    assert server.connections == 2


def test_half_an_answer_is_a_lost_answer(*, upstream, server, work, effect):
    server.acts = [lambda conn: conn.sendall(OK[:-5])]
    assert isinstance(fail(upstream, work, effect=effect).outcome, lost(effect))


def test_no_answer_in_time(*, upstream, server, work, effect):
    server.acts = [server.hang]
    failed = fail(upstream, work, effect=effect, read=0.2)
    assert isinstance(failed.outcome, lost(effect))
    assert (failed.outcome.failure.code, failed.outcome.failure.http_status) == ("upstream-timeout", 504)


@pytest.mark.parametrize("data", [OK, OK[:40] + b"x" * 100], ids=["in the headers", "in the body"])
def test_the_whole_answer_has_to_come_in_time_not_each_byte(*, upstream, server, work, effect, data):
    server.acts = [server.drip(data, 0.2)]
    started = time.monotonic()
    failed = fail(upstream, work, effect=effect, read=1)
    assert time.monotonic() - started < IN_TIME
    assert isinstance(failed.outcome, lost(effect))
    assert failed.outcome.failure.code == "upstream-timeout"


def test_a_server_that_does_not_read_cannot_hold_us(server, work):
    def deaf(conn):
        server.over.wait(100)

    server.wrap = lambda conn: (deaf(conn), conn)[1]
    upstream = http.Upstream("tested", f"http://127.0.0.1:{server.port}")
    started = time.monotonic()
    failed = fail(upstream, work, effect=0, read=0.4, json={"receipt": "x" * 8_000_000})
    assert time.monotonic() - started < IN_TIME
    assert isinstance(failed.outcome, steps.Unknown)


# Over TLS the same holds.


@pytest.fixture
def secure(server, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server.wrap = lambda conn: context.wrap_socket(conn, server_side=True)
    return http.Upstream("tested", f"https://localhost:{server.port}")


def test_tls_works_and_is_bounded_too(*, secure, server, work, certificate, effect):
    secure.session.verify = str(certificate)
    server.acts = [OK, server.drip(OK, 0.2)]
    assert secure.send(work, request(effect=effect), answer_of) == "yes"
    started = time.monotonic()
    failed = fail(secure, work, effect=effect, read=1)
    assert time.monotonic() - started < IN_TIME
    assert isinstance(failed.outcome, lost(effect))
    assert failed.outcome.failure.code == "upstream-timeout"
    assert server.connections == 1


def test_a_tls_connection_that_breaks_after_sending(*, secure, server, work, certificate, effect):
    """As an exception this is an SSL error like a failed handshake; what was sent makes the difference."""
    secure.session.verify = str(certificate)
    server.acts = [server.reset]
    assert isinstance(fail(secure, work, effect=effect).outcome, lost(effect))
    server.acts = [lambda conn: socket.socket.sendall(conn, b"no TLS record at all")]
    assert isinstance(fail(secure, work, effect=effect).outcome, lost(effect))


def test_a_certificate_we_do_not_trust_is_a_retry(*, secure, work, effect):
    assert isinstance(fail(secure, work, effect=effect).outcome, steps.Retry)
    assert work.asked == []


def test_headers_that_break_off_are_a_lost_answer(*, upstream, server, work, effect):
    server.acts = [lambda conn: conn.sendall(b"HTTP/1.1 204 No Content\r\nServer: a")]
    failed = fail(upstream, work, effect=effect)
    assert (type(failed.outcome), failed.status) == (lost(effect), None)


# What a status means.


@pytest.mark.parametrize(
    ("status", "shown"),
    [(400, 400), (401, 502), (403, 403), (404, 404), (405, 502), (409, 409), (410, 502), (422, 422), (451, 502)],
)
def test_a_definite_no(*, upstream, server, work, effect, status, shown):
    server.acts = [head(status, body=b'{"message":"No such thing"}')]
    failed = fail(upstream, work, effect=effect)
    failure = failed.outcome.failure
    assert isinstance(failed.outcome, steps.Rejected)
    assert (failure.code, failure.http_status, failure.message, failure.retryable) == (
        "rejected",
        shown,
        "No such thing",
        False,
    )
    assert (failed.status, work.calls[0].outcome, work.calls[0].code) == (status, "rejected", "rejected")


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        *((status, "upstream-unavailable", 502) for status in (301, 302, 304, 307, 500, 501, 502, 503, 599)),
        *((status, "upstream-timeout", 504) for status in (408, 504)),
    ],
)
def test_an_answer_that_says_nothing_definite(*, upstream, server, work, effect, status, code, shown):
    server.acts = [head(status, "Location: /elsewhere"), OK]
    failed = fail(upstream, work, effect=effect)
    assert isinstance(failed.outcome, lost(effect))
    assert (failed.outcome.failure.code, failed.outcome.failure.http_status) == (code, shown)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"other":1}', b'{"answer":"yes"}'.ljust(1024 * 1024 + 1), b"[" * 100_000]
)
def test_a_success_that_is_not_understood(*, upstream, server, work, effect, body):
    server.acts = [head(200, body=body)]
    failed = fail(upstream, work, effect=effect)
    assert isinstance(failed.outcome, lost(effect))
    assert (failed.outcome.failure.code, failed.outcome.failure.http_status) == ("malformed-answer", 502)


def test_a_body_of_a_mebibyte_is_read(upstream, server, work):
    server.acts = [head(200, body=b'{"answer":"yes"}'.ljust(1024 * 1024))]
    assert upstream.send(work, request(), answer_of) == "yes"


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ((), 60),
        (("Retry-After: 7",), 7),
        (("Retry-After: 7", "Ratelimit-Reset: 30"), 30),
        (("Retry-After: 31", "Ratelimit-Reset: 30"), 31),
        (("Retry-After: 86400",), 3600),
        (("Retry-After: soon",), 60),
        (("Retry-After: Sat, 01 Jan 2000 00:00:00 GMT",), 60),
    ],
)
def test_too_many_calls_is_a_free_retry_and_closes_the_limiter(*, upstream, server, work, effect, lines, seconds):
    server.acts = [head(429, *lines), OK]
    failed = fail(upstream, work, effect=effect)
    ending = failed.outcome
    assert isinstance(ending, steps.Retry)
    assert (ending.free, ending.after, ending.failure.code, ending.failure.http_status) == (
        True,
        seconds,
        "rate-limited",
        429,
    )
    with pytest.raises(errors.NotSent) as stopped:
        upstream.send(work, request(effect=effect), answer_of)
    assert seconds / 2 < stopped.value.after <= seconds + 1
    assert len(server.requests) == 1


def test_a_retry_after_may_be_a_date(upstream, server, work):
    moment = clock.now() + datetime.timedelta(seconds=100)
    server.acts = [head(429, moment.strftime("Retry-After: %a, %d %b %Y %H:%M:%S GMT"))]
    assert 80 < fail(upstream, work).outcome.after <= 100


def test_a_success_that_was_the_last_of_its_minute_closes_the_limiter(upstream, server, work):
    extra = b"X-Ratelimit-Remaining-Minute: 0\r\nRatelimit-Reset: 20\r\n\r\n"
    server.acts = [OK.replace(b"\r\n\r\n", b"\r\n" + extra, 1), OK]
    assert upstream.send(work, request(), answer_of) == "yes"
    with pytest.raises(errors.NotSent) as stopped:
        upstream.send(work, request(), answer_of)
    assert 10 < stopped.value.after <= 21


def test_upstream_text_is_scrubbed_and_cut(upstream, server, work):
    text = f"ICN 1012667122V019349, call +12025550143, token {'aB3' * 20}. " + "x" * 3000
    server.acts = [head(400, body=text.encode())]
    failed = fail(upstream, work)
    assert failed.outcome.failure.message.startswith("ICN [removed], call [removed], token [removed]. xxx")
    assert (len(failed.outcome.failure.message), len(failed.message), len(work.calls[0].message)) == (200, 2000, 2000)


def test_ten_failures_in_a_row_open_the_breaker_and_refusals_do_not(upstream, server, work, still):
    server.acts = [head(404)] * 30 + [head(503)] * 11
    for _ in range(41):  # the last one is the probe
        fail(upstream, work)
    with pytest.raises(errors.NotSent) as stopped:
        upstream.send(work, request(), answer_of)
    assert (stopped.value.reason, 0 < stopped.value.after < 2) == ("breaker", True)


@pytest.mark.parametrize("logged", [True, False])
def test_upstream_text_is_logged_only_where_it_is_wanted(*, server, work, caplog, logged):
    caplog.set_level("INFO")
    upstream = http.Upstream("tested", f"http://127.0.0.1:{server.port}", reading=outcomes.Reading(logged=logged))
    server.acts = [head(400, body=b"No such thing as 1012667122V019349")]
    fail(upstream, work)
    (record,) = [one.msg for one in caplog.records if one.name == "app.upstreams.http"]
    assert record.get("upstream_text") == ("No such thing as [removed]" if logged else None)
    assert (record["event"], record["outcome"], record["http_status"]) == ("upstream.call", "rejected", 400)


def test_a_broken_connection_is_logged_with_its_class(*, upstream, server, work, caplog):
    caplog.set_level("INFO")
    server.acts = [server.drop]
    fail(upstream, work)
    assert caplog.records[-1].msg["error_class"] == "ConnectionError"
