"""What goes over the broker, and how soon somebody gives up on it. Against a real Redis."""

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from app import errors, queue
from app.models.orm import new_id
from app.queue import Rank
from local import services

TASKS = ["claims.authorize", "claims.find_appointment", "claims.create_claim"]
NEW = queue.key("claim", Rank.NEW)
SOON = 0.5
GIVE_UP_SECONDS = queue.GIVE_UP_SECONDS  # the product's own; under test it is more patient
IN_TIME = 30.0  # seconds: a broker that is silent stays so for good
KNOWN = "a moment ago"  # what is said where nobody asks the broker again


@pytest.fixture(autouse=True)
def broker(
    environment: dict[str, str], redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[redis.Redis]:
    """An empty broker that nobody thinks is away."""
    redis_server.start()
    monkeypatch.setitem(queue._away, "until", 0.0)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["gone", "silent"])
def away(request: pytest.FixtureRequest, broker: redis.Redis, redis_server: services.Redis) -> Iterator[None]:
    """The broker after it was used: its port closed, or nobody reading behind it."""
    queue.room()
    queue.send("claim", TASKS, new_id(), Rank.NEW)
    if request.param == "gone":
        redis_server.kill()
        yield
        redis_server.start()
    else:
        os.kill(redis_server.pid, signal.SIGSTOP)
        yield
        os.kill(redis_server.pid, signal.SIGCONT)


def messages(broker: redis.Redis, name: str) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in broker.lrange(name, 0, -1)]


def strings(value: Any) -> Iterator[str]:
    """Every string in it that is not the name of a member."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("rank", Rank)
def test_a_chain_is_one_message_in_the_queue_of_its_kind_and_rank(broker: redis.Redis, rank: Rank) -> None:
    queue.send("claim", TASKS, new_id(), rank)
    assert {name: number for name, number in queue.waiting().items() if number} == {queue.key("claim", rank): 1}


def test_a_worker_reads_first_what_is_waited_for_then_what_is_begun(broker: redis.Redis) -> None:
    for rank in reversed(Rank):
        queue.send("claim", TASKS, new_id(), rank)
    assert [name for name in queue.KEYS if broker.llen(name)] == [queue.key("claim", rank) for rank in Rank]


@pytest.mark.parametrize(("rank", "then"), [(Rank.WAITED_FOR, 0), (Rank.BEGUN, 3), (Rank.NEW, 3)])
def test_what_follows_the_first_step_is_begun(broker: redis.Redis, rank: Rank, then: int) -> None:
    queue.send("claim", TASKS, new_id(), rank)
    message = messages(broker, queue.key("claim", rank))[0]
    chained = json.loads(base64.b64decode(message["body"]))[2]["chain"]
    assert [link["options"]["priority"] for link in chained] == [then, then]


def test_a_message_names_the_steps_and_holds_the_id_alone(broker: redis.Redis) -> None:
    workflow = new_id()
    queue.send("claim", TASKS, workflow, Rank.NEW)
    message = messages(broker, NEW)[0]
    arguments, keywords, rest = json.loads(base64.b64decode(message["body"]))
    assert (message["content-type"], message["headers"]["task"]) == ("application/json", TASKS[0])
    assert (arguments, keywords) == ([str(workflow)], {})
    chained = [(link["task"], link["args"], link["kwargs"], link["immutable"]) for link in reversed(rest["chain"])]
    assert chained == [(task, [str(workflow)], {}, True) for task in TASKS[1:]]
    assert {link["options"]["queue"] for link in rest["chain"]} == {"claim"}
    assert (message["headers"]["argsrepr"], message["headers"]["kwargsrepr"]) == (f"('{workflow}',)", "{}")
    assert (message["headers"]["eta"], message["headers"]["expires"]) == (None, None)


def test_nothing_on_the_wire_is_longer_than_a_name_or_an_id(broker: redis.Redis) -> None:
    """No data could hide in it: every string but the body is short, and so is every string in the body."""
    queue.send("claim", TASKS, new_id(), Rank.NEW)
    message = messages(broker, NEW)[0]
    del message["headers"]["origin"]  # the sender's own process and host
    message["body"] = json.loads(base64.b64decode(message["body"]))
    assert max(map(len, strings(message))) <= 64


def test_the_last_step_alone_is_sent_without_a_chain(broker: redis.Redis) -> None:
    queue.send("claim", TASKS[-1:], new_id(), Rank.NEW)
    body = json.loads(base64.b64decode(messages(broker, NEW)[0]["body"]))
    assert body[2]["chain"] in (None, [])


def test_room_counts_what_waits_in_each_queue(broker: redis.Redis) -> None:
    for rank in (Rank.WAITED_FOR, Rank.NEW, Rank.BEGUN):
        queue.send("claim", TASKS, new_id(), rank)
    left = {place: queue.MOST_WAITING - room for place, room in queue.room().items()}
    assert {place: number for place, number in left.items() if number} == {("claim", 0): 1, ("claim", 1): 2}


def test_the_time_after_which_it_is_given_up_is_short() -> None:
    assert GIVE_UP_SECONDS < SOON


def test_a_broker_that_is_away_is_given_up_after_its_time_and_then_at_once(
    away: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_AWAY_SECONDS", 60.0)
    begun = time.monotonic()
    with pytest.raises(errors.BrokerAway) as first:
        queue.send("claim", TASKS, new_id(), Rank.NEW)
    assert KNOWN not in str(first.value)
    assert time.monotonic() - begun < IN_TIME
    with pytest.raises(errors.BrokerAway, match=KNOWN):
        queue.send("claim", TASKS, new_id(), Rank.NEW)


def test_room_gives_up_on_a_broker_that_is_away(away: None) -> None:
    begun = time.monotonic()
    with pytest.raises(errors.BrokerAway):
        queue.room()
    assert time.monotonic() - begun < IN_TIME


def test_a_broker_that_is_back_is_used_again_after_a_second(
    broker: redis.Redis, redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.kill()
    begun = time.monotonic()
    with pytest.raises(errors.BrokerAway):
        queue.send("claim", TASKS, new_id(), Rank.NEW)
    redis_server.start()
    assert begun < queue._away["until"] <= time.monotonic() + 1
    monkeypatch.setitem(queue._away, "until", time.monotonic())
    queue.send("claim", TASKS, new_id(), Rank.NEW)
    assert len(messages(broker, NEW)) == 1


def test_what_was_sent_before_the_broker_lost_everything_is_not_needed(broker: redis.Redis) -> None:
    queue.send("claim", TASKS, new_id(), Rank.NEW)
    broker.flushall()
    assert set(queue.room().values()) == {queue.MOST_WAITING}
    queue.send("claim", TASKS, new_id(), Rank.NEW)
    assert queue.room()["claim", 1] == queue.MOST_WAITING - 1


def test_a_full_queue_is_noticed_within_a_fifth_of_a_second(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = queue._Counted()
    monkeypatch.setattr(queue, "MOST_WAITING", 1)
    assert counted.has_room("claim")
    queue.send("claim", TASKS, new_id(), Rank.NEW)
    counted._until = time.monotonic()
    assert [counted.has_room(kind) for kind in ("claim", "declaration")] == [False, True]


def test_who_asks_for_room_does_not_wait_again_for_a_broker_that_is_away(
    away: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_AWAY_SECONDS", 60.0)
    counted = queue._Counted()
    with pytest.raises(errors.BrokerAway):
        counted.has_room("claim")
    with pytest.raises(errors.BrokerAway, match=KNOWN):
        counted.has_room("claim")
