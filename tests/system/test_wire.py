"""What only a real server sees: bytes that are no proper request."""

import socket

from tests.system.conftest import Installation


def answer(one: Installation, *lines: str, body: bytes = b"") -> str:
    """Send these bytes, and return what comes back."""
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as sock:
        sock.sendall("\r\n".join((*lines, "Host: localhost", f"x-api-key: {one.key}", "", "")).encode() + body)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65_536), b"")).decode()


def test_bytes_that_are_no_proper_request_get_a_4xx_and_leave_no_row(installation: Installation) -> None:
    one = installation
    one.start_web()
    post = ("POST /travel-claims HTTP/1.1", "Content-Type: application/json")
    for body in (b"zz\r\n{}\r\n0\r\n\r\n", b"-5\r\n{}\r\n0\r\n\r\n", b"5\r\n{}"):
        told = answer(one, *post, "Transfer-Encoding: chunked", body=body)
        assert told.startswith("HTTP/1.1 400"), told
        assert "application/problem+json" in told
    told = answer(one, *post, "Content-Length: 100", body=b"{}")
    assert told.startswith("HTTP/1.1 400"), told
    assert answer(one, "GET /healthz HTTP/1.1", "SCRIPT_NAME: /elsewhere").startswith("HTTP/1.1 200")
    assert one.sql("SELECT count(*) FROM claims") == 0
