"""`make rolling`: all processes are restarted in order again and again under load, and nobody notices.

As the runbook says: each of two web processes in turn is taken out of its balancer's rotation, ended with SIGTERM and
put back when `/readyz` is 200; new workers are started and the old ones then ended; so with the beats and Flower. The
callers may be refused a connection, as by a balancer's view that is a moment old, and ask again; any other trouble of
theirs fails, as does what fails in the storm. The upstreams go wrong as they do there.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import requests

from bench.installation import START_SECONDS, Installation, procfile, wait_for
from local import services
from tests.storm import entry, report
from tests.storm.callers import REFUSED
from tests.storm.trial import Trial

SECONDS, EVERY_SECONDS = 300.0, 20.0
WORKFLOWS = 20_000  # more than are asked for in that time
WEBS = 2
OTHERS = {"worker": 2, "beat": 2, "flower": 1}
REST_SECONDS = 20.0  # of each caller: three orders a second leave two cores the time for seven starts in 20 s
_DEREGISTERED_SECONDS = 1.0  # between the balancer's last request to an instance and its SIGTERM
_STARTED = {"worker": " ready.", "beat": "beat: Starting", "flower": "Visit me at"}
_END_SECONDS = 19.0  # what ended later was killed by `Installation.stop`


class Fleet:
    """The processes of each kind, and how they are replaced. Used by the main thread alone, which stays."""

    def __init__(self, trial: Trial) -> None:
        self._rotation, self._on = trial.rotation, trial.on
        self._number = 0
        self._webs: dict[str, str] = {}
        self._others: dict[str, list[str]] = {}
        self._ending = ThreadPoolExecutor(2 * (WEBS + sum(OTHERS.values())))
        self.restarted: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0

    def start(self) -> None:
        for _ in range(WEBS):
            self._start_web(f"http://127.0.0.1:{services.free_port()}")
        self._others = {kind: self._start(kind, number) for kind, number in OTHERS.items()}
        self._are_ready(self._others)

    def restart(self) -> None:
        """All of them; while the others' new ones start, one web process after the other."""
        new = {kind: self._start(kind, len(old)) for kind, old in self._others.items()}
        for url in list(self._webs):
            self._rotation.without(url)
            time.sleep(_DEREGISTERED_SECONDS)
            self._stop("web", self._webs.pop(url)).result()  # the new one needs its port
            self._start_web(url)
        self._are_ready(new)
        for kind, old in self._others.items():
            for name in old:
                self._stop(kind, name)
        self._others = new

    def rest(self) -> None:
        """Wait until all that were told to end have ended."""
        self._ending.shutdown()

    def look_after(self) -> None:
        """Nothing is to end by itself."""
        names = [*self._webs.values(), *(name for names in self._others.values() for name in names)]
        self.wrong = list(dict.fromkeys([*self.wrong, *(name for name in names if not self._on.runs(name))]))

    def _start_web(self, url: str) -> None:
        name, port = self._name("web"), url.rpartition(":")[2]
        self._on.start(name, ["/bin/sh", "-c", f"export PORT={port}; {procfile('web')}"])
        log = self._on.log(name)
        wait_for(lambda: _is_ready(url), seconds=START_SECONDS, why="web is ready", log=log, pause=0.1)
        self._webs[url] = name
        self._rotation.back(url)

    def _start(self, kind: str, number: int) -> list[str]:
        names = [self._name(kind) for _ in range(number)]
        for name in names:
            self._on.start(name, ["/bin/sh", "-c", f"export FLOWER_PORT={services.free_port()}; {procfile(kind)}"])
        return names

    def _are_ready(self, started: Mapping[str, Sequence[str]]) -> None:
        for kind, names in started.items():
            for name in names:
                log = self._on.log(name)
                says = partial(_says, log, _STARTED[kind])
                wait_for(says, seconds=START_SECONDS, why=f"{name} is ready", log=log, pause=0.1)

    def _stop(self, kind: str, name: str) -> "Future[None]":
        self.restarted[kind] += 1
        return self._ending.submit(self._stopped, name)

    def _stopped(self, name: str) -> None:
        begun = time.monotonic()
        self._on.stop(name)
        took = time.monotonic() - begun
        self.slowest = max(self.slowest, took)
        if took > _END_SECONDS:
            self.wrong.append(f"{name}, which did not end after SIGTERM")

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number}"


def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).ok
    except requests.RequestException:
        return False


def rolling(on: Installation, asked: argparse.Namespace) -> int:
    """Restarts for SECONDS; 0 if nobody noticed."""
    say = entry.Clock()
    trial = Trial(on, asked.seed, asked.workflows, say, at=[], rest=REST_SECONDS)
    fleet = Fleet(trial)
    try:
        trial.prepare()
        fleet.start()
        begun = time.monotonic()
        trial.begin()
        while (now := time.monotonic() - begun) < SECONDS and not trial.pace.stuck:
            time.sleep(EVERY_SECONDS - now % EVERY_SECONDS)  # a round that takes longer skips a turn
            fleet.look_after()
            fleet.restart()
            say(f"restarted: {report.counted(fleet.restarted)}")
        fleet.rest()
        trial.settle(fleet.look_after)
        report.figures(entry.console, trial, time.monotonic() - begun)
        restarted = report.counted(fleet.restarted)
        entry.console.print(f"restarted: {restarted}; the slowest needed {fleet.slowest:.1f} s to end")
        return int(report.judged(entry.console, trial, fleet.wrong) or _noticed(trial.callers.troubles))
    finally:
        trial.end()


def _noticed(troubles: Mapping[str, int]) -> bool:
    found = {what: number for what, number in troubles.items() if what != REFUSED}
    if found:
        entry.console.print(f"[bold red]callers noticed:[/] {report.counted(found)}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(entry.main("python -m tests.storm.rolling", rolling, workflows=WORKFLOWS))
