"""Every metric of the contract has its name and labels, and processes add up."""

import os
import subprocess
import sys

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from app import metrics

CONTRACT = {
    "claims_accepted_total": ["product"],
    "claims_refused_total": ["product", "code"],
    "claims_outcome_total": ["product", "outcome"],
    "claims_step_total": ["product", "step", "outcome"],
    "claims_step_errors_total": ["product", "step", "error_type", "source"],
    "claims_step_seconds": ["product", "step", "verb"],
    "claims_in_doubt_total": ["product", "step", "result"],
    "claims_rollback_total": ["product", "result"],
    "claims_veis_mints_total": ["product"],
    "claims_token_renewals_total": ["product", "kind", "reason"],
    "claims_notify_total": ["product", "template", "result"],
    "claims_notify_receipts_total": ["product", "status", "known"],
    "claims_callbacks_total": ["product", "result"],
    "silent_failure_total": ["service", "function"],
    "claims_state": ["product", "state"],
    "claims_oldest_due_seconds": ["product", "state"],
}


@pytest.mark.parametrize("name", CONTRACT)
def test_a_metric_of_the_contract_has_its_name_and_labels(name):
    found = REGISTRY._names_to_collectors[name]
    assert list(found._labelnames) == CONTRACT[name]


def test_the_exposition_can_be_parsed():
    metrics.silent_failure.labels("check-in", "CheckIn Travel Pay Notification Failure").inc()
    text, kind = metrics.render()
    families = {family.name for family in text_string_to_metric_families(text.decode())}
    assert {"silent_failure", "claims_step_seconds"} <= families
    assert kind.startswith("text/plain")


WRITER = """
import sys
from app import metrics
metrics.claims_accepted.labels("pci").inc(int(sys.argv[1]))
metrics.claims_state.labels("pci", "accepted").set(int(sys.argv[1]))
metrics.claims_step_seconds.labels("pci", "authorize", "do").observe(0.3)
"""


def test_processes_of_a_host_add_up_and_gauges_show_the_latest(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for number in ("2", "5"):
        subprocess.run([sys.executable, "-c", WRITER, number], env=environment, check=True)
    read = "from app import metrics; print(metrics.render()[0].decode())"
    done = subprocess.run([sys.executable, "-c", read], env=environment, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert 'claims_accepted_total{product="pci"} 7.0' in lines
    assert 'claims_state{product="pci",state="accepted"} 5.0' in lines
    assert 'claims_step_seconds_count{product="pci",step="authorize",verb="do"} 2.0' in lines
