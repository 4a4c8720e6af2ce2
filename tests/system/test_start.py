"""What is missing stops a process at its start, in words that name the variable, or what has to be run first."""

import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.system.conftest import ROOT, Installation

CASES = [
    ("web", "HASH_KEY"),
    ("worker", "TRAVEL_PAY_RESOURCE"),
    ("beat", "SECRET_KEY"),
    ("flower", "DATA_KEYS"),
    ("web", "TRAVEL_PAY_PCI_SECRET"),  # a client has this product
    ("worker", "NOTIFY_TEMPLATE_PCI_ERROR"),
]


def started(process: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "local/run", process],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_missing_variable_is_named_in_one_message_and_nothing_starts(installation: Installation) -> None:
    def without(case: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        process, variable = case
        environment = {name: value for name, value in installation.environment.items() if name != variable}
        flower = {"FLOWER_BASIC_AUTH": "a:b", "FLOWER_PORT": str(installation.port + 1)}
        return started(process, {**environment, **flower})

    with ThreadPoolExecutor(2) as pool:
        for (process, variable), told in zip(CASES, pool.map(without, CASES), strict=True):
            assert told.returncode != 0, process
            assert f"{variable} is missing" in told.stdout, told.stdout
            assert "Traceback" not in told.stdout


def test_before_the_schema_is_there_nothing_starts_and_one_message_says_so(installation: Installation) -> None:
    with psycopg.connect(installation.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
    environment = {**installation.environment, "DATABASE_URL": installation.postgres.url_of("bare")}
    for process in ("web", "worker"):
        told = started(process, environment)
        assert told.returncode != 0, process
        assert "run `throughline migrate`" in told.stdout.splitlines()[-1], told.stdout
        assert "Traceback" not in told.stdout
