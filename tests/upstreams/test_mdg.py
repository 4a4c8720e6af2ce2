"""MDG: what it is sent, what each of its answers means, and what never leaves the client but encrypted."""

import datetime
import json
import socket
import ssl
import time

import pytest
from pydantic import SecretStr

from app import clock, config, errors, metrics, steps
from app.upstreams import breaker, causes, mdg, outcomes, wire
from app.upstreams.shared import Shared
from tests.upstreams.conftest import IN_TIME

REFERENCE = "XFPR0000000123"
BODY = '{"simpleDeclarationRequest": {"name":  "Zoë"}}'.encode()
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
PERSONAL = "Traveller SAMPLE0001"


def answer(status, *lines, body=b""):
    rows = [f"HTTP/1.1 {status} Told {PERSONAL}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(rows).encode() + body


@pytest.fixture
def settings(server):
    def make(**more):
        given = {"url": f"http://127.0.0.1:{server.port}", "bearer_token": SecretStr("token-1"), **more}
        return config.Mdg(**given)

    return make


@pytest.fixture
def client(settings, work):
    ways = []

    def make(attempts=0, common=None, **more):
        found = settings(**{"breaker_failures": 1000, "rate_per_second": 1000, **more})
        ways.append(mdg.make(found, common or Shared(None)))
        return mdg.Mdg(found, work=work, attempts=attempts, by=ways[-1])

    yield make
    for way in ways:
        way.session.close()


def fail(one, body=BODY):
    with pytest.raises(outcomes.Failed) as caught:
        one.submit(body, REFERENCE)
    return caught.value


def sent(server):
    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def alarms():
    return {kind: metrics.mdg_alarm.labels(kind)._value.get() for kind in ("configuration", "conflict")}


# What is sent.


@pytest.mark.parametrize(
    ("variant", "path", "date"),
    [
        ("des", "/declarations/passengerdeclaration/v1", "2026-11-05T18:09:30Z"),
        ("cma", "/passengers/declarations/simpledeclaration/v1", "Thu, 05 Nov 2026 18:09:30 GMT"),
    ],
)
def test_the_request_is_as_the_contract_says(*, client, server, work, monkeypatch, variant, path, date):
    monkeypatch.setattr(clock, "now", lambda: datetime.datetime(2026, 11, 5, 18, 9, 30, 999, datetime.UTC))
    server.acts = [TAKEN]
    client(variant=variant).submit(BODY, REFERENCE)
    first, headers, body = sent(server)
    assert (first, body) == (f"POST {path} HTTP/1.1", BODY)
    assert headers == {
        "Host": f"127.0.0.1:{server.port}",
        "Authorization": "Bearer token-1",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "Content-Length": str(len(BODY)),
        "Date": date,
        "X-Correlation-ID": "correlation-1",
        "X-Forwarded-Host": "MDTP",
        "User-Agent": "bc-passengers-declarations",
    }
    assert work.asked == [0]


def test_the_day_has_two_digits():
    moment = datetime.datetime(2026, 10, 6, 8, 9, 3, tzinfo=datetime.UTC)
    assert mdg.date_of(moment, "cma") == "Tue, 06 Oct 2026 08:09:03 GMT"


@pytest.mark.parametrize("url", ["", "/"])
def test_another_path_takes_the_place_of_the_variants(client, server, settings, url):
    server.acts = [TAKEN]
    client(path="/gateway/mdg", url=settings().url + url).submit(BODY, REFERENCE)
    assert sent(server)[0] == "POST /gateway/mdg HTTP/1.1"


# What an answer means.


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
def test_any_other_success_is_one_too_and_counted(*, client, server, work, caplog, status):
    counted = metrics.declarations_mdg_odd_success.labels(status)._value
    before = counted.get()
    server.acts = [answer(status, body=b"<html>")]
    client().submit(BODY, REFERENCE)
    assert (work.calls[0].status, work.calls[0].outcome, work.calls[0].code) == (status, "ok", "")
    assert counted.get() == before + 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_gives_back_mdgs_texts_and_says_nothing_of_them(*, client, server, work, caplog, status):
    caplog.set_level("DEBUG")
    body = json.dumps({"errorDetail": {"sourceFaultDetail": {"detail": [PERSONAL, "Invalid portOfEntry"]}}}).encode()
    server.acts = [answer(status, body=body)]
    failed = fail(client())
    assert isinstance(failed.outcome, steps.Rejected)
    assert failed.outcome.values == {"faults": [PERSONAL, "Invalid portOfEntry"]}
    what = failed.outcome.failure
    assert (what.code, what.message) == (f"mdg-{status}", f"MDG refused the declaration ({status}).")
    assert not what.retryable
    (call,) = work.calls
    assert (call.status, call.outcome, call.code, call.message) == (status, "rejected", what.code, what.message)
    said = f"{failed} {failed.args} {work.calls} {[record.__dict__ for record in caplog.records]}"
    assert "Traveller" not in said
    assert "Invalid portOfEntry" not in said


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", []),
        (b" Free text \n", ["Free text"]),
        (b'{"errorDetail":{"sourceFaultDetail":{"detail":[]}}}', []),
        (b'{"errorDetail":{"sourceFaultDetail":{"detail":["one",2,null,"two"]}}}', ["one", "two"]),
        (b'{"errorDetail":"one"}', ['{"errorDetail":"one"}']),
        (
            b'{"errorDetail":{"sourceFaultDetail":{"detail":["bro',
            ['{"errorDetail":{"sourceFaultDetail":{"detail":["bro'],
        ),
        (b"x" * 5000, ["x" * 4096]),
        (("é" * 4000).encode(), ["é" * 2048]),
        (b"a" + ("é" * 4000).encode(), ["a" + "é" * 2047]),
        (
            json.dumps({"errorDetail": {"sourceFaultDetail": {"detail": ["y" * 4000] * 3}}}).encode(),
            ["y" * 4000, "y" * 96],
        ),
        (b'{"errorDetail":{"sourceFaultDetail":{"detail":["\\ud800"]}}}', ["?"]),
        (b"\xff\xfe", ["\ufffd\ufffd"]),
    ],
)
def test_the_first_four_kibibytes_of_the_texts_are_kept(client, server, body, kept):
    server.acts = [answer(400, body=body)]
    assert fail(client()).outcome.values == {"faults": kept}


