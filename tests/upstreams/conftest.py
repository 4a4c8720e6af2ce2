"""A fake of what the engine offers, a server that follows a script byte by byte, and clients of a Redis."""

import base64
import contextlib
import datetime
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app import clock, config
from app.upstreams import breaker, http, travel_pay, travel_pay_access
from app.upstreams import shared as common
from app.upstreams.shared import Shared
from local import services
from sandbox import Sandbox

ICN = "1012667122V019349"
NAMES = ("DATA_KEYS", "HASH_KEY", "SECRET_KEY")
IN_TIME = 20.0  # seconds: what is soon over on an idle machine, however busy this one is; far less than a hang
KEYS = {name: base64.b64encode(name.encode().ljust(32, b".")).decode() for name in NAMES}


class FakeWork:
    """What the engine offers to a verb, and what was asked of it. `stop` is raised instead of clearance."""

    correlation_id = "correlation-1"
    last_try = False
    settled = False

    def __init__(self) -> None:
        self.urgent = False
        self.stop: BaseException | None = None
        self.asked: list[object] = []
        self.calls: list[object] = []

    def intend(self, index: int = 0) -> None:
        self.asked.append(index)
        if self.stop:
            raise self.stop

    def renew(self) -> None:
        self.asked.append("renew")
        if self.stop:
            raise self.stop

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        self.asked.append("pause")

    def note(self, call: object) -> None:
        self.calls.append(call)


def _whole_request(conn: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := conn.recv(65536)):
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (more := conn.recv(65536)):
        body += more
    return head + b"\r\n\r\n" + body


class ScriptedServer:
    """Answers the n-th request with the n-th act: bytes to send, or a function of the connection.

    A connection is kept while acts send bytes, and closed after a function unless it returns True.
    """

    def __init__(self) -> None:
        self.acts: list[bytes | Callable[[socket.socket], bool | None]] = []
        self.requests: list[bytes] = []
        self.connections = self.closed = 0
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.wrap: Callable[[socket.socket], socket.socket] = lambda conn: conn
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, conn)

    def _serve(self, conn: socket.socket) -> None:
        try:
            conn = self.wrap(conn)
            self._open.append(conn)
            while request := _whole_request(conn):
                self.requests.append(request)
                act = self.acts.pop(0) if self.acts else self.drop
                if isinstance(act, bytes):
                    conn.sendall(act)
                elif not act(conn):
                    return
        except OSError:
            pass
        finally:
            conn.close()
            self.closed += 1

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for conn in self._open:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)

    def hang(self, conn: socket.socket) -> None:
        self.over.wait(100)

    def drop(self, conn: socket.socket) -> None:
        """Close in order, without a word."""

    def reset(self, conn: socket.socket) -> None:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def drip(self, data: bytes, pause: float) -> Callable[[socket.socket], None]:
        def act(conn: socket.socket) -> None:
            for byte in data:
                conn.sendall(bytes([byte]))
                if self.over.wait(pause):
                    return

        return act


@pytest.fixture
def work() -> FakeWork:
    return FakeWork()


@pytest.fixture
def new_work() -> type[FakeWork]:
    return FakeWork


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of its own for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    day = datetime.timedelta(days=1)
    now = clock.now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def upstream(server: ScriptedServer) -> Iterator[http.Upstream]:
    made = http.Upstream("tested", f"http://127.0.0.1:{server.port}")
    yield made
    made.session.close()


@pytest.fixture
def configured(
    monkeypatch: pytest.MonkeyPatch, redis_server: services.Redis, sandbox: Sandbox
) -> Iterator[config.Settings]:
    """Settings of an installation that talks to the sandbox and the test's Redis; no Postgres is there."""
    variables = {
        "DATABASE_URL": "postgresql://nowhere",
        "REDIS_URL": redis_server.url,
        "TRAVEL_PAY_RATE_PER_MINUTE": "0",
        **KEYS,
        **sandbox.environment(),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config.settings.cache_clear()
    yield config.load()
    config.settings.cache_clear()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Waits for what happens soon; fails when it does not."""

    def wait(condition: Callable[[], object]) -> None:
        give_up = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up, "never happened"
            time.sleep(0.005)

    return wait


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the breakers no time passes."""
    now = time.time()
    monkeypatch.setattr(breaker, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: now))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that answers late on a busy machine is not taken for one that is away."""
    monkeypatch.setattr(common, "_SECONDS", IN_TIME)


@pytest.fixture
def shared(redis_server: services.Redis, patient: None) -> Iterator[Shared]:
    """A client of a Redis with nothing in it."""
    made = Shared(redis_server.url)
    made.ask(lambda client: client.flushall())
    yield made
    assert made.pool is not None
    made.pool.disconnect()


@pytest.fixture
def gateway(configured: config.Settings, upstreams: Sandbox) -> Iterator[travel_pay_access.Gateway]:
    """The way to the sandbox, which is as new; nothing is shared."""
    assert configured.travel_pay is not None
    made = travel_pay_access.Gateway(configured.travel_pay)
    yield made
    made.auth.session.close()
    made.api.session.close()


@pytest.fixture
def client(gateway: travel_pay_access.Gateway, work: FakeWork) -> Callable[..., travel_pay.TravelPay]:
    """Travel Pay for one veteran of product pci."""

    def make(**more: object) -> travel_pay.TravelPay:
        given = {"product": "pci", "icn": ICN, "work": work, **more}
        return travel_pay.TravelPay(gateway, **given)  # type: ignore[arg-type]

    return make
