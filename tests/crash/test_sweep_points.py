"""The sweep dies, or stalls, at each of its boundaries while it takes a claim from the dead: the next one does it."""

import time
from collections.abc import Callable
from uuid import UUID

import pytest
import redis
from sqlalchemy import text

from app import boundaries, db, queue
from app.flows import sweep, worker
from local import services
from tests.crash.carrying import SILENCE
from tests.crash.conftest import STALL_SECONDS, Trial
from tests.crash.scenarios import SCENARIOS, Scenario

CLAIM = next(one for one in SCENARIOS if one.name == "claim")
SWEPT = [f"sweep: {one}" for one in (boundaries.WRITTEN, boundaries.WRITTEN, boundaries.COMMITTED)]
ROUNDS = 3
_LOST = text("UPDATE workflows SET wake_at = clock_timestamp() WHERE id = :id AND worker IS NULL")


def silence_others() -> None:
    with db.transaction() as session:
        session.execute(SILENCE, {"mine": worker.incarnation()})


@pytest.mark.parametrize("how", ["die", "stall"])
def test_the_sweep_may_end_anywhere(
    trial: Callable[[Scenario], Trial],
    redis_server: services.Redis,
    record_property: Callable[[str, object], None],
    how: str,
) -> None:
    tries = trial(CLAIM)
    for at, boundary in enumerate(SWEPT):
        claim, correlation = tries.dead(at=boundaries.INTENDED)
        silence_others()
        reached, _ = tries.parent.run(None, CLAIM.settings, at=at, how=how)
        assert reached == SWEPT[: at + 1]
        time.sleep(STALL_SECONDS if how == "stall" else 0)
        with redis.Redis.from_url(redis_server.url) as broker:
            _until_sent(claim, broker)
        tries.parent.go_on()
        tries.judge(f"{how} at {boundary!r}, number {at}", claim, correlation)
    record_property("crash points", ("sweep", f"{how}s", *tries.row()))
    assert tries.wrong == []


def _until_sent(claim: UUID, broker: redis.Redis) -> None:
    """Sweep, and let the time of a lost message pass, until there is a message for this claim."""
    for _ in range(ROUNDS):
        sweep.sweep()
        if any(str(claim).encode() in message for name in queue.KEYS for message in broker.lrange(name, 0, -1)):
            return
        with db.transaction() as session:
            session.execute(_LOST, {"id": claim})
    raise AssertionError("no sweep found it")
