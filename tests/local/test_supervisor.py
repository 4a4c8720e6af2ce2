"""The supervisor: it starts again what dies, shows what matters, and stops everything it started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local import programs, supervisor

ROOT = Path(__file__).parents[2]
FOREVER = "import time; print('here', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"


def python(code):
    return [sys.executable, "-c", code]


@pytest.fixture
def said():
    return []


@pytest.fixture
def keeper(tmp_path, said, monkeypatch):
    monkeypatch.setattr(supervisor, "BACK_OFF_SECONDS", (0.0,))
    keeper = supervisor.Supervisor(tmp_path, os.environ.copy(), lambda *line: said.append(line))
    yield keeper
    keeper.hurry = True
    keeper.stop()


def text_of(keeper, name):
    return (keeper.logs / f"{name}.log").read_text()


def pid_of(keeper, name):
    return next(child.program.pid for child in keeper.children if child.name == name and child.program)


def test_a_process_that_was_killed_is_started_again_and_it_says_so(keeper, said):
    keeper.keep("one", python(FOREVER))
    first = pid_of(keeper, "one")
    os.kill(first, signal.SIGKILL)
    assert keeper.wait(lambda: text_of(keeper, "one").count("here") == 1 and keeper.children[0].deaths, seconds=60)
    assert keeper.wait(lambda: keeper.children[0].program is not None, seconds=60)
    assert pid_of(keeper, "one") != first
    assert ("one", "was killed by SIGKILL; starting it again in 0 s (log: one.log)") in said


def test_what_a_dead_process_left_in_its_group_is_ended_before_the_next_start(keeper):
    keeper.keep("one", ["/bin/sh", "-c", "sleep 600 & echo $!; wait"])
    assert keeper.wait(lambda: text_of(keeper, "one").strip(), seconds=60)
    stray = int(text_of(keeper, "one").split()[0])
    os.kill(pid_of(keeper, "one"), signal.SIGKILL)
    assert keeper.wait(lambda: not programs.runs(stray), seconds=60)


def test_a_process_that_keeps_dying_is_given_up_while_starting(keeper):
    keeper.keep("one", python("raise SystemExit('DATABASE_URL is missing')"))
    assert keeper.wait(lambda: keeper.children[0].deaths >= supervisor.HOPELESS, seconds=60)
    with pytest.raises(supervisor.Died, match=r"one keeps dying; .*one.log:\nDATABASE_URL is missing"):
        keeper.give_up_on_the_hopeless()


def test_the_pause_before_a_restart_grows(keeper, said, monkeypatch):
    monkeypatch.setattr(supervisor, "BACK_OFF_SECONDS", (0.0, 0.01, 60.0))
    keeper.keep("one", python("raise SystemExit(3)"))
    assert keeper.wait(lambda: len(said) == 3, seconds=60)
    assert [line.split(" in ")[1].split(" s")[0] for _, line in said] == ["0", "0.01", "60"]


def test_run_waits_for_the_end(keeper):
    keeper.run("release", python("print('done')"))
    assert text_of(keeper, "release") == "done\n"


def test_run_that_fails_shows_the_end_of_the_log(keeper):
    with pytest.raises(supervisor.Died, match="release ended with status 1:\nno such host"):
        keeper.run("release", python("raise SystemExit('no such host')"))


def test_a_server_that_died_is_started_again(keeper, said):
    class Server:
        alive = True
        starts = 0

        def start(self):
            self.alive = True
            self.starts += 1

        def stop(self):
            self.alive = False

    server = Server()
    keeper.serve("redis", server)
    server.alive = False
    keeper.tick()
    assert (server.starts, said) == (2, [("redis", "died; starting it again")])
    keeper.stop()
    assert not server.alive


def test_stop_asks_all_and_kills_the_one_that_does_not_listen(keeper, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.3)
    keeper.keep("kind", python(FOREVER))
    keeper.keep("stubborn", python(STUBBORN))
    assert keeper.wait(lambda: text_of(keeper, "kind") and text_of(keeper, "stubborn"), seconds=60)
    pids = [pid_of(keeper, name) for name in ("kind", "stubborn")]
    keeper.stop()
    assert not [pid for pid in pids if programs.runs(pid)]


def test_processes_end_with_a_supervisor_that_is_killed(tmp_path):
    script = f"""
import os, pathlib, sys
from local import supervisor
keeper = supervisor.Supervisor(pathlib.Path(sys.argv[1]), os.environ.copy(), print)
keeper.keep("one", [sys.executable, "-c", {FOREVER!r}])
print(keeper.children[0].program.pid, flush=True)
keeper.wait()
"""
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while programs.runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_warnings_are_shown_and_a_flood_is_cut(keeper, said):
    lines = "import sys; print('plain'); print('x ERROR: oh'); print('\\n'.join(['WARNING again'] * 9))"
    keeper.run("one", python(lines))
    assert said == [
        ("one", "x ERROR: oh"),
        *[("one", "WARNING again")] * (supervisor.LINES_SHOWN - 1),
        ("one", "... and 5 more such lines in one.log"),
    ]


def test_verbose_shows_every_line(keeper, said):
    keeper.verbose = True
    keeper.run("one", python("print('plain')"))
    assert said == [("one", "plain")]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"level": "info", "event": "taken"}', ""),
        (
            '{"level": "warning", "event": "breaker open", "upstream": "notify"}',
            "warning: breaker open upstream=notify",
        ),
        ('{"level": "error", "event": "first\\nsecond"}', "error: first"),
        ('{"event": "no level"}', ""),
        ("[1] just a list", ""),
        ("Traceback (most recent call last):", ""),
        ("[INFO/MainProcess] ready", ""),
    ],
)
def test_a_log_line_is_shown_when_somebody_should_see_it(line, shown):
    assert supervisor.warning(line) == shown


def test_json_that_is_no_object_is_taken_as_text():
    assert supervisor.warning(json.dumps("ERROR in text")) == json.dumps("ERROR in text")
