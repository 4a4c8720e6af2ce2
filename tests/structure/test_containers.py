"""The containers are the processes of the Procfile, and what each counts can be collected."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.structure.conftest import ROOT, run

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROCESSES = [line.split(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()]


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_has_a_container(name: str) -> None:
    assert SERVICES[name]["command"] == name


def test_a_container_that_starts_again_counts_nothing_of_dead_processes(tmp_path: Path) -> None:
    (tmp_path / "gauge_livesum_7.db").touch()
    found = re.search(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert found
    told = run([*json.loads(found[1]), "nothing"], {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
    assert told.returncode == 2, "no process has this name"
    assert told.stderr.startswith("usage: local/run ")


def test_a_workers_metrics_are_offered_to_its_network_where_the_runbook_says() -> None:
    port = SERVICES["worker"]["environment"]["METRICS_PORT"]
    assert SERVICES["worker"]["expose"] == [port]
    assert f"`http://worker:{port}/metrics`" in (ROOT / "docs" / "runbook.md").read_text()
