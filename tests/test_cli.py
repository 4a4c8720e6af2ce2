"""The `throughline` command as an operator types it."""

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from app import config, db, diagnosis, logs, queue
from app.cli import ROOT, main
from app.diagnosis import Finding
from app.models.workflow import Tick, Worker
from app.states import Claim as S
from app.steps import Call
from app.store import clients, declaration_jobs, health, workflows
from app.store.clients import Caller
from app.store.workflows import NOW, seconds
from local import services
from tests.flows.declared import declared
from tests.flows.voucher_play import cancel, create
from tests.store.conftest import seen, workflow

Type = Callable[..., Result]
UNMIGRATED = "Error: The schema is not the one that this version needs; run `throughline migrate`.\n"


@pytest.fixture
def throughline(database: None) -> Type:
    """`throughline("clients", "list")` runs the command in this process."""

    def run(*words: str) -> Result:
        result = CliRunner().invoke(main, words)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def no_postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing?connect_timeout=2")
    monkeypatch.setattr(db, "engine", lambda: engine)
    yield
    engine.dispose()


@pytest.fixture
def database_of_its_own(
    postgres: services.Postgres, throughline: Type, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A database with nothing in it."""
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bare WITH (FORCE)")
        connection.execute("CREATE DATABASE bare")
    engine = create_engine(postgres.url_of("bare").replace("postgresql:", "postgresql+psycopg:"))
    monkeypatch.setattr(db, "engine", lambda: engine)
    yield
    engine.dispose()


@pytest.fixture
def first_schema(database_of_its_own: None) -> None:
    """As the first migration left it."""
    command.upgrade(Config(str(ROOT / "alembic.ini")), "0001")


@pytest.fixture
def wrong_password(throughline: Type, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    engine = create_engine(db.engine().url.set(password="guessed"))
    monkeypatch.setattr(db, "engine", lambda: engine)
    yield
    engine.dispose()


def caller(key: str) -> Caller | None:
    with db.transaction() as session:
        return clients.by_key(session, clients.digest(key))


def add(throughline: Type, name: str = "check-in", *options: str) -> str:
    added = throughline("clients", "add", name, *(options or ("--scope", "claims", "--product", "pci")))
    assert added.exit_code == 0, added.output
    return added.stdout.strip()


# Clients


def test_a_new_clients_key_stands_alone_on_stdout(throughline: Type) -> None:
    added = throughline("clients", "add", "check-in", "--scope", "claims", "--scope", "vouchers", "--product", "pci")
    key = added.stdout.removesuffix("\n")
    assert key == key.strip()
    assert len(key) >= 43
    found = caller(key)
    assert found
    assert (found.name, found.scopes, found.product) == ("check-in", {"claims", "vouchers"}, "pci")


def test_rotating_prints_a_new_key_beside_which_the_last_one_stays_valid(throughline: Type) -> None:
    keys = [add(throughline)]
    for _ in range(2):
        rotated = throughline("clients", "rotate", "check-in")
        keys.append(rotated.stdout.removesuffix("\n"))
    assert [caller(key) is not None for key in keys] == [False, True, True]


def test_a_webhook_secret_stands_alone_on_stdout_and_replaces_the_one_before(throughline: Type) -> None:
    add(throughline)
    made = [throughline("clients", "webhook-secret", "check-in").stdout.removesuffix("\n") for _ in range(2)]
    assert all(secret == secret.strip() and len(secret) >= 43 for secret in made)
    assert made[0] != made[1]
    with db.transaction() as session:
        assert clients.named(session, "check-in").webhook_secret == made[1]
        stored = session.connection().exec_driver_sql("SELECT webhook_secret FROM clients").scalar_one()
    assert made[1].encode() not in stored


def test_the_list_shows_every_client_with_its_toggles_and_no_key(throughline: Type) -> None:
    key = add(throughline)
    add(throughline, "desk", "--scope", "operator")
    throughline("toggles", "set", "check-in", "claims-texts", "off")
    listed = throughline("clients", "list")
    lines = {line.split()[1]: line for line in listed.stdout.splitlines() if "check-in" in line or "desk" in line}
    assert "claims:on" in lines["check-in"]
    assert "claims-texts:off" in lines["check-in"]
    assert "pci" in lines["check-in"]
    assert "operator" in lines["desk"]
    assert key not in listed.output


@pytest.mark.parametrize("state", ["on", "off"])
def test_a_toggle_is_set_and_the_answer_stays_off_stdout(throughline: Type, state: str) -> None:
    add(throughline)
    answer = throughline("toggles", "set", "check-in", "declarations", state)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "", f"declarations is {state} for check-in.\n")
    with db.transaction() as session:
        assert clients.is_on(session, clients.named(session, "check-in").id, "declarations") is (state == "on")


# One sentence instead of a traceback


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("clients", "add", "check-in", "--scope", "claims"), "There is a client check-in already"),
        (("clients", "add", "new"), "Missing option '--scope'"),
        (("clients", "add", "new", "--scope", "everything"), "'everything' is not one of"),
        (("clients", "rotate", "nobody"), "There is no client nobody"),
        (("clients", "webhook-secret", "nobody"), "There is no client nobody"),
        (("toggles", "set", "nobody", "claims", "on"), "There is no client nobody"),
        (("toggles", "set", "check-in", "sparkles", "on"), "'sparkles' is not one of"),
        (("show", "nonsense"), "There is no workflow nonsense, nor a charge reference or subscription"),
        (("show", "0197c2a4-7c1e-7b2a-9d55-3f0c8e6a1b42"), "There is no workflow 0197c2a4"),
        (("dance",), "No such command 'dance'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_answered_with_a_sentence(throughline: Type, words: tuple[str, ...], said: str) -> None:
    add(throughline)
    answer = throughline(*words)
    assert answer.exit_code != 0
    assert said in answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.output


def test_a_postgres_that_is_away_is_told_as_such(throughline: Type, no_postgres: None) -> None:
    answer = throughline("clients", "list")
    assert answer.exit_code == 1
    assert answer.stderr == "Error: Postgres cannot be reached at DATABASE_URL; is it running?\n"


def test_a_password_that_postgres_refuses_is_told_as_such(throughline: Type, wrong_password: None) -> None:
    answer = throughline("clients", "list")
    assert answer.exit_code == 1
    assert answer.stderr == (
        'Error: Postgres refuses the connection: password authentication failed for user "throughline". '
        "User, password and database are those of DATABASE_URL.\n"
    )


def test_a_lock_that_is_not_free_is_told_as_such(throughline: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = create_engine(db.engine().url, connect_args={"options": "-c lock_timeout=50"})
    with db.transaction() as session:
        session.execute(text("LOCK TABLE clients"))
        monkeypatch.setattr(db, "engine", lambda: impatient)
        answer = throughline("clients", "list")
    impatient.dispose()
    assert answer.exit_code == 1
    assert answer.stderr == "Error: A lock that others hold was not free in time; run the command again.\n"


def test_a_deadlock_is_told_as_such(throughline: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise OperationalError("", {}, psycopg.errors.DeadlockDetected())

    monkeypatch.setattr(clients, "every", ended)
    answer = throughline("clients", "list")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("Error: Postgres ended this")
    assert answer.stderr.endswith("(a deadlock); run the command again.\n")


@pytest.mark.parametrize(
    "words",
    [
        ("clients", "add", "check-in", "--scope", "operator"),
        ("clients", "list"),
        ("toggles", "set", "check-in", "claims", "on"),
        ("show", "a2F5"),
        ("alive",),
    ],
    ids="-".join,
)
def test_a_schema_that_is_not_there_is_told_as_such(
    throughline: Type, database_of_its_own: None, words: tuple[str, ...]
) -> None:
    answer = throughline(*words)
    assert (answer.exit_code, answer.stderr) == (1, UNMIGRATED)


@pytest.mark.parametrize("words", [("show", "a2F5"), ("alive",)], ids="-".join)
def test_a_schema_that_is_too_old_is_told_as_such(
    throughline: Type, first_schema: None, words: tuple[str, ...]
) -> None:
    answer = throughline(*words)
    assert (answer.exit_code, answer.stderr) == (1, UNMIGRATED)


def test_a_wrong_statement_of_our_own_is_not_blamed_on_the_schema(
    throughline: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "every", lambda session: session.execute(text("SELECT nonsense")))
    with pytest.raises(ProgrammingError):
        throughline("clients", "list")


def test_an_error_of_our_own_is_not_dressed_up(throughline: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(clients, "every", bug)
    with pytest.raises(ZeroDivisionError):
        throughline("clients", "list")


def test_every_command_says_what_it_does(throughline: Type) -> None:
    commands = [(), ("clients",), ("toggles",), ("show",), ("doctor",), ("alive",), ("migrate",), ("up",)]
    helped = [throughline(*words, "--help") for words in commands]
    assert [answer.exit_code for answer in helped] == [0] * len(commands)
    assert "What is wrong here, and what to do about it." in helped[0].stdout


# One workflow


@pytest.fixture
def claim(database: None) -> uuid.UUID:
    """A claim with a move and a call that was lost."""
    claim = workflow(state=S.APPOINTMENT_FOUND)
    row = seen(claim)
    call = Call(
        upstream="travel-pay", name="create-claim", method="POST", path="api/v3/claims", status=None,
        outcome="unknown", milliseconds=45_000,
    )  # fmt: skip
    with db.transaction() as session:
        workflows.add_calls(session, row, "create_claim", "do", [call])
        workflows.move(session, row, S.CREATED, actor="worker", reason="create_claim adopted")
    return claim


def test_a_timeline_is_shown_to_people(throughline: Type, claim: uuid.UUID) -> None:
    shown = throughline("show", str(claim))
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == f"claim {claim}: created"
    assert "create_claim do" in shown.stdout
    assert "POST api/v3/claims: no answer, unknown, 45000 ms" in shown.stdout
    assert shown.stdout.index("create_claim do") < shown.stdout.index("appointment-found -> created")


def test_a_timeline_is_found_by_what_people_call_the_work(throughline: Type, database: None) -> None:
    declaration = declared()
    with db.transaction() as session:
        reference = declaration_jobs.load(session, declaration).charge_reference
    assert throughline("show", reference).stdout.startswith(f"declaration {declaration}: paid")
    operations = [create(sub="a2F5"), cancel(sub="a2F5")]
    shown = throughline("show", "a2F5", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in shown] == [str(one) for one in operations]


def test_a_timeline_is_shown_to_programs(throughline: Type, claim: uuid.UUID) -> None:
    told = json.loads(throughline("show", str(claim), "--json").stdout)
    assert {name: told[name] for name in ("id", "kind", "state")} == {
        "id": str(claim), "kind": "claim", "state": "created",
    }  # fmt: skip
    assert [(entry["what"], entry["actor"]) for entry in told["timeline"]] == [
        ("create_claim do", "travel-pay"),
        ("appointment-found -> created", "worker"),
    ]


# What is wrong


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in diagnosis.run()}


def test_the_doctor_finds_nothing_where_all_is_well(throughline: Type, redis_server: services.Redis) -> None:
    told = throughline("doctor")
    assert told.exit_code == 0, told.output
    assert [line.split(":")[0] for line in told.stdout.splitlines()] == [
        "ok   environment", "ok   Postgres", "ok   schema", "ok   Redis", "ok   workers", "ok   due work",
        "ok   calendar", "ok   lines",
    ]  # fmt: skip
    assert "travel claims, texts" in told.stdout


def test_the_doctor_says_what_to_do_and_ends_with_an_error(throughline: Type) -> None:
    with db.transaction() as session:
        session.query(Worker).delete()
    told = throughline("doctor")
    assert told.exit_code == 1
    at = next(place for place, line in enumerate(told.stdout.splitlines()) if line.startswith("WRONG"))
    assert told.stdout.splitlines()[at : at + 2] == [
        "WRONG workers: 0 alive",
        "      -> start a worker: celery -A tasks.celery worker",
    ]


def test_a_worker_that_is_silent_is_not_alive(throughline: Type, set_settings: Callable[..., None]) -> None:
    set_settings(LEASE_HEARTBEAT_SECONDS=0.1, LEASE_DEAD_SECONDS=0.5)  # silence counts from Postgres's start at most
    with db.transaction() as session:
        session.execute(Worker.__table__.update().values(beat_at=NOW - seconds(60)))
    assert not findings()["workers"].ok


def test_a_health_check_says_what_each_worker_of_this_host_does(throughline: Type) -> None:
    told = throughline("alive")
    assert (told.exit_code, told.stdout) == (0, f"ok   worker {os.getpid()}: beats\n")


def test_a_health_check_fails_where_no_worker_runs(throughline: Type) -> None:
    with db.transaction() as session:
        session.query(Worker).delete()
    told = throughline("alive")
    assert (told.exit_code, told.stdout.splitlines()[1]) == (1, "      -> start one")


def test_a_health_check_does_not_blame_a_worker_for_a_postgres_that_is_away(
    throughline: Type, no_postgres: None
) -> None:
    told = throughline("alive")
    assert (told.exit_code, "no fault of a worker" in told.stdout) == (0, True)


def test_work_that_is_due_for_a_minute_is_a_finding_and_work_that_is_held_is_none(throughline: Type) -> None:
    workflow(due_at=NOW - seconds(30))
    workflow(due_at=NOW - seconds(500), worker=uuid.uuid4())
    assert findings()["due work"].ok
    workflow(due_at=NOW - seconds(61))
    found = findings()["due work"]
    assert not found.ok
    assert re.fullmatch(r"2 due, the oldest for 6\d s", found.detail)


def test_a_schema_that_is_not_the_newest_is_a_finding(throughline: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.health, "schema_version", lambda session: "0001")
    found = findings()["schema"]
    assert (found.ok, found.remedy) == (False, "run `throughline migrate`")


def test_a_schema_that_is_newer_than_this_code_is_told_and_nothing_wrong(
    throughline: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis.health, "schema_version", lambda session: "9999")
    found = findings()["schema"]
    assert (found.ok, found.detail, found.remedy) == (True, f"9999, newer than our {health.schema_head()}", "")


@pytest.mark.parametrize(("schema", "have"), [("database_of_its_own", "none"), ("first_schema", "0001")])
def test_without_the_schema_only_what_can_be_told_is_told(
    throughline: Type, request: pytest.FixtureRequest, schema: str, have: str
) -> None:
    request.getfixturevalue(schema)
    told = throughline("doctor")
    assert (told.exit_code, told.stderr) == (1, "")
    lines = told.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if "->" not in line] == [
        "ok   environment", "ok   Postgres", "WRONG schema", "ok   Redis",
    ]  # fmt: skip
    assert lines[2:4] == [
        f"WRONG schema: {have}, newest is {health.schema_head()}",
        "      -> run `throughline migrate`",
    ]


def test_a_postgres_that_refuses_us_is_not_said_to_be_away(throughline: Type, wrong_password: None) -> None:
    found = findings()
    assert list(found) == ["environment", "Postgres", "Redis"]
    assert found["Postgres"].detail == 'password authentication failed for user "throughline"'


def test_a_redis_that_is_away_is_a_finding(throughline: Type, redis_server: services.Redis) -> None:
    redis_server.kill()
    try:
        assert not findings()["Redis"].ok
    finally:
        redis_server.start()
    assert findings()["Redis"].ok


@pytest.fixture
def empty_redis(redis_server: services.Redis) -> Iterator[None]:
    yield
    queue._counter().flushall()


def test_work_that_its_upstream_holds_back_is_told_and_no_finding(throughline: Type, empty_redis: None) -> None:
    workflow(due_at=NOW - seconds(600))
    assert not findings()["due work"].ok
    queue.tell_backlog({"claim": queue.UPSTREAM}, seconds=60)
    found = findings()["due work"]
    assert (found.ok, found.detail) == (True, "0 due, the oldest for 0 s; held back by their upstream: claim")


def test_work_behind_a_full_queue_is_overdue_like_any_other(throughline: Type, empty_redis: None) -> None:
    workflow(due_at=NOW - seconds(600))
    queue.tell_backlog({"claim": queue.FULL}, seconds=60)
    found = findings()["due work"]
    assert not found.ok
    assert re.fullmatch(r"1 due, the oldest for 6\d\d s; behind a full queue: claim", found.detail)


# The calendar


@pytest.fixture
def worker_for(database: None) -> Callable[[float], None]:
    """A worker has lived for so many seconds."""

    def lives(age: float) -> None:
        with db.transaction() as session:
            session.execute(Worker.__table__.update().values(started_at=NOW - seconds(age)))

    return lives


def tick(age: float) -> None:
    with db.transaction() as session:
        session.execute(Tick.__table__.insert().values(schedule="voucher-operations", due_at=NOW - seconds(age)))


def test_a_calendar_that_stands_still_is_a_finding(throughline: Type, worker_for: Callable[[float], None]) -> None:
    worker_for(1000)
    tick(100)
    assert findings()["calendar"].ok
    with db.transaction() as session:
        session.execute(Tick.__table__.update().values(due_at=NOW - seconds(121)))
    found = findings()["calendar"]
    assert not found.ok
    assert re.fullmatch(r"no job has begun for 1[2-9]\d s", found.detail)
    assert found.remedy.startswith("start beat: celery -A tasks.celery beat")


def test_a_calendar_is_given_two_minutes_from_the_first_workers_start(
    throughline: Type, worker_for: Callable[[float], None]
) -> None:
    worker_for(90)
    assert findings()["calendar"].ok
    tick(40_000)
    assert findings()["calendar"].ok
    worker_for(130)
    assert not findings()["calendar"].ok


def test_a_calendar_without_a_worker_to_run_it_is_the_workers_finding(
    throughline: Type, worker_for: Callable[[float], None]
) -> None:
    worker_for(1000)
    tick(900)
    with db.transaction() as session:
        session.execute(Worker.__table__.update().values(beat_at=NOW - seconds(60)))
    assert findings()["calendar"].ok


def test_messages_that_wait_are_counted(throughline: Type, redis_server: services.Redis) -> None:
    queue._counter().delete(*queue.KEYS)
    for name in queue.KEYS[:2]:
        queue._counter().rpush(name, "message")
    try:
        assert findings()["Redis"].detail == "2 messages waiting"
    finally:
        queue._counter().delete(*queue.KEYS)


def test_without_postgres_only_what_can_be_told_is_told(throughline: Type, no_postgres: None) -> None:
    found = findings()
    assert list(found) == ["environment", "Postgres", "Redis"]
    assert not found["Postgres"].ok


def test_an_unusable_environment_is_the_only_finding_and_names_the_variable(
    throughline: Type, set_settings: Callable[..., None]
) -> None:
    set_settings(SWEEP_SECONDS="never")
    found = findings()
    assert list(found) == ["environment"]
    assert "SWEEP_SECONDS" in found["environment"].detail


def test_a_line_that_is_off_is_told_and_nothing_wrong(
    throughline: Type, set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRAVEL_PAY_URL", "NOTIFY_URL", "MDG_URL", "IMOVO_URL"):
        set_settings(**{name: ""})
    assert config.settings().travel_pay is None
    assert findings()["lines"].ok
    assert "none is on" in findings()["lines"].detail


def test_migrating_brings_the_schema_to_its_newest_version(throughline: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda level: None)  # it is for a process of its own
    migrated = throughline("migrate")
    assert migrated.exit_code == 0
    assert "newest version" in migrated.stderr
    with db.transaction() as session:
        assert health.schema_version(session) == health.schema_head()
