"""What all tests share: a Postgres, a Redis, the sandbox, settings, and empty tables before each test."""

import base64
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from app import config, db, queue
from app.flows import worker
from app.models.orm import Table
from app.upstreams import shared
from local import services
from sandbox import Sandbox

KEYS = {
    name: base64.b64encode(name.encode().ljust(32, b".")).decode() for name in ("DATA_KEYS", "HASH_KEY", "SECRET_KEY")
}


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Postgres]:
    with services.Postgres(_folder(tmp_path_factory, "postgres"), fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Redis]:
    with services.Redis(_folder(tmp_path_factory, "redis")) as server:
        yield server


def _folder(factory: pytest.TempPathFactory, name: str) -> Path:
    folder = factory.mktemp(name)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # Postgres runs as another user when the tests run as root
    return folder


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as upstreams:
        yield upstreams


@pytest.fixture(scope="session")
def environment(
    postgres: services.Postgres, redis_server: services.Redis, sandbox: Sandbox
) -> Iterator[dict[str, str]]:
    """The environment of a whole installation against the test servers; set for the rest of the session."""
    variables = {
        "DATABASE_URL": postgres.url,
        "REDIS_URL": redis_server.url,
        "RELEASE": "test",
        "TRAVEL_PAY_RATE_PER_MINUTE": "0",
        **KEYS,
        **sandbox.environment(),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for module, limit in ((queue, "GIVE_UP_SECONDS"), (shared, "_SECONDS")):
            patch.setattr(module, limit, 2.0)  # on a busy machine a Redis may be late without being away
        config.settings.cache_clear()
        yield variables
        db.close()
    config.settings.cache_clear()


@pytest.fixture(scope="session")
def schema(environment: dict[str, str]) -> None:
    """The schema as the migrations build it."""
    command.upgrade(Config(str(Path(__file__).parents[1] / "alembic.ini")), "head")


@pytest.fixture(autouse=True)
def no_log_context() -> None:
    """What an earlier test bound to the log records of this thread is gone."""
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def database(schema: None) -> None:
    """Empty tables; real commits. Worker identity included: this process holds leases as a living worker."""
    names = ", ".join(table.name for table in Table.metadata.sorted_tables)
    with db.transaction() as session:
        session.execute(text(f"TRUNCATE {names} CASCADE"))
    worker.beat()


@pytest.fixture(autouse=True)
def heard_all_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's heartbeats have always got through, so that it may take others for dead."""
    monkeypatch.setattr(worker.pulse, "seconds", lambda: math.inf)


@pytest.fixture
def upstreams(sandbox: Sandbox) -> Sandbox:
    """The sandbox with nothing in it and no faults set."""
    sandbox.reset()
    return sandbox


@pytest.fixture
def set_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Change variables for one test: `set_settings(TRAVEL_PAY_MAX_ATTEMPTS=2)`."""

    def change(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        config.settings.cache_clear()
        worker.release.cache_clear()

    yield change
    monkeypatch.undo()
    config.settings.cache_clear()
    worker.release.cache_clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of crash points (tests/crash), if they were tried."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    rows = [value for report in reports for name, value in report.user_properties if name == "crash points"]
    if rows:
        terminalreporter.section("crash points")
        terminalreporter.line(f"{'a worker of':<36}{'':<12}{'points':>8}{'tries':>8}{'right':>8}{'wrong':>8}")
    for scenario, how, points, tries, wrong in sorted(rows):
        terminalreporter.line(f"{scenario:<36}{how:<12}{points:>8}{tries:>8}{tries - wrong:>8}{wrong:>8}")
