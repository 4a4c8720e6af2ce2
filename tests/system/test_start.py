"""What is missing stops a process at its start, in words that name the variable."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

from tests.system.conftest import ROOT, Installation

CASES = [
    ("web", "HASH_KEY"),
    ("worker", "TRAVEL_PAY_RESOURCE"),
    ("beat", "SECRET_KEY"),
    ("flower", "DATA_KEYS"),
    ("web", "TRAVEL_PAY_PCI_SECRET"),  # a client has this product
    ("worker", "NOTIFY_TEMPLATE_PCI_ERROR"),
]


def test_a_missing_variable_is_named_in_one_message_and_nothing_starts(installation: Installation) -> None:
    def started(case: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        process, variable = case
        environment = {name: value for name, value in installation.environment.items() if name != variable}
        return subprocess.run(
            [ROOT / "local/run", process],
            env={**environment, "FLOWER_BASIC_AUTH": "a:b", "FLOWER_PORT": str(installation.port + 1)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        for (process, variable), told in zip(CASES, pool.map(started, CASES), strict=True):
            assert told.returncode != 0, process
            assert f"{variable} is missing" in told.stdout, told.stdout
            assert "Traceback" not in told.stdout
