"""Redis gone for good: claims are accepted and finished, and the queue is used again once it is back."""

import time

from tests.system.conftest import Installation, wait_for

CLAIMS = 3
NO_TEXT = {"phone": None}


def test_without_redis_a_worker_takes_due_work_from_postgres_until_redis_returns(installation: Installation) -> None:
    one = installation
    one.environment["REDISPATCH_SECONDS"] = "2"  # a message that could not be sent costs that much; less of it to wait
    one.start_web()
    one.start_worker()
    one.redis.kill()
    assert {one.post(number, body=NO_TEXT).status_code for number in range(CLAIMS)} == {202}
    one.all_finished()
    assert one.effects()["submissions"] == (CLAIMS, 0)
    assert not _is_queue_used(one)
    one.redis.start()
    assert one.post(CLAIMS, body=NO_TEXT).status_code == 202
    wait_for(lambda: _is_queue_used(one), seconds=100, why="the queue is not used again")
    one.all_finished()
    assert one.effects()["submissions"] == (CLAIMS + 1, 0)


def test_a_worker_in_the_midst_of_calls_outlives_redis(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.start_worker()
    one.sandbox.fault("*", "delay", seconds=1)
    assert {one.post(number, body=NO_TEXT).status_code for number in range(8)} == {202}
    wait_for(lambda: one.sql("SELECT count(*) FROM workflows WHERE in_doubt"), seconds=60, why="no call is under way")
    one.redis.kill()
    one.sandbox.clear_faults()
    time.sleep(1.5)  # the calls end, and want to be acknowledged
    one.redis.start()
    one.all_finished()
    assert one.processes["worker"].poll() is None, "the worker has ended"


def test_a_worker_that_starts_without_redis_works(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.redis.kill()
    one.start("worker")
    assert one.post(0, body=NO_TEXT).status_code == 202
    one.all_finished()
    assert one.effects()["submissions"] == (1, 0)


def _is_queue_used(one: Installation) -> bool:
    """Whether a step has come to the worker as a message."""
    return "Task claims.authorize[" in one.log("worker")
