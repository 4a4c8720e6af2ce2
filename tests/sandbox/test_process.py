"""`python -m sandbox` as a process: what it prints, how it stops, what it says about a busy port."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[2]
PORTS = 5


def free_range():
    """The first of as many free ports in a row as there are upstreams."""
    for first in range(20_000 + os.getpid() % 9_000, 60_000, PORTS):
        try:
            for port in range(first, first + PORTS):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    pytest.fail("no free ports")


def start(port, **more):
    environment = {"PATH": os.environ["PATH"], "SANDBOX_PORT": str(port), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_urls_and_stops_though_calls_hang(number, until):
    port = free_range()
    with start(port) as process:
        lines = [process.stdout.readline().split() for _ in range(PORTS + 1)]
        assert lines == [
            ["control", f"http://127.0.0.1:{port}/_/"],
            ["travel-pay-auth", f"http://127.0.0.1:{port}"],
            ["travel-pay", f"http://127.0.0.1:{port + 1}/eis/api/btsss/travelclaim"],
            ["notify", f"http://127.0.0.1:{port + 2}"],
            ["mdg", f"http://127.0.0.1:{port + 3}"],
            ["imovo", f"http://127.0.0.1:{port + 4}"],
        ]
        url = f"http://127.0.0.1:{port}/_"
        requests.post(f"{url}/faults", json={"call": "*", "fault": "hang-before"}, timeout=60)
        ends = []

        def hang():
            try:
                requests.get(f"http://127.0.0.1:{port + 2}/v2/notifications", timeout=100)
            except requests.ConnectionError:
                ends.append("dropped")

        caller = threading.Thread(target=hang)
        caller.start()
        until(lambda: requests.get(f"{url}/calls", timeout=60).json()["calls"])
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        caller.join(timeout=60)
        assert ends == ["dropped"]
        assert process.stderr.read() == ""


def test_a_busy_port_is_one_clear_line():
    port = free_range()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        with start(port) as process:
            assert process.wait(timeout=60) == 1
            said = process.stderr.read()
    assert said.startswith(f"sandbox: cannot listen on port {port + 1}: Address already in use")
    assert said.count("\n") == 1


def test_a_port_that_is_none_is_one_clear_line():
    with start("many") as process:
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == "sandbox: SANDBOX_PORT must be a port number, not 'many'\n"


def test_receipts_can_be_switched_on_from_outside():
    port = free_range()
    with start(port, SANDBOX_RECEIPTS_URL="http://127.0.0.1:9/callbacks/notify") as process:
        process.stdout.readline()
        settings = requests.get(f"http://127.0.0.1:{port}/_/settings", timeout=60).json()
        process.terminate()
    assert settings["receipts"]["callback_url"] == "http://127.0.0.1:9/callbacks/notify"


def test_it_tells_what_it_offers_and_starts_nothing():
    said = subprocess.run(
        [sys.executable, "-m", "sandbox", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "SANDBOX_PORT" in said.stdout
    assert "drop-after" in said.stdout
