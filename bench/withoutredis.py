"""Claims per second with Redis, without it, and when it is back; and whether they are accepted all the while."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import filling, load
from bench.clients import Client
from bench.installation import BenchFailed, Installation
from bench.targets import Row

BACKLOG = 4_000
SETTLE_SECONDS, WINDOW_SECONDS, BACK_AFTER_SECONDS = 10.0, 12.0, 20.0
HALF, BACK, SLOWER = 0.5, 0.8, 2
POST_EVERY_SECONDS = 0.5
_UNFINISHED = "SELECT count(*) FROM workflows WHERE kind = 'claim' AND finished_at IS NULL"
_FINISHED = "SELECT count(*) FROM workflows WHERE kind = 'claim' AND finished_at > to_timestamp(%s)"


def redis_gone(on: Installation) -> list[Row]:
    """(e) Claims per second out of a backlog: with Redis, without it, and when it is back; and what accepting costs."""
    theirs, ours = Client(on, "theirs"), Client(on, "ours")
    on.stop("worker")
    filling.fill(on, theirs, BACKLOG)
    on.start_worker("worker")
    time.sleep(SETTLE_SECONDS)
    with _posting(ours) as latencies:
        there = _per_second(on)
        before = len(latencies)
        on.redis.kill()
        time.sleep(SETTLE_SECONDS)
        gone = _per_second(on)
        after = len(latencies)
        on.redis.start()
        time.sleep(BACK_AFTER_SECONDS)
        again = _per_second(on)
    if on.sql(_UNFINISHED) == 0:
        raise BenchFailed("the backlog ended before the measurement did")
    alone, without = latencies[:before], latencies[before:after]
    slow = statistics.median(without) / statistics.median(alone)
    return [
        _rate("Redis gone for 10 s: claims per second", gone, there, HALF),
        _rate("Redis back for 20 s: claims per second", again, there, BACK),
        Row(name=f"Redis gone: {len(without)} POSTs, all 202; median", ratio=slow, most=SLOWER,
            value=f"{1000 * statistics.median(without):.0f} ms", base=f"{1000 * statistics.median(alone):.0f} ms"),
        Row(name="Redis gone: POST, worst", value=f"{max(without):.2f} s", base="1 s", ratio=max(without), most=1),
    ]  # fmt: skip


def _per_second(on: Installation) -> float:
    begun = time.time()
    time.sleep(WINDOW_SECONDS)
    return float(on.sql(_FINISHED, begun)) / (time.time() - begun)


def _rate(name: str, ours: float, base: float, least: float) -> Row:
    return Row(name=name, value=f"{ours:.1f}", base=f"{base:.1f}", ratio=ours / base, least=least)


@contextmanager
def _posting(client: Client) -> Iterator[list[float]]:
    """One claim after the other, all the while. Raises WrongAnswer at the end, if one was not answered 202."""
    latencies: list[float] = []
    faults: list[Exception] = []
    over = threading.Event()

    def post() -> None:
        try:
            while not over.wait(POST_EVERY_SECONDS):
                latencies.extend(client.posts(1))
        except (load.WrongAnswer, OSError) as fault:
            faults.append(fault)

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield latencies
    finally:
        over.set()
        thread.join()
    if faults:
        raise faults[0]
