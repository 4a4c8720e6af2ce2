"""Embedded Postgres and Redis: they come up, survive what tests do to them, and leave nothing behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
import redis

from local import programs
from local.services import Postgres, Redis, StartFailed, is_free

ROOT = Path(__file__).parents[2]


def wait_until(condition, *, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_postgres_takes_connections_at_its_url_alone(postgres):
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute(
            "SELECT current_database(), current_user, current_setting('server_encoding'), current_setting('timezone')"
        ).fetchone()
    assert row == ("throughline", "throughline", "UTF8", "UTC")


def test_postgres_wants_its_password(postgres):
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://throughline:guessed@127.0.0.1:{postgres.port}/throughline")


def test_the_password_file_is_for_its_owner_only(postgres):
    assert stat.S_IMODE((postgres.folder / "password").stat().st_mode) == 0o600


def test_committed_rows_survive_an_immediate_restart_and_a_kill_on_the_same_port(postgres):
    url = postgres.url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    for crash in (postgres.restart_immediate, postgres.kill):
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO kept VALUES (1)")
        crash()
        postgres.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)


def test_an_immediate_restart_cuts_sessions_off(postgres):
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        postgres.restart_immediate()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_postgres_takes_two_hundred_connections(postgres):
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("200",)


@pytest.mark.parametrize("fsync", [True, False])
def test_fsync_is_as_asked_and_a_commit_always_waits_for_the_log(tmp_path, fsync):
    with Postgres(tmp_path, fsync=fsync) as server, psycopg.connect(server.url) as connection:
        shown = [connection.execute(f"SHOW {name}").fetchone()[0] for name in ("fsync", "synchronous_commit")]
    assert shown == ["on" if fsync else "off", "on"]


def test_data_and_port_stay_over_a_stop_and_a_start(tmp_path):
    with Postgres(tmp_path, fsync=False) as first, psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE kept ()")
        connection.commit()
        url = first.url
    with Postgres(tmp_path, fsync=False) as second, psycopg.connect(url) as connection:
        connection.execute("SELECT FROM kept")
        assert second.url == url


def test_a_setup_that_was_cut_short_is_done_anew(tmp_path):
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "half").touch()
    with Postgres(tmp_path, fsync=False) as server:
        assert server.alive


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    server = Postgres(tmp_path, fsync=False).start()
    server.stop()
    (server.data / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(StartFailed, match="nonsense"):
        server.start()


def test_redis_comes_back_empty_on_the_same_port(redis_server):
    url = redis_server.url
    with redis.Redis.from_url(url) as client:
        client.set("name", "value")
    redis_server.restart_immediate()
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 0


def test_a_killed_redis_refuses_connections_until_it_is_started(tmp_path):
    with Redis(tmp_path) as server:
        server.kill()
        assert not server.alive
        with pytest.raises(redis.ConnectionError), redis.Redis.from_url(server.url) as client:
            client.ping()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_a_port_taken_by_another_is_passed_over(tmp_path):
    with Redis(tmp_path / "one") as one:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "port").write_text(str(one.port))
        with Redis(tmp_path / "two") as two:
            assert two.port != one.port
            assert not is_free(two.port)


def test_a_server_waits_for_its_own_port_rather_than_move(tmp_path):
    with Redis(tmp_path) as server:
        url = server.url
        server.kill()
        taken = socket.create_server(("127.0.0.1", server.port))
        release = threading.Timer(0.5, taken.close)
        release.start()
        server.start()
        release.join()
        assert server.url == url


def test_stopped_servers_leave_no_process(tmp_path):
    with Postgres(tmp_path / "postgres", fsync=False) as postgres, Redis(tmp_path / "redis") as server:
        pids = [postgres.pid, *programs.children(postgres.pid), server.pid]
        assert len(pids) > 3
    assert not [pid for pid in pids if programs.runs(pid)]


def test_servers_end_with_a_parent_that_is_killed(tmp_path):
    script = """
import pathlib, sys, time
from local.services import Postgres, Redis
folder = pathlib.Path(sys.argv[1])
postgres, redis = Postgres(folder / "postgres", fsync=False).start(), Redis(folder / "redis").start()
print(postgres.pid, redis.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        postgres, server = map(int, parent.stdout.readline().split())
        pids = [postgres, *programs.children(postgres), server]
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(programs.runs(pid) for pid in pids))


def test_postgres_runs_as_root_in_a_folder_that_only_root_may_enter(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    tmp_path.chmod(0o700)
    with Postgres(tmp_path / "closed", fsync=False) as server:
        owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner != 0
