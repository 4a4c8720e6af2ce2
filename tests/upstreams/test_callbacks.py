"""The clients' receivers over real sockets: what is posted, to which address, and what an answer means."""

import socket
import ssl
import time

import pytest

from app import clock, config, errors, steps
from app.upstreams import addresses, callbacks, outcomes
from app.upstreams.callbacks import Delivery, Receiver
from app.upstreams.shared import of_process
from tests.upstreams.conftest import IN_TIME

SECRET = "whsec-example-0123456789abcdef"
ID = "0197c2a4-8e11-7d3f-9b52-6a1f0c4e7d20"
BODY = b'{"id":"0197c2a4-8e11-7d3f-9b52-6a1f0c4e7d20","type":"travel-claim.submitted"}'
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
DELIVERY = Delivery(id=ID, body=BODY, secret=SECRET)
PUBLIC = "93.184.215.14"


@pytest.fixture(autouse=True)
def fresh(configured, shared):
    """No state of an earlier test, in the process or in Redis."""
    callbacks._upstreams.clear()
    of_process.cache_clear()
    yield
    for one in callbacks._upstreams.values():
        one.session.close()
    callbacks._upstreams.clear()
    of_process.cache_clear()


class Names:
    """A resolver: what each look at a name answers, the last answer for good; and which of them were asked for."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.really = socket.getaddrinfo

    def look(self, host, port, *args, **kwargs):
        if host not in self.answers:
            return self.really(host, port, *args, **kwargs)
        self.asked.append(host)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        if callable(found):
            return found()
        kinds = {True: (socket.AF_INET6, (0, 0)), False: (socket.AF_INET, ())}
        return [(kinds[":" in one][0], socket.SOCK_STREAM, 6, "", (one, port, *kinds[":" in one][1])) for one in found]


@pytest.fixture
def names(monkeypatch):
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.look)
    return made


@pytest.fixture
def here(names, monkeypatch):
    """hooks.example is this machine, which counts as public."""
    names.answers["hooks.example"] = [["127.0.0.1"]]
    really = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or really(address))


def receiver(work, url, *, allowed=None, insecure=True):
    place = url.partition("://")[2].partition("/")[0]
    hosts = frozenset([place] if allowed is None else allowed)
    settings = config.TravelClaims.model_construct(callback_hosts=hosts, callback_insecure=insecure)
    return Receiver(settings, url=url, work=work)


def fail(made):
    with pytest.raises(outcomes.Failed) as caught:
        made.post(DELIVERY)
    return caught.value


def headers(request):
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


# What is posted.


def test_the_signature_is_that_of_the_contracts_example():
    told = "t=1772463902,v1=ed9f80a9495eeeeba6eca9e6a38e64bdd8b22d6117243af69feded3a0e978f31"
    assert callbacks.signature(SECRET, 1772463902, BODY) == told


def test_the_post_is_that_of_the_contract(*, here, server, work):
    server.acts = [TAKEN]
    before = int(clock.now().timestamp())
    url = f"http://hooks.example:{server.port}/travel?client=1"
    assert receiver(work, url).post(DELIVERY) == 204
    (request,) = server.requests
    assert request.startswith(b"POST /travel?client=1 HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + BODY)
    told = headers(request)
    assert told["host"] == f"hooks.example:{server.port}"
    assert told["content-type"] == "application/json"
    assert told["x-throughline-delivery"] == ID
    assert told["x-correlation-id"] == "correlation-1"
    moment = int(told["x-throughline-signature"].split(",")[0].removeprefix("t="))
    assert before <= moment <= int(clock.now().timestamp())
    assert told["x-throughline-signature"] == callbacks.signature(SECRET, moment, BODY)


def test_a_repeat_has_the_same_id_and_body_and_a_fresh_moment(*, here, server, work, monkeypatch):
    server.acts = [TAKEN, TAKEN]
    made = receiver(work, f"http://hooks.example:{server.port}/")
    made.post(DELIVERY)
    later = clock.now().replace(year=2100)
    monkeypatch.setattr(clock, "now", lambda: later)
    made.post(DELIVERY)
    first, second = server.requests
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    signed = headers(second)["x-throughline-signature"]
    assert signed == callbacks.signature(SECRET, int(later.timestamp()), BODY)


# What an answer means.


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken_whatever_its_body(*, here, server, work, status):
    server.acts = [b"HTTP/1.1 %d Yes\r\nContent-Length: 5\r\n\r\n<html" % status if status != 204 else TAKEN]
    assert receiver(work, f"http://hooks.example:{server.port}/").post(DELIVERY) == status
    (call,) = work.calls
    assert (call.outcome, call.status, call.method) == ("ok", status, "POST")


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504])
def test_any_other_status_may_pass_and_no_redirect_is_followed(*, here, server, work, status):
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nLocation: http://hooks.example:%d/b\r\n\r\n"
    server.acts = [answer % (status, server.port), TAKEN]
    failed = fail(receiver(work, f"http://hooks.example:{server.port}/"))
    assert (type(failed.outcome), failed.outcome.free, failed.outcome.after) == (steps.Retry, False, None)
    assert (failed.status, len(server.requests)) == (status, 1)


def test_who_is_gone_is_not_called_again(*, here, server, work):
    server.acts = [b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"]
    failed = fail(receiver(work, f"http://hooks.example:{server.port}/"))
    assert (type(failed.outcome), failed.status) == (steps.Rejected, 410)


@pytest.mark.parametrize("act", ["drop", "reset"])
def test_a_lost_answer_may_pass(*, here, server, work, act):
    server.acts = [getattr(server, act)]
    assert isinstance(fail(receiver(work, f"http://hooks.example:{server.port}/")).outcome, steps.Retry)


def test_what_a_receiver_says_back_is_not_kept(*, here, server, work):
    body = b'{"message": "I got my secret appointment"}'
    server.acts = [b"HTTP/1.1 400 Not this\r\nContent-Length: %d\r\n\r\n" % len(body) + body]
    failed = fail(receiver(work, f"http://hooks.example:{server.port}/secret-path"))
    kept = repr((work.calls, failed.outcome, failed.message))
    assert "secret" not in kept
    assert "Bad Request" in kept


def test_the_whole_call_is_bounded(*, here, server, work, monkeypatch):
    monkeypatch.setattr(callbacks, "WHOLE_SECONDS", 2.0)
    server.acts = [server.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 99, 0.2)]
    started = time.monotonic()
    failed = fail(receiver(work, f"http://hooks.example:{server.port}/"))
    assert time.monotonic() - started < IN_TIME
    assert (type(failed.outcome), failed.outcome.failure.code) == (steps.Retry, "upstream-timeout")


def test_a_name_that_is_not_resolved_in_time_is_part_of_the_call(*, names, server, work, monkeypatch):
    monkeypatch.setattr(callbacks, "CONNECT_SECONDS", 0.2)
    names.answers["hooks.example"] = [lambda: server.over.wait(100)]
    started = time.monotonic()
    failed = fail(receiver(work, "http://hooks.example/"))
    assert time.monotonic() - started < IN_TIME
    assert isinstance(failed.outcome, steps.Retry)
    assert work.asked == []


def test_a_call_for_which_no_time_is_left_is_not_sent(*, here, server, work, monkeypatch):
    monkeypatch.setattr(callbacks, "WHOLE_SECONDS", 0.0)
    server.acts = [TAKEN]
    assert isinstance(fail(receiver(work, f"http://hooks.example:{server.port}/")).outcome, steps.Retry)
    assert (server.requests, work.asked) == ([], [])


def test_a_name_that_does_not_exist_may_pass(*, names, work):
    names.answers["hooks.example"] = [socket.gaierror(-2, "Name or service not known")]
    failed = fail(receiver(work, "http://hooks.example/"))
    assert (type(failed.outcome), failed.status) == (steps.Retry, None)


# Where it goes.


@pytest.mark.parametrize(
    ("url", "insecure"),
    [
        ("https://foreign.example/", True),
        ("https://hooks.example:444/", True),
        ("http://hooks.example/", False),
        ("https://hooks.example/#", False),
        ("https://user@hooks.example/", False),
    ],
)
def test_a_host_that_is_no_longer_allowed_is_not_called(*, names, work, url, insecure):
    failed = fail(receiver(work, url, allowed=["hooks.example"], insecure=insecure))
    assert (type(failed.outcome), failed.outcome.failure.code) == (steps.Rejected, "callback-url-not-allowed")
    assert (names.asked, work.calls) == ([], [])


PRIVATE = [
    "127.0.0.1", "127.255.0.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.1",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:93.184.215.14", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:1::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_not_connected_to(*, names, work, server, monkeypatch, address):
    dialled = []
    monkeypatch.setattr(addresses, "_dial", lambda *args: dialled.append(args))
    names.answers["hooks.example"] = [[address]]
    failed = fail(receiver(work, f"https://hooks.example:{server.port}/", insecure=False))
    assert (type(failed.outcome), failed.status) == (steps.Retry, None)
    assert (dialled, server.connections, work.asked) == ([], 0, [])


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111"])
def test_a_public_address_is_one(address):
    assert addresses.is_public(address)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/"])
def test_an_address_instead_of_a_name_gets_no_better_treatment(*, work, url):
    assert isinstance(fail(receiver(work, url, insecure=False)).outcome, steps.Retry)


def test_the_address_that_was_looked_at_is_the_one_connected_to(*, here, names, server, work, monkeypatch):
    """Whoever answers another address to a second look gains nothing: there is none."""
    names.answers["hooks.example"] = [["10.0.0.1", "127.0.0.1"], ["127.0.0.2"]]
    dialled = []
    really = addresses._dial
    monkeypatch.setattr(
        addresses, "_dial", lambda family, place, left: (dialled.append(place), really(family, place, left))[1]
    )
    server.acts = [TAKEN]
    monkeypatch.setattr(callbacks.callback_urls, "refusal", lambda *args, **kwargs: None)
    assert receiver(work, f"http://hooks.example:{server.port}/", insecure=False).post(DELIVERY) == 204
    assert names.asked == ["hooks.example"]
    assert dialled == [("127.0.0.1", server.port)]


def test_the_next_address_is_tried_when_the_first_does_not_answer(*, here, names, server, work, monkeypatch):
    names.answers["hooks.example"] = [["127.0.0.9", "127.0.0.1"]]
    server.acts = [TAKEN]
    assert receiver(work, f"http://hooks.example:{server.port}/").post(DELIVERY) == 204


@pytest.fixture
def secure(server, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server.wrap = lambda conn: context.wrap_socket(conn, server_side=True)
    return str(certificate)


@pytest.mark.parametrize(("host", "taken"), [("localhost", True), ("hooks.example", False)])
def test_the_certificate_is_checked_against_the_name(*, here, names, server, work, secure, host, taken):
    names.answers["localhost"] = [["127.0.0.1"]]
    server.acts = [TAKEN]
    callbacks.upstream(f"{host}:{server.port}", insecure=False).session.verify = secure
    made = receiver(work, f"https://{host}:{server.port}/", insecure=False)
    if taken:
        assert made.post(DELIVERY) == 204
    else:
        assert isinstance(fail(made).outcome, steps.Retry)
    assert len(server.requests) == taken


# Each host for itself.


def test_a_host_in_trouble_does_not_hold_up_another(*, here, names, server, work, still):
    names.answers["other.example"] = [["127.0.0.1"]]
    ill, well = (receiver(work, f"http://{host}:{server.port}/") for host in ("hooks.example", "other.example"))
    server.acts = [server.drop] * 11
    for _ in range(11):  # ten open the breaker, and one is the probe of this second
        fail(ill)
    with pytest.raises(errors.NotSent, match="breaker"):
        ill.post(DELIVERY)
    server.acts = [TAKEN]
    assert well.post(DELIVERY) == 204
    assert {call.upstream for call in work.calls} == {
        f"callback:hooks.example:{server.port}", f"callback:other.example:{server.port}",
    }  # fmt: skip
