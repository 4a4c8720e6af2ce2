"""The wire itself: connections are kept, answers prompt, slow calls wait side by side, bad bytes are refused."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from sandbox.listener import Listener
from sandbox.messages import json_answer


@pytest.fixture
def talk(sandbox):
    """Sends raw bytes and gives what comes back until the connection ends or is silent."""

    def send(*pieces):
        listener = sandbox.listeners["notify"]
        with socket.create_connection((listener.host, listener.port), timeout=60) as sock:
            for piece in pieces:
                sock.sendall(piece)
            received = b""
            while piece := sock.recv(65536):
                received += piece
        return received

    return send


def test_one_connection_carries_many_calls(veteran):
    veteran.find()
    pools = veteran.session.get_adapter("http://").poolmanager.pools
    for _ in range(20):
        veteran.find()
    connections = [pools[key].num_connections for key in list(pools.keys())]
    assert connections == [1, 1]


def test_no_answer_waits_for_a_delayed_acknowledgement(veteran):
    veteran.find()
    took = []
    for _ in range(20):
        start = time.perf_counter()
        veteran.find()
        took.append(time.perf_counter() - start)
    assert min(took) < 0.03  # each of them would wait for 0.04 s; a busy machine delays some


def waiting(sandbox):
    """How many calls wait for their answer."""
    return sum(call["status"] is None for call in sandbox.calls())


def test_hundreds_of_slow_calls_wait_side_by_side(sandbox, until):
    sandbox.fault("find-sms", "delay", seconds=100)
    url = f"{sandbox.url('notify')}/v2/notifications"

    def call(_):
        with pytest.raises(requests.ConnectionError, match="Remote end closed connection"):
            requests.get(url, timeout=100)

    with ThreadPoolExecutor(200) as pool:
        calls = pool.map(call, range(200))
        try:
            until(lambda: waiting(sandbox) == 200)
        finally:
            sandbox.reset()
        assert list(calls) == [None] * 200


def test_sleeping_calls_do_not_hold_up_others(sandbox, veteran, other, until):
    other.find()
    veteran.find()
    sandbox.fault("find-or-add", "delay", seconds=100, match={"icn": veteran.icn})
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(veteran.find, timeout=100)
        try:
            until(lambda: waiting(sandbox) == 1)
            assert other.find().status_code == 200
            assert waiting(sandbox) == 1
        finally:
            sandbox.reset()
        with pytest.raises(requests.ConnectionError):
            slow.result()


def test_requests_in_one_piece_and_in_many_are_answered_in_order(talk):
    one = b"GET /_/settings HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"POST /_/reset HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{"
    received = talk(one + one, last, b"}")
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert json.loads(received.rpartition(b"\r\n\r\n")[2]) == {"reset": True}


def test_a_caller_that_asks_first_is_told_to_go_on(sandbox):
    listener = sandbox.listeners["notify"]
    with socket.create_connection((listener.host, listener.port), timeout=60) as sock:
        sock.sendall(b"POST /_/reset HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /_/reset HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /_/reset HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n",
        b"POST /_/reset HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_are_refused(talk, sent):
    assert talk(sent).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_an_old_protocol_gets_its_connection_closed(talk):
    assert b"Connection: close" in talk(b"GET /_/settings HTTP/1.0\r\n\r\n")


def test_a_taken_port_is_not_shared():
    first = Listener(host="127.0.0.1", port=0, respond=lambda _: json_answer(200, {}))
    first.open()
    second = Listener(host="127.0.0.1", port=first.port, respond=lambda _: json_answer(200, {}))
    try:
        with pytest.raises(OSError, match="in use"):
            second.open()
        first.close()
        second.open()
        assert requests.get(f"http://127.0.0.1:{first.port}/", timeout=60).status_code == 200
    finally:
        first.close()
        second.close()
