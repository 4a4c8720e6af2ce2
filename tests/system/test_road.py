"""The road once, end to end, with real processes: nothing lost, nothing twice, whatever dies on the way."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor

import psycopg
import redis as redis_client
import requests

from tests.system.conftest import Installation, wait_for

STEPS = ("system-token", "find-or-add", "create-claim", "add-expense", "submit-claim")


def test_a_claim_travels_from_http_to_the_text_in_separate_tasks(installation: Installation) -> None:
    one = installation
    one.start("beat")
    one.start("flower", FLOWER_BASIC_AUTH="ann:secret", FLOWER_PORT=str(one.port + 1))
    one.start_web()
    one.start_worker()
    flower = f"http://127.0.0.1:{one.port + 1}"
    wait_for(lambda: "visit" in _text(flower) or "401" in _text(flower), seconds=100, why=one.log("flower")[-2_000:])
    answer = one.post(1, headers={"Prefer": "wait=20"})
    assert answer.status_code == 201
    assert answer.headers["Preference-Applied"] == "wait=20"
    claim = answer.json()
    assert (claim["state"], claim["final"], claim["status"]) == ("submitted", True, "ClaimSubmitted")
    wait_for(lambda: one.get(claim["id"])["text"]["state"] == "sent", seconds=100)
    one.each_once(1)
    steps = ["authorize", "find_appointment", "create_claim", "add_expenses", "submit_claim"]
    names = {*(f"claims.{step}" for step in steps), "notifications.send_text"}

    def seen() -> set[str]:
        tasks = requests.get(f"{flower}/api/tasks", auth=("ann", "secret"), timeout=60).json()
        return {task["name"] for task in tasks.values()}

    wait_for(lambda: names <= seen(), seconds=100, why="Flower does not see the steps as tasks")
    calls = one.sandbox.calls()
    assert {call["correlation_id"] for call in calls if call["call"] != "veis-token"} == {"visit-1"}
    shown = one.run("show", claim["id"])
    assert "expensed -> submitted" in shown
    one.end("worker", signal.SIGTERM)
    one.end("beat", signal.SIGTERM)


def _text(url: str) -> str:
    try:
        return str(requests.get(url, timeout=30).status_code)
    except requests.ConnectionError:
        return ""


def test_kill_9_of_the_worker_in_every_step_is_made_good_by_another(installation: Installation) -> None:
    one = installation
    one.environment |= {"TRAVEL_PAY_READ_TIMEOUT": "12", "TRAVEL_PAY_SETTLE_SECONDS": "16"}
    one.start_web()
    one.start_worker("first")
    for number, call in enumerate(STEPS):
        one.sandbox.fault(call, "delay", seconds=10, times=1, match={"correlation_id": f"visit-{number}"})
        assert one.post(number).status_code == 202

    def held() -> set[str]:
        return {call["call"] for call in one.sandbox.calls() if call["status"] is None}

    wait_for(lambda: held() == set(STEPS), seconds=60, why="not every call is in flight")
    one.start_worker("second")
    if held() != set(STEPS):  # the second worker was slow to start: nothing is in flight any more
        one.sandbox.clear_faults()
    one.end("first", signal.SIGKILL)
    query = "SELECT count(*) FROM moves WHERE reason = 'holder died'"
    wait_for(lambda: one.sql(query) > 0 or one.unfinished() == 0, seconds=40, why="nobody took over")
    one.all_finished()
    one.each_once(len(STEPS))


def test_flushed_redis_with_200_claims_under_way_loses_nothing_and_mints_once(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.start_worker()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one.post, range(200)))
    assert {answer.status_code for answer in answers} == {202}
    mints = len(wait_for(lambda: one.sandbox.calls(call="veis-token"), seconds=60))
    assert one.unfinished() > 0
    redis_client.Redis.from_url(one.redis.url).flushall()
    one.all_finished()
    one.each_once(200)
    assert mints == 1


def test_redis_stopped_claims_are_accepted_and_finish(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.start_worker()
    one.redis.kill()
    answers = [one.post(number) for number in range(5)]
    assert {answer.status_code for answer in answers} == {202}
    one.redis.start()
    one.all_finished()
    one.each_once(5)
    assert one.post(6, headers={"Prefer": "wait=20"}).json()["state"] == "submitted"


def test_postgres_restarted_under_load_needs_no_restart_of_ours_and_loses_nothing(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.start_worker()
    one.sandbox.fault("*", "delay", seconds=0.05)
    accepted = [number for number in range(40) if one.post(number).status_code == 202]
    one.postgres.restart_immediate()
    accepted += [number for number in range(40, 50) if one.post(number).status_code == 202]
    wait_for(lambda: one.post(60).status_code in {200, 202}, seconds=100, why="the API does not come back")
    one.all_finished()
    one.each_once(len(accepted) + 1)
    assert all(program.poll() is None for program in one.processes.values())


def test_sigterm_lets_a_call_end_and_takes_nothing_new(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.start_worker("first")
    one.sandbox.fault("create-claim", "delay", seconds=3, times=1)
    assert one.post(1).status_code == 202
    wait_for(lambda: any(call["status"] is None for call in one.sandbox.calls(call="create-claim")), seconds=60)
    one.end("first", signal.SIGTERM)
    assert one.sql("SELECT count(*) FROM workflows WHERE worker IS NOT NULL") == 0
    assert one.sql("SELECT state FROM workflows WHERE kind = 'claim'") == "created"
    one.start_worker("second")
    one.all_finished()
    one.each_once(1)


def test_20_identical_posts_at_once_make_one_claim(installation: Installation) -> None:
    one = installation
    one.start_web()
    for number, headers in ((1, {}), (2, {"Idempotency-Key": "once"})):
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: one.post(number, headers=headers), range(20)))  # noqa: B023
        assert {answer.status_code for answer in answers} <= {202, 200, 409}
        assert len({answer.json()["id"] for answer in answers if answer.ok}) == 1
        assert one.sql("SELECT count(*) FROM claims") == number


def test_nothing_personal_is_in_redis_logs_metrics_or_plain_columns(installation: Installation) -> None:
    one = installation
    one.start_web()
    one.start_worker()
    one.sandbox.fault(
        "submit-claim", "status", status=422, message="No: 1000000003V000003 at +12025550003", probability=0.2, seed=1
    )
    one.sandbox.fault("create-claim", "drop-after", probability=0.1, seed=2)
    in_redis: list[bytes] = []
    client = redis_client.Redis.from_url(one.redis.url)
    with client.monitor() as watching, ThreadPoolExecutor(9) as pool:
        watcher = pool.submit(_watch, watching, in_redis)
        answers = list(pool.map(lambda number: one.post(number, body={"appointment": _named(number)}), range(100)))
        assert {answer.status_code for answer in answers} == {202}
        one.all_finished()
        client.set("the-end", 1)
        watcher.result(timeout=100)
    canaries = [r"\d{10}V\d{6}", r"\+?1202555\d{4}", "CANARY-NAME", "pci-secret", "s3cret", "subscription-key"]
    tokens = {entry["headers"].get("BTSSS-Access-Token", "") for entry in one.sandbox.calls()} - {""}
    canaries += [re.escape(token) for token in list(tokens)[:20]]
    metrics = requests.get(f"http://127.0.0.1:{one.port}/metrics", timeout=60).text
    places = {"redis": b"\n".join(in_redis).decode(errors="replace"), "metrics": metrics, "postgres": _plain(one)}
    places |= {name: one.log(name) for name in one.processes}
    found = {(place, canary) for place, text in places.items() for canary in canaries if re.search(canary, text)}
    assert found == set()
    assert len(in_redis) > 100
    assert "visit-7" in places["worker"]


def _named(number: int) -> dict[str, str]:
    return {
        "dateTime": f"2026-03-03T{number // 60:02}:{number % 60:02}:00",
        "stationNumber": "983",
        "name": f"CANARY-NAME-{number}",
    }


def _watch(watching: object, seen: list[bytes]) -> None:
    for command in watching.listen():  # type: ignore[attr-defined]
        seen.append(str(command["command"]).encode())
        if "the-end" in command["command"]:
            return


def _plain(one: Installation) -> str:
    """Every column of every table as text, but for what is sealed or hashed: its digits hold any number by chance."""
    with psycopg.connect(one.postgres.url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [row for (name,) in tables for row in connection.execute(f'SELECT t::text FROM "{name}" t').fetchall()]  # noqa: S608
    return re.sub(r"[0-9a-f]{32,}", "", "\n".join(row[0] for row in rows))


def test_two_processes_that_meet_a_storm_of_401_mint_one_new_token(installation: Installation) -> None:
    one = installation
    one.environment |= {"TRAVEL_PAY_READ_TIMEOUT": "30", "TRAVEL_PAY_SETTLE_SECONDS": "40"}
    one.start_web()
    one.start_worker("first")
    one.start_worker("second")
    one.sandbox.fault("find-or-add", "delay", seconds=10, times=20)  # until every claim has the first token
    one.sandbox.fault("find-or-add", "refuse-401", times=20)
    with ThreadPoolExecutor(10) as pool:
        assert {answer.status_code for answer in pool.map(one.post, range(20))} == {202}
    one.all_finished()
    one.each_once(20)
    refused = [call for call in one.sandbox.calls(call="find-or-add") if call["status"] == 401]
    assert len(refused) == 20
    assert len(one.sandbox.calls(call="veis-token")) == 2
    holders = one.sql("SELECT count(DISTINCT id) FROM workers")
    assert holders == 2
