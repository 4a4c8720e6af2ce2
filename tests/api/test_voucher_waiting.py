"""How a mutating route answers: waiting, 202, strict callers, joining and Idempotency-Key. Contract 2.3."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app import db
from app.api import voucher_waiting, waiting
from app.flows import engine
from app.models.client import IdempotencyKey
from app.models.voucher import VoucherOperation
from app.models.workflow import Workflow
from app.store import voucher_operations, workflows

SUB = "a2F5I000003KvWxUAK"
PLAN = {"ratePlanName": "Sunday"}
BOTH = {"subscriptionId": SUB, "replaceCard": True, "replaceLetter": True}
KEY = {"Idempotency-Key": "crm-1"}
WITHDRAWN = {"message": "Not carried out in time; nothing was changed"}
UNDECIDED = {"message": "i-Movo did not answer in time; the outcome is still being determined"}


def create(ask, **more):
    return ask("PUT", f"/{SUB}", PLAN, **more)


def rows() -> list[VoucherOperation]:
    with db.transaction() as session:
        return list(session.scalars(select(VoucherOperation).order_by(VoucherOperation.sequence)))


def change(**columns) -> None:
    """What a holder of the only unfinished operation has written meanwhile."""
    table = Workflow.__table__
    with db.transaction() as session:
        session.execute(update(table).where(table.c.finished_at.is_(None)).values(**columns))


def call_under_way() -> None:
    slot = voucher_operations.slot_of(SUB)
    change(state="calling", in_doubt=True, intent={"step": "carry_out", "at": "2025-03-10T09:00:00Z"}, slot=slot)


@pytest.fixture
def meanwhile(monkeypatch):
    """Something happens once while a request waits; the wait is then over."""

    def set_up(happens=lambda: None):
        def until(reached, *, seconds):
            waits.append(seconds)
            if len(waits) == 1:
                happens()
            reached()

        waits: list[float] = []
        monkeypatch.setattr(waiting, "until", until)
        return waits

    return set_up


@pytest.fixture
def waits(meanwhile, dispatched):
    """How long each request would have waited, in vain."""
    return meanwhile()


# Waiting


@pytest.mark.parametrize(
    ("prefer", "seconds", "applied"),
    [
        ("", 25, None),
        ("wait=7", 7, "wait=7"),
        ("wait=90", 25, "wait=25"),
        ("wait=0", 0, "wait=0"),
        ("respond-async", 0, "respond-async"),
        ("respond-async, wait=3", 3, "respond-async, wait=3"),
        ("wait=soon, be=nice", 25, None),
        ("WAIT=4;why=not", 4, "wait=4"),
    ],
)
def test_who_waits_how_long_and_is_told_202(ask, waits, prefer, seconds, applied):
    begun = time.monotonic()
    answer = create(ask, prefer=prefer)
    assert answer.status_code == 202
    assert seconds - (time.monotonic() - begun) <= waits[0] <= seconds
    assert answer.headers.get("Preference-Applied") == applied
    (operation,) = rows()
    assert operation.priority == (1 if seconds == 0 else 0)
    assert answer.headers["Location"] == f"/DEV/digital-voucher/operations/{operation.id}"
    assert answer.headers["Link"] == f'<{answer.headers["Location"]}>; rel="status"'
    assert answer.headers["Retry-After"] == "2"
    assert answer.json == {
        "message": "Accepted, not finished yet",
        "operationId": str(operation.id),
        "state": "queued",
    }


def test_the_answer_comes_as_soon_as_the_outcome_is_there(ask, imovo, dispatched):
    def work() -> None:
        while not dispatched:
            threading.Event().wait(0.01)
        engine.run(dispatched[0])

    with ThreadPoolExecutor(1) as worker:
        done = worker.submit(work)
        answer = create(ask)
        done.result()
    assert answer.status_code == 201


def test_the_wait_ends_when_the_next_attempt_is_due_after_it(ask, dispatched):
    create(ask, prefer="respond-async")
    change(due_at=workflows.NOW + workflows.seconds(60))
    begun = time.monotonic()
    assert create(ask).status_code == 202
    assert time.monotonic() - begun < 20  # of 25


def test_behind_another_operation_the_first_ones_next_attempt_counts(ask, dispatched):
    create(ask, prefer="respond-async")
    change(due_at=workflows.NOW + workflows.seconds(60))
    begun = time.monotonic()
    assert ask("POST", "/cancel", {"subscriptionId": SUB}).status_code == 202
    assert time.monotonic() - begun < 20  # of 25
    first, second = rows()
    assert (first.slot, second.slot) == (voucher_operations.slot_of(SUB), None)
    assert ask("GET", f"/operations/{second.id}").json["nextAttemptAt"] is None


def test_nobody_waits_beyond_the_number_of_places(ask, meanwhile, set_settings, dispatched):
    set_settings(VOUCHER_MAX_WAITING=1)
    waits = meanwhile()
    with voucher_waiting.place() as free:
        assert free
        assert create(ask).status_code == 202
        assert waits == []
        assert ask("GET", f"/{SUB}").status_code == 503
    assert create(ask).status_code == 202
    assert len(waits) == 1


def test_no_connection_is_held_while_waiting(ask, meanwhile, dispatched):
    seen = []
    meanwhile(lambda: seen.append(db.engine().pool.checkedout()))
    create(ask)
    assert seen == [0]


def test_a_database_that_goes_away_leaves_an_accepted_operation(ask, monkeypatch, dispatched):
    def gone(reached, *, seconds):
        raise db.PoolTimeout("gone")

    monkeypatch.setattr(waiting, "until", gone)
    assert create(ask).status_code == 202
    strict = create(ask, prefer="handling=strict")
    assert (strict.status_code, strict.json) == (504, UNDECIDED)


# Strict callers


def test_a_strict_caller_withdraws_what_was_not_sent(ask, meanwhile, dispatched):
    meanwhile()
    answer = create(ask, prefer="handling=strict, wait=5")
    assert (answer.status_code, answer.json) == (503, WITHDRAWN)
    assert answer.headers["Preference-Applied"] == "wait=5, handling=strict"
    (operation,) = rows()
    assert (operation.state, operation.outcome_code, operation.slot) == ("failed", "withdrawn", None)
    shown = ask("GET", f"/operations/{operation.id}").json
    assert shown["answer"] == {"status": 503, "body": WITHDRAWN}
    assert ask("GET", f"/{SUB}/operations").json["state"] is None


def test_withdrawing_lets_the_next_operation_start(ask, meanwhile, dispatched):
    meanwhile(lambda: ask("POST", "/cancel", {"subscriptionId": SUB}, prefer="respond-async"))
    create(ask, prefer="handling=strict")
    first, second = rows()
    assert (first.state, second.slot) == ("failed", voucher_operations.slot_of(SUB))
    assert dispatched[-1] == second.id


def test_a_strict_caller_is_told_that_a_call_is_under_way(ask, meanwhile, dispatched):
    meanwhile(call_under_way)
    answer = create(ask, prefer="handling=strict")
    assert (answer.status_code, answer.json) == (504, UNDECIDED)
    (operation,) = rows()
    assert (operation.state, operation.asked) == ("calling", "withdraw")
    assert answer.headers["Link"].startswith(f"</DEV/digital-voucher/operations/{operation.id}>")


def test_what_somebody_else_still_wants_is_never_withdrawn(ask, meanwhile, dispatched):
    meanwhile(lambda: create(ask, prefer="wait=0"))
    answer = create(ask, prefer="handling=strict")
    assert (answer.status_code, answer.json) == (504, UNDECIDED)
    (operation,) = rows()
    assert (operation.state, operation.asked, operation.withdrawable) == ("queued", None, False)


def test_a_joiner_who_takes_202_undoes_a_wish_to_withdraw(ask, meanwhile, dispatched):
    meanwhile(call_under_way)
    create(ask, prefer="handling=strict")
    assert create(ask, prefer="wait=0").status_code == 202
    assert rows()[0].asked is None


# Joining


def test_the_same_request_joins_and_another_one_queues(ask, dispatched):
    first = create(ask, prefer="respond-async")
    again = create(ask, prefer="respond-async", headers={"X-Correlation-ID": "second"})
    assert again.json["operationId"] == first.json["operationId"]
    assert again.headers["X-Correlation-ID"] == "second"
    other = ask("PUT", f"/{SUB}", {"ratePlanName": "Weekend"}, prefer="respond-async")
    assert other.json["operationId"] != first.json["operationId"]
    back = create(ask, prefer="respond-async")
    assert len({row.id for row in rows()}) == 3
    assert back.json["operationId"] != first.json["operationId"], "only the newest one is joined"


def test_who_waits_makes_an_operation_urgent_that_nobody_waited_for(ask, meanwhile, dispatched):
    create(ask, prefer="respond-async")
    assert rows()[0].priority == 1
    meanwhile()
    create(ask)
    assert rows()[0].priority == 0
    assert dispatched == [rows()[0].id] * 2


def test_nobody_joins_the_operation_of_another_client(ask, add_client, dispatched):
    other = add_client("other", scopes=["vouchers"], product=None)
    ask("POST", "/replace", BOTH, prefer="respond-async")
    ask("POST", "/replace", BOTH, prefer="respond-async", key=other)
    assert len(rows()) == 2
    assert ask("GET", f"/{SUB}/operations", key=other).json["operations"][0]["operationId"] == str(rows()[1].id)
    assert ask("GET", f"/operations/{rows()[0].id}", key=other).status_code == 404


def test_a_double_click_is_one_operation(app, salesforce, dispatched, imovo):
    barrier = threading.Barrier(8)

    def click(_: int) -> tuple[int, str]:
        barrier.wait()
        headers = {"x-api-key": salesforce, "Prefer": "respond-async"}
        answer = app.test_client().post("/DEV/digital-voucher/replace", json=BOTH, headers=headers)
        return answer.status_code, answer.json["operationId"]

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(click, range(8)))
    assert {status for status, _ in answers} == {202}
    assert len(answers) == len(rows()) == 1


# Idempotency-Key


def test_a_success_is_repeated_word_for_word(ask, at_work):
    first = create(ask, headers=KEY)
    ask("DELETE", f"/{SUB}")
    again = create(ask, headers=KEY)
    assert (again.status_code, again.data, again.headers["Link"]) == (201, first.data, first.headers["Link"])
    assert ask("PUT", f"/{SUB}", {"ratePlanName": "Weekend"}, headers=KEY).status_code == 422


def test_a_202_is_repeated_and_leads_on(ask, dispatched):
    first = create(ask, prefer="respond-async", headers=KEY)
    again = create(ask, headers=KEY)
    assert (again.status_code, again.data) == (202, first.data)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Retry-After"] == "2"


def test_a_refusal_past_the_checks_is_kept_and_one_of_the_form_is_not(ask, at_work):
    create(ask)
    other = {"ratePlanName": "Weekend"}
    assert ask("PUT", f"/{SUB}", other, headers=KEY).status_code == 409
    ask("DELETE", f"/{SUB}")
    assert ask("PUT", f"/{SUB}", other, headers=KEY).status_code == 409
    form = {"Idempotency-Key": "crm-2"}
    assert ask("PUT", f"/{SUB}", {}, headers=form).status_code == 400
    assert ask("PUT", f"/{SUB}", {"ratePlanName": "Never"}, headers=form).status_code == 422
    assert ask("PUT", f"/{SUB}", other, headers=form).status_code == 201


def test_after_a_504_the_repeat_joins_and_then_gets_the_outcome(ask, imovo, meanwhile, dispatched):
    """Without its key it would be a second replacement on that day."""
    imovo.upstreams["imovo"].plant(SUB, scheme="GuardianSunday", codes={"card": None, "letter": None})
    meanwhile(call_under_way)
    strict = {"prefer": "handling=strict", "headers": KEY}
    assert ask("POST", "/replace", BOTH, **strict).status_code == 504
    assert ask("POST", "/replace", BOTH, **strict).status_code == 504
    (operation,) = rows()
    change(state="queued", in_doubt=False, intent=None, asked=None, due_at=workflows.NOW)
    engine.run(operation.id)
    outcome = ask("POST", "/replace", BOTH, headers=KEY)
    assert (outcome.status_code, sorted(outcome.json)) == (200, ["cardCode", "letterCode"])
    assert ask("POST", "/replace", BOTH, headers=KEY).data == outcome.data
    assert ask("POST", "/replace", BOTH).status_code == 409
    assert len(rows()) == 1


def test_after_a_503_the_repeat_runs_anew(ask, meanwhile, dispatched):
    meanwhile()
    assert create(ask, prefer="handling=strict", headers=KEY).status_code == 503
    assert create(ask, prefer="respond-async", headers=KEY).status_code == 202
    assert [row.state for row in rows()] == ["failed", "queued"]


def test_a_repeat_that_comes_while_the_first_one_waits_joins_it(ask, meanwhile, dispatched):
    answers: list = []
    meanwhile(lambda: answers.append(create(ask, prefer="wait=0", headers=KEY)))
    first = create(ask, headers=KEY)
    assert [one.status_code for one in answers] == [first.status_code] == [202]
    assert answers[0].json["operationId"] == first.json["operationId"]
    assert len(rows()) == 1


def test_before_the_commit_a_repeat_is_in_progress_and_a_dead_one_is_run_anew(ask, monkeypatch, dispatched):
    def repeat(*args, **rest):
        with ThreadPoolExecutor(1) as other:
            answers.append(other.submit(create, ask, headers=KEY).result())
        raise db.PoolTimeout("died")

    answers: list = []
    with monkeypatch.context() as dying:
        dying.setattr(voucher_operations, "accept", repeat)
        assert create(ask, headers=KEY).status_code == 503
    assert [(one.status_code, sorted(one.json)) for one in answers] == [(409, ["message"])]
    assert create(ask, prefer="respond-async", headers=KEY).status_code == 202


def test_delete_takes_a_key_too(ask, at_work):
    create(ask)
    assert [ask("DELETE", f"/{SUB}", headers=KEY).status_code for _ in range(2)] == [200, 200]
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 1


def test_links_lead_to_the_operation(ask, at_work):
    answer = create(ask, headers={"X-Correlation-ID": "crm-77120"})
    path = re.search("<(.*)>", answer.headers["Link"])[1].removeprefix("/DEV/digital-voucher")
    shown = ask("GET", path)
    assert "Retry-After" not in shown.headers
    assert shown.json | {"operationId": "", "createdAt": "", "updatedAt": "", "finishedAt": ""} == {
        "operationId": "",
        "subscriptionId": SUB,
        "kind": "create",
        "parameters": {"scheme": "GuardianSunday"},
        "origin": "api",
        "state": "succeeded",
        "outcomeCode": "done",
        "sends": 1,
        "correlationId": "crm-77120",
        "createdAt": "",
        "updatedAt": "",
        "nextAttemptAt": None,
        "finishedAt": "",
        "answer": {"status": 201, "body": answer.json},
    }
    assert UUID(shown.json["operationId"])