OURS = (401, 403, 404, 405, 406, 407, 410, 411, 414, 415, 421, 426, 431, 501, 505, 300, 301, 302, 304, 307, 308)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, steps.Retry) for status in (*OURS, 409)),
        *((status, steps.Unknown) for status in (408, 500, 502, 503, 504, 599, 402, 418, 451, 103, 600, 999)),
    ],
)
def test_what_is_no_success_and_no_refusal_may_pass(*, client, server, work, status, kind):
    server.acts = [answer(status, "Location: /elsewhere", body=PERSONAL.encode())]
    failed = fail(client())
    assert type(failed.outcome) is kind
    what = failed.outcome.failure
    assert (what.code, what.message) == (f"mdg-{status}", f"MDG did not take the declaration ({status}).")
    assert (work.calls[0].code, work.calls[0].message) == (what.code, what.message)
    assert len(server.requests) == 1
    if kind is steps.Retry:
        assert (failed.outcome.after, failed.outcome.free, failed.outcome.limit) == (None, False, None)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, 30),
        ("Retry-After: 7", 7),
        ("Retry-After: 86400", 3600),
        ("Retry-After: soon", 30),
        ("Retry-After: nan", 30),
        ("Retry-After: Thu, 01 Jan 2099 00:00:00 GMT", 3600),
        ("Ratelimit-Reset: 50", 30),
    ],
)
def test_too_many_calls_pauses_all_and_costs_no_attempt(*, client, server, told, seconds):
    server.acts = [answer(429, *filter(None, [told]))]
    one = client()
    ending = fail(one).outcome
    assert isinstance(ending, steps.Retry)
    assert (ending.free, ending.after, ending.failure.code) == (True, seconds, "mdg-429")
    with pytest.raises(errors.NotSent) as stop:
        one.submit(BODY, REFERENCE)
    assert seconds / 2 < stop.value.after < seconds + 1
    assert len(server.requests) == 1


def test_a_date_that_is_past_means_now(client, server):
    server.acts = [answer(429, "Retry-After: Sat, 01 Jan 2000 00:00:00 GMT"), TAKEN]
    one = client()
    assert fail(one).outcome.after == 0
    one.submit(BODY, REFERENCE)


