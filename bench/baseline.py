"""What Celery alone costs here: chains of five tasks that do nothing, with the worker's own settings and no database.

`celery -A bench.baseline worker` runs them; `python -m bench.baseline backlog N` sends N chains and returns,
`python -m bench.baseline idle N` sends one after the other and prints the seconds that each took, as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, signals

from tasks.celery import app as ours

TASKS = 5
GIVE_UP_SECONDS = 20.0

# Importing our Celery app connects its worker's life to these signals; a plain worker has none.
for _signal in (
    signals.setup_logging,
    signals.worker_init,
    signals.worker_ready,
    signals.worker_shutting_down,
    signals.worker_shutdown,
):
    _signal.receivers = []

app = Celery("baseline", set_as_current=True)
_settings: dict[str, Any] = ours.conf.changes or {}
app.conf.update({name: value for name, value in _settings.items() if name not in {"imports", "beat_schedule"}})


def ends() -> Path:
    """The file to which each chain that has ended adds its moment, as a line of seconds since the epoch."""
    return Path(os.environ["BENCH_ENDS"])


@app.task(name="bench.add")
def add(number: int) -> int:
    """One more; the last task of a chain writes down when it ran."""
    if number + 1 == TASKS:
        with ends().open("a") as file:
            file.write(f"{time.time()}\n")
    return number + 1


def _send() -> None:
    chain(add.s(0), *(add.s() for _ in range(TASKS - 1)), app=app).apply_async(retry=False)


def _idle_seconds() -> float:
    """How long one chain takes while nothing else runs."""
    before, begun = len(ends().read_text().split()), time.time()
    _send()
    while len(stamps := ends().read_text().split()) == before:
        if time.time() - begun > GIVE_UP_SECONDS:
            sys.exit("baseline: a chain did not end")
        time.sleep(0.001)
    return float(stamps[-1]) - begun


def main() -> None:
    mode, number = sys.argv[1], int(sys.argv[2])
    if mode == "backlog":
        for _ in range(number):
            _send()
    else:
        print(json.dumps([_idle_seconds() for _ in range(number)]))


if __name__ == "__main__":
    main()
