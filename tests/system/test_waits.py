"""Clients that wait for claims leave threads of web to others."""

import threading
import time

import requests

from tests.declaration_payloads import payload
from tests.system.conftest import Installation, wait_for

THREADS, SECONDS = 4, 25


def test_many_who_wait_leave_health_and_payments_their_threads(installation: Installation) -> None:
    one = installation
    one.environment |= {"WEB_THREADS": str(THREADS), "VOUCHER_MAX_WAITING": "2"}
    web = f"http://127.0.0.1:{one.port}"
    headers = {"x-api-key": one.run("clients", "add", "passengers", "--scope", "declarations")}
    one.start_web()
    place = f"{web}/bc-passengers-declarations"
    submitted = requests.post(f"{place}/submit", json=payload(), headers=headers, timeout=60)
    assert submitted.status_code == 202, submitted.text

    waiting = [
        threading.Thread(target=one.post, args=(number,), kwargs={"headers": {"Prefer": f"wait={SECONDS}"}})
        for number in range(3 * THREADS)
    ]
    for caller in waiting:
        caller.start()
    accepted = "SELECT count(*) FROM workflows WHERE kind = 'claim'"
    wait_for(lambda: one.sql(accepted) >= THREADS, seconds=60, why="no claims are waited for")
    begun = time.monotonic()
    assert [requests.get(f"{web}/{name}", timeout=60).status_code for name in ("healthz", "readyz")] == [200, 200]
    paid = requests.post(f"{place}/update/{submitted.json()['_id']}", headers=headers, timeout=60)
    assert paid.status_code == 202, paid.text
    assert time.monotonic() - begun < SECONDS / 2, "answered only when others had ceased to wait"
    wait_for(lambda: sum(caller.is_alive() for caller in waiting) == THREADS // 2, seconds=SECONDS / 2)
    for caller in waiting:
        caller.join()
    assert one.sql(accepted) == 3 * THREADS