@pytest.mark.parametrize(("told", "seconds"), [("Retry-After: 40", 40), ("Retry-After: ?", 30)])
def test_unavailable_for_a_while_is_unknown_and_pauses_all(client, server, told, seconds):
    server.acts = [answer(503, told)]
    one = client()
    assert isinstance(fail(one).outcome, steps.Unknown)
    with pytest.raises(errors.NotSent) as stop:
        one.submit(BODY, REFERENCE)
    assert stop.value.reason == "rate-limited"
    assert seconds / 2 < stop.value.after < seconds + 1


def test_unavailable_without_a_word_pauses_nobody(client, server):
    server.acts = [answer(503), answer(500, "Retry-After: 40"), TAKEN]
    one = client()
    fail(one)
    fail(one)
    one.submit(BODY, REFERENCE)


# The answer counts as soon as its headers are in.


def broken(data):
    return lambda conn: conn.sendall(data)


LONG = b"HTTP/1.1 %d Told\r\nContent-Length: 70000\r\n\r\nabc"


@pytest.mark.parametrize(
    "how",
    [
        lambda _server, head: broken(head),
        lambda server, head: lambda conn: (conn.sendall(head), server.reset(conn))[1],
        lambda server, head: lambda conn: (conn.sendall(head), server.hang(conn))[1],
        lambda _server, head: broken(head.replace(b"Content-Length: 70000", b"Transfer-Encoding: chunked") + b"\r\nzz"),
    ],
    ids=["closed", "reset", "silent", "bad chunk"],
)
def test_the_status_counts_even_if_the_body_breaks_off(*, client, server, work, how):
    server.acts = [how(server, LONG % 200), how(server, LONG % 400)]
    one = client(read_timeout=2)
    one.submit(BODY, REFERENCE)
    failed = fail(one)
    assert (failed.outcome.failure.code, [call.status for call in work.calls]) == ("mdg-400", [200, 400])


def test_no_more_than_64_kib_of_an_answer_are_read(client, server):
    server.acts = [lambda conn: (conn.sendall(LONG % 400 + b"x" * 66_000), server.hang(conn))[1]]
    started = time.monotonic()
    failed = fail(client(read_timeout=50, total_timeout=50))
    assert failed.outcome.values["faults"] == ["abc" + "x" * 4093]
    assert time.monotonic() - started < IN_TIME


@pytest.mark.parametrize("cut", [b"HTTP/1.1 204", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 204 No Content\r\nA: b"])
def test_headers_that_break_off_are_no_answer(client, server, cut):
    server.acts = [broken(cut)]
    failed = fail(client())
    assert (type(failed.outcome), failed.reason) == (steps.Unknown, "mdg-connection-lost")


# No answer at all.


def lost(failed, kind, code):
    assert (type(failed.outcome), failed.reason, failed.status) == (kind, code, None)
    assert failed.message == f"MDG gave no answer ({code})."


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("drop", "mdg-connection-lost"),
        ("reset", "mdg-connection-lost"),
        ("hang", "mdg-timeout"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "mdg-garbled"),
        (b"HTTP/1.1 abc\r\n\r\n", "mdg-garbled"),
        (broken(b"\x00\x01\x02"), "mdg-garbled"),
    ],
)
def test_after_the_first_byte_it_is_unknown_and_not_sent_again(*, client, server, work, act, code):
    server.acts = [getattr(server, act) if isinstance(act, str) else act, TAKEN]
    lost(fail(client(read_timeout=0.3 if act == "hang" else IN_TIME)), steps.Unknown, code)
    assert (len(server.requests), work.calls[0].code, work.calls[0].outcome) == (1, code, "unknown")


@pytest.mark.parametrize("act", ["drop", "reset"])
def test_a_kept_connection_that_breaks_is_not_sent_to_again(*, client, server, act):
    server.acts = [TAKEN, getattr(server, act), TAKEN]
    one = client()
    one.submit(BODY, REFERENCE)
    lost(fail(one), steps.Unknown, "mdg-connection-lost")
    assert len(server.requests) == 2


def test_one_byte_after_the_other_does_not_prolong_the_call(client, server):
    server.acts = [server.drip(TAKEN, 0.05)]
    lost(fail(client(read_timeout=0.3)), steps.Unknown, "mdg-timeout")


def test_the_total_limit_bounds_what_the_read_limit_does_not(client, server):
    server.acts = [server.hang]
    started = time.monotonic()
    lost(fail(client(read_timeout=50, total_timeout=0.3)), steps.Unknown, "mdg-timeout")
    assert time.monotonic() - started < IN_TIME


