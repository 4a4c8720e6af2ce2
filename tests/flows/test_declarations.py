"""A paid declaration against the sandbox's MDG: in its ledger once, whatever one call does."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from prometheus_client import REGISTRY
from sqlalchemy import select, text

from app import clock, config, db
from app.flows import declarations, engine, sweep
from app.models.orm import new_id
from app.models.workflow import Call, Workflow
from app.store import clients
from app.upstreams import mdg
from sandbox import Sandbox
from tests.flows.conftest import shift, write
from tests.flows.declared import NAMES, S, declared, got, history


@pytest.fixture(autouse=True)
def _fresh(database: None, upstreams: Sandbox, redis_server: Any, set_settings: Callable[..., None]) -> Iterator[None]:
    set_settings(MDG_BREAKER_FAILURES=1000)
    forget()
    yield
    forget()


def forget() -> None:
    """No breaker, no limit, no connection is left of an earlier call."""
    redis.Redis.from_url(config.settings().redis_url).flushall()
    mdg._upstreams.clear()


def attempt(declaration_id: UUID) -> Any:
    """One attempt, now; the row as it is then."""
    shift(declaration_id, 3_600)
    engine.perform("declaration", "submit", declaration_id)
    return got(declaration_id)


def sent(upstreams: Sandbox) -> list[dict[str, Any]]:
    return upstreams.calls(call="submit-declaration")


def taken(upstreams: Sandbox) -> list[tuple[str, int]]:
    return [(one["acknowledgementReference"], one["count"]) for one in upstreams.ledger().get("declarations", [])]


def calls(declaration_id: UUID) -> list[tuple[str, int | None]]:
    with db.transaction() as session:
        rows = session.scalars(select(Call).where(Call.workflow_id == declaration_id).order_by(Call.id))
        return [(row.outcome, row.status) for row in rows]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_paid_declaration_is_submitted_and_in_the_ledger_once(upstreams: Sandbox) -> None:
    before = counted("declarations_paid_to_submitted_seconds_count")
    one = declared(age=90)
    done = attempt(one)
    assert (done.state, done.attempts, done.in_doubt, done.due_at) == (S.SUBMITTED, 1, False, None)
    assert taken(upstreams) == [(done.acknowledgement_reference, 1)]
    assert history(one)[-1] == ("paid", "submitted", "worker", "submitted")
    (entry,) = upstreams.ledger()["declarations"]
    whole = json.dumps(done.payload, ensure_ascii=False, separators=(",", ":")).encode()
    assert entry["body_sha256"] == hashlib.sha256(whole).hexdigest()
    assert entry["correlation_id"] == "corr-1"
    assert counted("declarations_paid_to_submitted_seconds_count") == before + 1


# Every row of table 5.2: what is played, the outcome and code, the state, whether it is in doubt.
ANSWERS: dict[str, tuple[dict[str, Any], str, str, str, bool]] = {
    "204": ({"fault": "status", "status": 204, "body": ""}, "ok", "", S.SUBMITTED, False),
    "200": ({"fault": "status", "status": 200, "body": "{}"}, "ok", "", S.SUBMITTED, False),
    **{
        str(status): ({"fault": "status", "status": status}, "rejected", f"mdg-{status}", S.FAILED, False)
        for status in (400, 413, 422)
    },
    **{
        str(status): ({"fault": "status", "status": status}, "retry", f"mdg-{status}", S.PAID, False)
        for status in (401, 403, 407, 404, 405, 406, 410, 411, 414, 415, 421, 426, 431, 501, 505, 302, 409, 429)
    },
    **{
        str(status): ({"fault": "status", "status": status}, "unknown", f"mdg-{status}", S.PAID, True)
        for status in (408, 500, 502, 503, 504, 402, 418, 451)
    },
    "503 with Retry-After": (
        {"fault": "status", "status": 503, "headers": {"Retry-After": "7"}}, "unknown", "mdg-503", S.PAID, True
    ),
    "late": ({"fault": "hang-before"}, "unknown", "mdg-timeout", S.PAID, True),
    "late after the effect": ({"fault": "hang-after"}, "unknown", "mdg-timeout", S.PAID, True),
    "lost": ({"fault": "drop-before"}, "unknown", "mdg-connection-lost", S.PAID, True),
    "lost after the effect": ({"fault": "drop-after"}, "unknown", "mdg-connection-lost", S.PAID, True),
    "garbage": ({"fault": "garbage"}, "unknown", "mdg-garbled", S.PAID, True),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_each_answer_means_what_the_contract_says(
    upstreams: Sandbox, set_settings: Callable[..., None], answer: str
) -> None:
    fault, outcome, code, state, doubt = ANSWERS[answer]
    upstreams.fault("submit-declaration", **fault, times=1)
    before = counted("declarations_attempts_total", outcome=outcome, error=code)
    one = declared()
    if answer.startswith("late"):
        set_settings(MDG_READ_TIMEOUT=1)
    now = attempt(one)
    assert (now.state, now.in_doubt, now.attempts) == (state, doubt, 1)
    assert counted("declarations_attempts_total", outcome=outcome, error=code) == before + 1
    assert (now.error["code"], now.release) == (code, "test") if state == S.FAILED else now.error is None
    if state == S.PAID:
        assert now.attempt == (0 if code == "mdg-429" else 1)
        forget()
        assert attempt(one).state == S.SUBMITTED
        assert taken(upstreams) == [(now.acknowledgement_reference, 1)]


def test_mdg_refusing_connections_is_retried(upstreams: Sandbox) -> None:
    one = declared()
    upstreams.listen("mdg", open=False)
    now = attempt(one)
    upstreams.listen("mdg", open=True)
    assert (now.state, now.in_doubt) == (S.PAID, False)
    with db.transaction() as session:
        assert session.scalars(select(Call.code).where(Call.workflow_id == one)).all() == ["mdg-refused"]
    assert attempt(one).state == S.SUBMITTED


# Repeats


def test_a_lost_answer_is_repeated_with_the_same_bytes_and_ids(upstreams: Sandbox) -> None:
    upstreams.fault("submit-declaration", "drop-after", times=2)
    one = declared()
    attempt(one)
    assert attempt(one).in_doubt
    assert (attempt(one).state, got(one).attempts, got(one).in_doubt) == (S.SUBMITTED, 3, False)
    first, *repeats = sent(upstreams)
    assert len(repeats) == 2
    for repeat in repeats:
        assert repeat["body"] == first["body"]
        assert repeat["correlation_id"] == first["correlation_id"]
    assert taken(upstreams) == [(got(one).acknowledgement_reference, 1)]


def test_the_body_is_built_as_for_the_first_attempt(upstreams: Sandbox, set_settings: Callable[..., None]) -> None:
    upstreams.fault("submit-declaration", "drop-after", times=1)
    one = declared()
    assert attempt(one).body_mode == "full"
    set_settings(MDG_BODY="projection")
    assert attempt(one).state == S.SUBMITTED
    first, second = sent(upstreams)
    assert first["body"] == second["body"]


def test_a_refusal_after_a_lost_answer_leaves_it_uncertain(upstreams: Sandbox) -> None:
    one = declared()
    upstreams.fault("submit-declaration", "drop-after", times=1)
    attempt(one)
    upstreams.fault("submit-declaration", "status", status=401, times=1)
    assert attempt(one).in_doubt
    upstreams.fault("submit-declaration", "status", status=400, times=1)
    now = attempt(one)
    assert (now.state, now.in_doubt, now.attempts) == (S.FAILED, True, 3)
    assert calls(one) == [("unknown", None), ("retry", 401), ("rejected", 400)]


def test_mdgs_texts_of_a_refusal_are_kept(upstreams: Sandbox) -> None:
    body = {"errorDetail": {"sourceFaultDetail": {"detail": ["Invalid portOfEntry"]}}}
    upstreams.fault("submit-declaration", "status", status=400, body=body)
    assert attempt(declared()).faults == ["Invalid portOfEntry"]


def test_the_waits_are_random_up_to_the_back_off_and_never_end(set_settings: Callable[..., None]) -> None:
    set_settings(MDG_RETRY_BASE=5, MDG_RETRY_CAP="PT15M")
    policy = declarations.policy()
    for tries, most in ((1, 5), (2, 10), (8, 640), (9, 900), (5_000, 900)):
        waits = [policy.wait(tries) for _ in range(200)]
        assert 1 <= min(waits) < most * 0.2 + 1
        assert most * 0.8 < max(waits) <= most
    assert (policy.attempts, policy.lease > config.settings().mdg.total_timeout) == (None, True)  # type: ignore[union-attr]


def test_the_back_off_comes_after_each_failed_attempt(upstreams: Sandbox) -> None:
    upstreams.fault("submit-declaration", "status", status=500)
    one = declared()
    for tries in (1, 2, 3):
        begun = clock.now()
        now = attempt(one)
        least, most = (timedelta(seconds=seconds) for seconds in (1, 5 * 2 ** (tries - 1)))
        assert (now.attempt, begun + least <= now.due_at <= clock.now() + most) == (tries, True)


# What is not sent


@pytest.mark.parametrize("off", ["line", "client"])
def test_what_is_switched_off_waits_and_uses_no_attempt(
    upstreams: Sandbox, set_settings: Callable[..., None], off: str
) -> None:
    one = declared()
    if off == "line":
        set_settings(MDG_URL="")
    else:
        with db.transaction() as session:
            clients.set_toggle(session, "passengers", "declarations", on=False)
    now = attempt(one)
    assert (now.state, now.attempts, now.attempt, now.worker, sent(upstreams)) == (S.PAID, 0, 0, None, [])


def test_an_unpaid_declaration_is_never_sent(upstreams: Sandbox) -> None:
    one = declared(S.PENDING_PAYMENT)
    engine.perform("declaration", "submit", one)
    assert (got(one).state, sent(upstreams)) == (S.PENDING_PAYMENT, [])


def damage(declaration_id: UUID, sealed: bytes | None) -> None:
    with db.transaction() as session:
        session.execute(
            text("UPDATE declarations SET payload = :sealed WHERE id = :id"), {"sealed": sealed, "id": declaration_id}
        )


@pytest.mark.parametrize("sealed", [None, b"no seal of ours"])
def test_what_cannot_be_built_fails_and_the_others_go_on(
    upstreams: Sandbox, caplog: pytest.LogCaptureFixture, sealed: bytes | None
) -> None:
    broken, other = declared(), declared()
    damage(broken, sealed)
    engine.perform("declaration", "submit", broken)
    with db.transaction() as session:
        state, error = session.execute(select(Workflow.state, Workflow.error).where(Workflow.id == broken)).one()
    assert (state, error["code"], calls(broken)) == (S.FAILED, "local-build", [])
    assert attempt(other).state == S.SUBMITTED


def test_a_body_without_its_request_cannot_be_built() -> None:
    with pytest.raises(KeyError):
        declarations.body({"other": {}}, "full")


def test_the_projection_leaves_out_what_is_for_us_alone() -> None:
    whole = got(declared()).payload
    assert whole
    full, projected = (json.loads(declarations.body(whole, mode)) for mode in ("full", "projection"))
    assert full == whole
    header = projected["simpleDeclarationRequest"]["requestDetail"].pop("declarationHeader")
    assert list(header) == ["messageTypes", "portOfEntry", "travellingFrom", "onwardTravelGBNI", "chargeReference"]
    (item,) = projected["simpleDeclarationRequest"]["requestDetail"]["declarationTobacco"]["declarationItemTobacco"]
    assert list(item) == ["commodityDescription", "valueCurrency", "originCountry"]
    full["simpleDeclarationRequest"]["requestDetail"].pop("declarationHeader")
    tobacco = full["simpleDeclarationRequest"]["requestDetail"]["declarationTobacco"]
    tobacco["declarationItemTobacco"] = [item]
    assert projected == full


def test_the_body_is_compact_utf_8_in_the_stored_order() -> None:
    payload = {"simpleDeclarationRequest": {"z": "Ü", "requestDetail": {"b": 1, "a": 2}}}
    said = '{"simpleDeclarationRequest":{"z":"Ü","requestDetail":{"b":1,"a":2}}}'
    assert declarations.body(payload, "full") == said.encode()


# Deaths


@pytest.fixture
def dead() -> UUID:
    """A worker that died long ago."""
    gone = new_id()
    with db.transaction() as session:
        session.execute(
            text("INSERT INTO workers (id, host, pid, release, beat_at) VALUES (:id, 'h', 1, 'test', '2020-01-01Z')"),
            {"id": gone},
        )
    return gone


def hold(declaration_id: UUID, by: UUID, **columns: Any) -> None:
    intent = {"step": "submit", "index": 0, "verb": "do", "at": "2026-11-20T18:09:30+00:00"}
    write(declaration_id, worker=by, in_doubt=True, intent=intent, fence=7, **columns)


def test_a_dead_workers_submission_is_taken_over_and_repeated(upstreams: Sandbox, dead: UUID) -> None:
    before = counted("declarations_attempts_total", outcome="unknown", error="worker-lost")
    one = declared(attempts=1)
    hold(one, dead)
    sweep.sweep()
    engine.perform("declaration", "submit", one)
    now = got(one)
    assert (now.state, now.attempts, now.in_doubt) == (S.SUBMITTED, 2, False)
    assert counted("declarations_attempts_total", outcome="unknown", error="worker-lost") == before + 1


def test_the_third_death_fails_it_and_the_doubt_stays(
    upstreams: Sandbox, dead: UUID, logged: Callable[..., list[dict[str, Any]]]
) -> None:
    one = declared(attempts=3)
    hold(one, dead, crashes=2)
    sweep.sweep()
    now = got(one)
    assert (now.state, now.error["code"], now.in_doubt) == (S.FAILED, "crashed", True)
    assert [record["alarm"] for record in logged("failed")] == ["crashed"]
    assert sent(upstreams) == []


def test_a_result_after_the_lease_was_lost_changes_nothing(upstreams: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    one = declared()
    submit = mdg.Mdg.submit

    def then_lost(self: mdg.Mdg, body: bytes, reference: str) -> None:
        submit(self, body, reference)
        write(one, fence=99, worker=None)

    monkeypatch.setattr(mdg.Mdg, "submit", then_lost)
    engine.perform("declaration", "submit", one)
    assert (got(one).state, got(one).in_doubt) == (S.PAID, True)
    monkeypatch.undo()
    assert attempt(one).state == S.SUBMITTED
    assert taken(upstreams) == [(got(one).acknowledgement_reference, 1)]


# What is told


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """`logged("failed")`: the records of this event so far."""
    records: list[dict[str, Any]] = []

    def keep(event: str, **fields: Any) -> None:
        records.append({"event": event, **fields})

    for level in ("info", "warning", "error"):
        monkeypatch.setattr(declarations.log, level, keep, raising=False)
    return lambda event: [record for record in records if record["event"] == event]


def test_the_records_hold_what_the_contract_says_and_nothing_personal(
    upstreams: Sandbox, logged: Callable[..., list[dict[str, Any]]]
) -> None:
    upstreams.fault("submit-declaration", "status", status=400, body="Traveller SAMPLE0001 is unknown")
    now = attempt(declared())
    (tried,), (failed,) = logged("attempt"), logged("failed")
    who = {
        "line": "declarations", "chargeReference": now.charge_reference, "number": 0, "correlationId": "corr-1",
        "client": str(now.client_id), "attempt": 1, "release": "test",
    }  # fmt: skip
    assert isinstance(tried.pop("durationMs"), int)
    assert tried == {"event": "attempt", **who, "outcome": "rejected", "status": 400, "error": "mdg-400"}
    assert failed == {
        "event": "failed", **who, "from": "paid", "to": "failed", "error": "mdg-400",
        "alarm": "PNGRS_DES_SUBMISSION_FAILURE",
    }  # fmt: skip
    assert not [name for name in NAMES if name in json.dumps([tried, failed])]
