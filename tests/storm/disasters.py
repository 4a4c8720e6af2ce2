"""What happens to the processes, one thing after the other, as chosen beforehand."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import redis

from app import queue
from bench.installation import START_SECONDS, Installation, procfile, wait_for
from tests.storm.recovery import Recovery

WORKERS, BEATS = 3, 2
_BAG = ("kill", "kill", "kill", "all", "stop", "redis", "flush", "postgres", "messages", "web")
_QUEUE_SECONDS = 0.2
_END, _MOST_SAID = '"critical"', 200


@dataclass(frozen=True, kw_only=True)
class Disaster:
    """`after` so many seconds of peace; `which` of the workers (0 to 1); `seconds` it lasts, where it does."""

    kind: str
    after: float
    which: float
    seconds: float
    seed: int


def chosen(dice: random.Random) -> Iterator[Disaster]:
    """Without end, one in some 8 s, what it lasts included: every kind comes once before any comes anew, killed workers
    most, often with time to recover."""
    after = 1.0
    while True:
        for kind in dice.sample(_BAG, len(_BAG)):
            seconds = dice.uniform(5.5, 8.0) if kind == "stop" else dice.uniform(0.5, 3.0)  # beyond LEASE_DEAD_SECONDS
            yield Disaster(kind=kind, after=after, which=dice.random(), seconds=seconds, seed=dice.getrandbits(32))
            after = dice.uniform(6.0, 12.0) if kind == "kill" else dice.uniform(3.0, 8.0)


class Processes:
    """The web process, workers and beats, and what befalls them.

    Used by the main thread alone, which stays: the servers end with the thread that started them.
    """

    def __init__(self, on: Installation, say: Callable[[str], None]) -> None:
        self._on, self._say = on, say
        self.workers: list[str] = []
        self.struck: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.ended: list[str] = []
        self.recovery = Recovery(on.postgres.url)
        self._started = 0
        self._kinds: Mapping[str, Callable[[Disaster], None]] = {
            "kill": self._kill_one,
            "all": self._kill_all,
            "stop": self._stop,
            "redis": self._redis,
            "flush": self._flush,
            "postgres": self._postgres,
            "messages": self._messages,
            "web": self._web,
        }

    def start(self) -> None:
        """Web, workers and beats, all of them ready."""
        for _ in range(WORKERS):
            self._start_worker()
        for number in range(BEATS):
            self._on.start(f"beat-{number}", ["/bin/sh", "-c", procfile("beat")])
        self._on.start_web()
        wait_for(lambda: all(map(self._is_ready, self.workers)), seconds=START_SECONDS, why="the workers are ready")

    def strike(self, disaster: Disaster) -> None:
        """Wait for its time, and let it happen; returns when it is over."""
        time.sleep(disaster.after)
        self.look_after()
        self.struck[disaster.kind] += 1
        self._kinds[disaster.kind](disaster)

    def look_after(self) -> None:
        """Start a worker for each that ended by itself, as whoever runs them does. None should have."""
        for name in [name for name in self.workers if not self._on.runs(name)]:
            said = [line for line in self._on.log(name).read_text(errors="replace").splitlines() if _END in line]
            self.ended.append(f"{name}: {said[-1][:_MOST_SAID] if said else 'its log does not say why'}")
            self._say(f"{name} has ended by itself")
            self._on.kill(name)
            self.workers.remove(name)
            self._start_worker()

    def end(self) -> None:
        """Kill what the storm started; nothing has to end in order."""
        self.recovery.end()
        for name in self.workers:
            self._on.kill(name)
        self.workers = []

    def _start_worker(self) -> None:
        self._started += 1
        name = f"worker-{self._started}"
        self._on.start(name, ["/bin/sh", "-c", procfile("worker")])
        self.workers.append(name)

    def _is_ready(self, name: str) -> bool:
        return " ready." in self._on.log(name).read_text(errors="replace")

    def _one(self, disaster: Disaster) -> str:
        return self.workers[int(disaster.which * len(self.workers))]

    def _kill_one(self, disaster: Disaster) -> None:
        self._kill(self._one(disaster))

    def _kill_all(self, _: Disaster) -> None:
        with self.recovery.outage():
            for name in list(self.workers):
                self._kill(name)
            wait_for(lambda: any(map(self._is_ready, self.workers)), seconds=START_SECONDS, why="a worker is ready")

    def _kill(self, name: str) -> None:
        pid, killed = self._on.pid(name), time.monotonic()
        self._say(f"{name} is killed")
        self._on.kill(name)
        self.workers.remove(name)
        self.recovery.watch(pid, killed)
        self._start_worker()

    def _stop(self, disaster: Disaster) -> None:
        name = self._one(disaster)
        self._say(f"{name} is stopped for {disaster.seconds:.1f} s")
        with self.recovery.stopped(self._on.pid(name)):
            os.killpg(self._on.pid(name), signal.SIGSTOP)
            try:
                time.sleep(disaster.seconds)
            finally:
                os.killpg(self._on.pid(name), signal.SIGCONT)

    def _redis(self, disaster: Disaster) -> None:
        self._say(f"Redis is killed, and back after {disaster.seconds:.1f} s")
        with self.recovery.outage():
            self._on.redis.kill()
            time.sleep(disaster.seconds)
            self._on.redis.start()

    def _flush(self, _: Disaster) -> None:
        self._say("Redis is flushed")
        with self.recovery.outage(), redis.Redis.from_url(self._on.redis.url) as client:
            client.flushall()

    def _postgres(self, _: Disaster) -> None:
        self._say("Postgres is restarted")
        with self.recovery.outage():
            self._on.postgres.restart_immediate()

    def _web(self, _: Disaster) -> None:
        self._say("the web process is killed")
        self._on.kill("web")
        self._on.start_web()

    def _messages(self, disaster: Disaster) -> None:
        """For a while messages are lost, doubled, or put behind all others."""
        dice, until, became = random.Random(disaster.seed), time.monotonic() + disaster.seconds, Counter[str]()
        with self.recovery.outage(), redis.Redis.from_url(self._on.redis.url) as client:
            while time.monotonic() < until:
                lists = dice.sample(queue.KEYS, len(queue.KEYS))  # read is the first that is not empty
                found = client.brpop(lists, timeout=_QUEUE_SECONDS)
                if found:
                    key, message = found
                    what = dice.choice(["lost", "doubled", "moved"]) if _is_ours(message) else "kept"
                    became[what] += 1
                    for _ in range({"lost": 0, "doubled": 2}.get(what, 1)):
                        client.lpush(key, message)
                time.sleep(0.02)
        self.messages += became
        said = ", ".join(f"{number} {what}" for what, number in became.items()) or "none met"
        self._say(f"messages for {disaster.seconds:.1f} s: {said}")


def _is_ours(message: bytes) -> bool:
    """Whether it is about a workflow; the clock's own messages come again by themselves much later."""
    return not str(json.loads(message)["headers"]["task"]).startswith("sweeps.")
