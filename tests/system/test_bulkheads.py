"""A line whose upstream hangs leaves the others alone."""

import requests

from tests.declaration_payloads import payload
from tests.system.conftest import Installation, wait_for

PLACE = "/bc-passengers-declarations"
THREADS, SECONDS = 4, 100


def test_a_line_whose_upstream_hangs_leaves_the_others_alone(installation: Installation) -> None:
    one = installation
    limits = {"TRAVEL_PAY_READ_TIMEOUT": str(SECONDS + 2), "TRAVEL_PAY_SETTLE_SECONDS": str(SECONDS + 6)}
    one.environment |= {"WORKER_CONCURRENCY": str(THREADS), **limits}
    key = one.run("clients", "add", "passengers", "--scope", "declarations")
    one.start_web()
    one.start_worker()
    one.sandbox.fault("find-or-add", "delay", seconds=SECONDS)
    for number in range(3 * THREADS):
        assert one.post(number, body={"phone": None}).status_code == 202

    def hung() -> int:
        return sum(call["status"] is None for call in one.sandbox.calls(call="find-or-add"))

    wait_for(lambda: hung() == THREADS, seconds=60, why="not every thread of the line hangs")
    _declare_and_pay(one, key)
    wait_for(lambda: one.sandbox.ledger()["declarations"], seconds=SECONDS, why="the declaration waits for claims")
    assert hung() == THREADS, "the claims were through before the declaration was sent: nothing was tried"
    one.sandbox.reset()  # who hangs is dropped
    one.all_finished()
    assert one.effects()["submissions"] == (3 * THREADS, 0)


def _declare_and_pay(one: Installation, key: str) -> None:
    url, headers = f"http://127.0.0.1:{one.port}{PLACE}", {"x-api-key": key, "X-Correlation-ID": "a-traveller"}
    submitted = requests.post(f"{url}/submit", json=payload(), headers=headers, timeout=60)
    assert submitted.status_code == 202, submitted.text
    paid = requests.post(f"{url}/update/{submitted.json()['_id']}", headers=headers, timeout=60)
    assert paid.status_code == 202, paid.text