def test_without_an_address_nothing_was_sent(client, work, monkeypatch):
    def unknown(*_args, **_more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    lost(fail(client(url="http://no-such-host.invalid")), steps.Retry, "mdg-dns")
    assert work.asked == []


def test_a_refused_connection_is_a_retry(client, work):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    lost(fail(client(url=f"http://127.0.0.1:{port}")), steps.Retry, "mdg-refused")
    assert work.asked == []


def test_a_connect_beyond_its_limit_is_a_retry(client, work):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        lost(fail(client(url=url, connect_timeout=0.2)), steps.Retry, "mdg-connect-timeout")
        for one in crowd:
            one.close()
    assert work.asked == []


# TLS is always verified.


@pytest.fixture
def secure(server, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server.wrap = lambda conn: context.wrap_socket(conn, server_side=True)
    return f"https://localhost:{server.port}"


def test_authorities_of_our_own_are_trusted_and_no_others(*, client, server, secure, certificate, work):
    server.acts = [TAKEN]
    client(url=secure, ca_bundle=str(certificate)).submit(BODY, REFERENCE)
    failed = fail(client(url=secure))
    lost(failed, steps.Retry, "mdg-tls")
    assert (len(server.requests), work.asked) == (1, [0])
    assert alarms()["configuration"] == 1


def test_a_certificate_of_another_host_is_a_tls_failure(client, secure, certificate):
    url = secure.replace("localhost", "127.0.0.1")
    lost(fail(client(url=url, ca_bundle=str(certificate))), steps.Retry, "mdg-tls")


@pytest.mark.parametrize("gone", [True, False])
def test_authorities_that_cannot_be_read_are_a_tls_failure(*, client, secure, tmp_path, gone):
    path = tmp_path / "authorities.pem"
    path.write_text("no certificate")
    called = client(url=secure, ca_bundle=str(path))
    if gone:
        path.unlink()
    lost(fail(called), steps.Retry, "mdg-tls")


def test_who_speaks_no_tls_is_a_tls_failure_and_who_is_silent_a_slow_connect(*, client, server, work):
    url = f"https://127.0.0.1:{server.port}"
    server.wrap = lambda conn: (conn.recv(65536), conn.sendall(b"I speak no TLS\r\n"), conn)[2]
    lost(fail(client(url=url)), steps.Retry, "mdg-tls")
    server.wrap = lambda conn: (server.over.wait(100), conn)[1]
    lost(fail(client(url=url, connect_timeout=0.2)), steps.Retry, "mdg-connect-timeout")
    assert work.asked == []


def test_a_tls_connection_that_breaks_after_sending_is_unknown(client, server, secure, certificate):
    server.acts = [server.reset]
    lost(fail(client(url=secure, ca_bundle=str(certificate))), steps.Unknown, "mdg-connection-lost")


def test_a_flight_of_no_known_fault_counts_as_refused_or_lost():
    assert causes.of(wire.Flight(clear=int, read=1)) == "refused"
    assert causes.of(wire.Flight(clear=int, read=1, sent=True)) == "connection-lost"


# Breaker, limits, alarms.


def test_retries_and_unknown_ends_open_the_breaker_refusals_reset_it(client, server):
    server.acts = [answer(401), server.drop, answer(400), answer(404), server.drop, answer(500)]
    one = client(breaker_failures=3)
    for _ in range(6):
        fail(one)
    with pytest.raises(errors.NotSent) as stop:
        one.submit(BODY, REFERENCE)
    assert stop.value.reason == "breaker"
    assert 10 < stop.value.after < 30.1
    assert metrics.mdg_breaker_state._value.get() == breaker.State.OPEN


def test_too_many_calls_count_neither_way(client, server):
    server.acts = [answer(500), answer(429, "Retry-After: 0"), answer(500)]
    one = client(breaker_failures=2)
    for _ in range(3):
        fail(one)
    with pytest.raises(errors.NotSent):
        one.submit(BODY, REFERENCE)


def test_the_submission_with_the_fewest_attempts_comes_first_to_the_probe(client, server, shared, still):
    server.acts = [answer(500)]
    fail(client(breaker_failures=1, common=shared))
    waits = []
    for attempts in (0, 3, 50, 400):
        with pytest.raises(errors.NotSent) as stop:
            client(attempts, breaker_failures=1, common=shared).submit(BODY, REFERENCE)
        waits.append(stop.value.after)
    for wait, turn in zip(waits, (0, 1.8, 6.5, 6.5), strict=True):
        assert 29 + turn < wait < 30.05 + turn
    assert len(server.requests) == 1


def test_a_probe_that_was_stopped_before_it_was_sent_is_let_go(client, server, work):
    server.acts = [answer(500), TAKEN, TAKEN]
    one = client(breaker_failures=1, breaker_open=0.05)
    fail(one)
    work.pause(0.06)
    work.stop = errors.StopAsked("cancel")
    with pytest.raises(errors.StopAsked):
        one.submit(BODY, REFERENCE)
    work.stop = None
    one.submit(BODY, REFERENCE)
    assert metrics.mdg_breaker_state._value.get() == breaker.State.CLOSED


def test_as_many_calls_at_once_as_allowed(*, client, server, work, monkeypatch):
    monkeypatch.setattr("app.upstreams.slots._SHORT", 0)
    one = client(max_in_flight=1)
    seen = []

    def meanwhile(conn):
        with pytest.raises(errors.NotSent) as stop:
            one.submit(BODY, REFERENCE)
        seen.append(stop.value.reason)
        conn.sendall(TAKEN)
        return True

    server.acts = [meanwhile, TAKEN]
    one.submit(BODY, REFERENCE)
    one.submit(BODY, REFERENCE)
    assert (seen, len(work.calls)) == (["limiter"], 2)


@pytest.mark.parametrize("end", [204, 400])
@pytest.mark.parametrize(("status", "kind"), [*((status, "configuration") for status in OURS), (409, "conflict")])
def test_alarms_are_raised_and_end_with_the_next_ok_or_refusal(*, client, server, caplog, status, kind, end):
    server.acts = [answer(status), answer(500), answer(429, "Retry-After: 0"), answer(end)]
    one = client()
    fail(one)
    (record,) = [record for record in caplog.records if record.msg["event"] == "mdg.alarm"]
    assert (record.msg["alarm"], record.msg["chargeReference"], record.msg["error"]) == (
        kind,
        REFERENCE,
        f"mdg-{status}",
    )
    fail(one)
    fail(one)
    assert alarms()[kind] == 1
    if end == 204:
        one.submit(BODY, REFERENCE)
    else:
        fail(one)
    assert alarms() == {"configuration": 0, "conflict": 0}


def test_calls_are_measured_by_their_answer(client, server):
    server.acts = [TAKEN, server.drop]
    sums = [metrics.mdg_request_seconds.labels(status) for status in (204, "none")]
    before = [sum(bucket.get() for bucket in one._buckets) for one in sums]
    one = client()
    one.submit(BODY, REFERENCE)
    fail(one)
    assert [sum(bucket.get() for bucket in one._buckets) for one in sums] == [count + 1 for count in before]


def test_the_way_of_this_process_is_made_once(configured, settings, monkeypatch):
    monkeypatch.setattr(mdg, "_upstreams", {})
    assert mdg.upstream(settings()) is mdg.upstream(settings())
    assert mdg.upstream(settings()) is not mdg.upstream(settings(rate_per_second=3))


# Against the sandbox, which knows the contract for itself.


def declaration(number=0):
    common = {"acknowledgementReference": f"{REFERENCE}{number}"}
    detail = {"declarationHeader": {"chargeReference": REFERENCE}}
    return json.dumps({"simpleDeclarationRequest": {"requestCommon": common, "requestDetail": detail}}).encode()


@pytest.fixture
def sandboxed(client, upstreams):
    variables = upstreams.environment()
    token = SecretStr(variables["MDG_BEARER_TOKEN"])
    return lambda **more: client(url=variables["MDG_URL"], bearer_token=token, **more)


@pytest.mark.parametrize("variant", ["des", "cma"])
def test_the_sandbox_takes_what_is_sent(sandboxed, upstreams, variant):
    sandboxed(variant=variant).submit(declaration(), REFERENCE)
    assert upstreams.ledger()["totals"]["declarations"] == 1


def test_a_repeat_after_a_lost_answer_has_no_second_effect(sandboxed, upstreams):
    upstreams.fault("submit-declaration", "drop-after", times=1)
    one = sandboxed()
    lost(fail(one, declaration()), steps.Unknown, "mdg-connection-lost")
    one.submit(declaration(), REFERENCE)
    assert len(upstreams.calls(upstream="mdg")) == 2
    assert [entry["count"] for entry in upstreams.ledger()["declarations"]] == [1]
