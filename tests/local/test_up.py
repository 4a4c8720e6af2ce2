"""`make up` as a newcomer meets it, with small stand-ins for the project's own processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local import environment, programs, services
from sandbox import Sandbox

ROOT = Path(__file__).parents[2]

THROUGHLINE = """\
#!{python}
import json, pathlib, sys
match sys.argv[1:]:
    case ["migrate"]: print("schema ready")
    case ["clients", "add", "demo-oh", *_]: sys.exit("There is a client demo-oh already")
    case ["clients", "add" | "rotate" as verb, name, *_]: print(verb, name)
    case ["show", identity, "--json"]:
        row = dict(what="moved", actor="worker")
        rows = [dict(row, at=f"2026-03-02T15:04:0{{n}}+00:00", detail=f"row [{{n}}]") for n in (1, 3)]
        print(json.dumps(dict(id=identity, kind="claim", state="submitted", timeline=rows)))
"""

WEB = """\
import http.server, json, os

OPERATIONS = [{"kind": kind, "state": "succeeded", "operationId": kind} for kind in ("replace", "create")]
ANSWERS = {
    "travel-claims": {"state": "submitted", "final": True, "claimNumber": "TC1", "text": {"state": "delivered"}},
    "bc-passengers-declarations": {"state": "submitted", "acknowledgementReference": "XFPR00000001230"},
    "DEV": {"state": "active", "operations": OPERATIONS},
}

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, ANSWERS.get(self.path.split("/")[1], {}))
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(202, {"id": "the-id", "_id": "XFPR0000000123", "cardCode": "60", "letterCode": "09"})
    do_PUT = do_POST
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

PROCFILE = """\
release: exec throughline migrate
web: exec python web.py
worker: echo $$ >> worker.pids && exec sleep 1000
"""

DRIVE = """\
import pathlib, sys
from local import up
up.ROOT = pathlib.Path.cwd()
up.VAR = up.ROOT / "var"
up.BIN = up.ROOT / "bin"
sys.exit(up.main())
"""


class Up:
    """A run of `make up` in a folder of stand-ins."""

    def __init__(self, folder, **variables):
        self.folder = folder
        self.output = folder / "output"
        ports = {name: str(services.free_port()) for name in ("PORT", "FLOWER_PORT")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        outside = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        self.environment = {
            **outside,
            **ports,
            "SANDBOX_PORT": str(ports_of_the_sandbox()),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVE], cwd=folder, env=self.environment, stdout=output, stderr=output
            )

    @property
    def text(self):
        return self.output.read_text()

    def expect(self, pattern, *, seconds=100):
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(100)


def ports_of_the_sandbox():
    return services.free_port(in_a_row=len(Sandbox().listeners))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Procfile").write_text(PROCFILE)
    (tmp_path / "web.py").write_text(WEB)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "throughline"
    program.write_text(THROUGHLINE.format(python=sys.executable))
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def up(folder):
    runs = []

    def start(**variables):
        runs.append(Up(folder, **variables))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


def test_everything_comes_up_shows_the_sample_and_goes_away_again(up, folder):
    run = up()
    run.expect("Ctrl-C stops everything")
    shown = [tuple(line.split()) for line in run.text.splitlines() if "moved" in line or "finally" in line]
    timeline = [("+0.000", "s", "moved", "row", "[1]"), ("+2.000", "s", "moved", "row", "[3]")]
    timeline = [(*row, "by", "worker") for row in timeline]
    assert shown == [
        *timeline,
        ("finally", "submitted", "as", "TC1;", "text", "message:", "delivered"),
        *timeline,
        ("finally", "submitted", "as", "XFPR00000001230"),
        *timeline,
        *timeline,
        ("finally", "active:", "create", "succeeded,", "replace", "succeeded"),
    ]
    known = environment.read(folder / "var" / "dev.env")
    assert known["FLOWER_BASIC_AUTH"].partition(":")[2] in run.text
    assert (known["DEMO_PCI_KEY"], known["DEMO_OH_KEY"]) == ("add demo-pci", "rotate demo-oh")
    worker = int((folder / "worker.pids").read_text())
    postgres = int((folder / "var" / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    assert (run.end(), programs.runs(worker), programs.runs(postgres)) == (0, False, False)
    assert run.text.endswith("Stopping ...\nStopped.\n")


def test_a_killed_worker_comes_back_and_the_terminal_says_so(up, folder):
    run = up()
    run.expect("Throughline runs")
    os.kill(int((folder / "worker.pids").read_text()), signal.SIGKILL)
    run.expect("worker .*was killed by SIGKILL; starting it again")
    deadline = time.monotonic() + 100
    while len((folder / "worker.pids").read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_run_in_the_same_folder_is_refused_and_one_after_a_kill_works_at_once(up, folder):
    first = up()
    first.expect("Throughline runs")
    second = up()
    assert (second.process.wait(100), "runs in this folder already" in second.text) == (1, True)
    worker = int((folder / "worker.pids").read_text())
    first.process.kill()
    third = up()
    third.expect("Throughline runs")
    assert not programs.runs(worker)
    assert third.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("variable", ["PORT", "FLOWER_PORT", "SANDBOX_PORT"])
def test_a_busy_port_is_one_line_that_names_the_variable(up, variable):
    first = ports_of_the_sandbox()
    port = first + 2 if variable == "SANDBOX_PORT" else first
    with socket.create_server(("127.0.0.1", port)):
        run = up(**{variable: str(first)})
        assert run.process.wait(100) == 1
    assert re.search(rf"^Stopped: port {port} is busy; .* {variable}=\d+ make up$", run.text, re.MULTILINE)
    assert len(run.text.splitlines()) == 1


def test_a_migration_that_fails_stops_everything_and_shows_why(up, folder):
    (folder / "Procfile").write_text("release: echo the schema is broken; exit 3\nweb: exec python web.py\n")
    run = up()
    assert run.process.wait(100) == 1
    assert "release ended with status 3:\nthe schema is broken" in run.text


def test_a_process_that_cannot_start_stops_everything_and_shows_why(up, folder):
    (folder / "Procfile").write_text("release: true\nweb: echo PORT is malformed; exit 1\n")
    run = up()
    assert run.process.wait(100) == 1
    assert "web keeps dying; " in run.text
    assert "PORT is malformed" in run.text


def test_a_database_from_outside_is_used_as_it_is(up, folder, postgres):
    (folder / "Procfile").write_text(PROCFILE.replace("throughline migrate", "printenv DATABASE_URL"))
    run = up(DATABASE_URL=postgres.url)
    run.expect("Throughline runs")
    assert (folder / "var" / "log" / "release.log").read_text().strip() == postgres.url
    assert not (folder / "var" / "postgres").exists()
    assert "Demo clients" not in run.text
    assert "DATABASE_URL" not in environment.read(folder / "var" / "dev.env")


def test_a_shell_that_has_read_the_file_brings_nothing_of_its_own(up, folder):
    first = up()
    first.expect("Throughline runs")
    first.end()
    known = environment.read(folder / "var" / "dev.env")
    second = up(**{name: value for name, value in known.items() if name != "SANDBOX_PORT"})
    second.expect("Throughline runs")
    assert "Postgres on port" in second.text
    seen = environment.read(folder / "var" / "dev.env")
    assert seen["TRAVEL_PAY_AUTH_URL"] == f"http://127.0.0.1:{second.environment['SANDBOX_PORT']}"
    assert json.dumps({name: seen[name] for name in ("SECRET_KEY", "DEMO_PCI_KEY")}) == json.dumps(
        {name: known[name] for name in ("SECRET_KEY", "DEMO_PCI_KEY")}
    )
