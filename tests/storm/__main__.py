"""`make storm`: everything goes wrong at once, and afterwards all is counted. SEED makes the same choices again.

Real processes: web, three workers, two beats, the sandbox, Postgres with fsync on, Redis. Callers of all three lines
place orders through the API, so many at a time, while workers are killed and stopped, Redis is killed and flushed,
Postgres is restarted, messages are lost and doubled, and every fifth call of an upstream goes wrong; this goes on until
the last order is placed. 0: nothing was lost, nothing is there twice; 1: something was; 2: it could not be tried.
"""

import argparse
import random
import sys
import time

from bench.installation import Installation
from tests.storm import disasters, entry, report
from tests.storm.disasters import Processes
from tests.storm.trial import Trial

WORKFLOWS = 2_000


def storm(on: Installation, asked: argparse.Namespace) -> int:
    """One storm over one installation; 0 if nothing is wrong afterwards."""
    say = entry.Clock()
    trial = Trial(on, asked.seed, asked.workflows, say, at=[f"http://127.0.0.1:{on.at.web}"])
    processes = Processes(on, say)
    try:
        trial.prepare()
        processes.start()
        begun = time.monotonic()
        trial.begin()
        for disaster in disasters.chosen(random.Random(trial.dice.getrandbits(32))):
            if not trial.goes_on:
                break
            processes.strike(disaster)
        trial.settle(processes.look_after)
        report.figures(entry.console, trial, time.monotonic() - begun)
        return _judge(trial, processes)
    finally:
        trial.end()
        processes.end()


def _judge(trial: Trial, processes: Processes) -> int:
    console = entry.console
    console.print(f"disasters: {report.counted(processes.struck)}; messages: {report.counted(processes.messages)}")
    report.recovered(console, trial.on, processes.recovery)
    wrong = report.judged(console, trial, processes.ended)
    return int(wrong or bool(processes.recovery.too_slow))


if __name__ == "__main__":
    sys.exit(entry.main("python -m tests.storm", storm, workflows=WORKFLOWS))
