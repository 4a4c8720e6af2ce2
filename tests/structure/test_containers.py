"""The containers are the processes of the Procfile, and what each counts can be collected."""

from typing import Any

import pytest
import yaml

from tests.structure.conftest import ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROCESSES = [line.split(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()]
METRICS = "/app/metrics"  # PROMETHEUS_MULTIPROC_DIR of the image


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_has_a_container_whose_metrics_begin_empty(name: str) -> None:
    assert SERVICES[name]["command"] == name
    assert f"PROMETHEUS_MULTIPROC_DIR={METRICS}" in (ROOT / "Dockerfile").read_text()
    assert SERVICES[name]["tmpfs"] == METRICS


def test_a_workers_metrics_are_offered_to_its_network_where_the_runbook_says() -> None:
    port = SERVICES["worker"]["environment"]["METRICS_PORT"]
    assert SERVICES["worker"]["expose"] == [port]
    assert f"`http://worker:{port}/metrics`" in (ROOT / "docs" / "runbook.md").read_text()
