"""What failed is sent again: once per newer release by itself, and when an operator asks. Contract 2.5 and 3.5."""

import importlib
import threading
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, select, text

from app import db, errors, queue
from app.flows import engine, replays
from app.flows.replay_request import Asked
from app.models.orm import new_id
from app.models.replay import Audit, Replay
from app.models.workflow import Move
from app.store import releases, workers, workflows
from app.store.replays import Counts
from sandbox import Sandbox
from tests.flows.conftest import write
from tests.flows.declared import S, declared, failed, got, history, known
from tests.flows.test_declarations import attempt, forget, sent, taken

OLD, NEW, NEWER = "2026.11.1", "2026.11.2", "2026.11.3"


@pytest.fixture(autouse=True)
def _fresh(database: None, upstreams: Sandbox, redis_server: Any) -> None:
    forget()


def starts(release: str) -> str:
    """A worker of this release starts; empty: of none. Returns the release's name."""
    with db.transaction() as session:
        name = releases.announce(session, release)
        workers.beat(session, new_id(), host="host", pid=1, release=name)
    return name


def all_stop() -> None:
    with db.transaction() as session:
        session.execute(text("UPDATE workers SET beat_at = '2020-01-01Z'"))


def counted(trigger: str) -> float:
    return REGISTRY.get_sample_value("declarations_replays_total", {"trigger": trigger}) or 0.0


def replayed(declaration_id: UUID) -> list[Any]:
    """The details of its replays."""
    with db.transaction() as session:
        rows = select(Move.detail).where(Move.workflow_id == declaration_id, Move.reason == "replayed")
        return list(session.scalars(rows.order_by(Move.id)))


def fails_again(declaration_id: UUID, release: str) -> None:
    with db.transaction() as session:
        seen = workflows.read(session, declaration_id)
        assert seen
        assert workflows.move(session, seen, S.FAILED, actor="worker", release=release)


# By release


def test_a_newer_release_sends_once_more_what_an_older_one_made_fail() -> None:
    before = counted("release")
    one = failed(attempt=3, in_doubt=True, intent={"step": "submit", "at": "x"}, body_mode="full", overdue=True)
    ids = (got(one).correlation_id, got(one).acknowledgement_reference)
    starts(NEW)
    assert [replays.by_release() for _ in range(3)] == [1, 0, 0]
    now = got(one)
    assert (now.state, now.for_release, now.replayed_release) == (S.PAID, NEW, NEW)
    assert (now.attempt, now.in_doubt, now.intent, now.finished_at) == (0, False, None, None)
    assert (now.body_mode, now.overdue, now.fence) == (None, False, 1)
    assert (now.correlation_id, now.acknowledgement_reference) == ids
    assert history(one)[-1] == ("failed", "paid", "timer", "replayed")
    assert replayed(one) == [{"trigger": "release", "release": NEW, "replayId": None}]
    assert counted("release") == before + 1


def test_a_restart_with_the_same_release_replays_nothing() -> None:
    one = failed(release=OLD)
    starts(OLD)
    assert replays.by_release() == 0
    assert got(one).state == S.FAILED


def test_it_comes_again_with_a_still_newer_release_and_not_before() -> None:
    one = failed(release=OLD)
    starts(NEW)
    replays.by_release()
    fails_again(one, NEW)
    assert replays.by_release() == 0
    starts(NEWER)
    assert replays.by_release() == 1
    assert [detail["release"] for detail in replayed(one)] == [NEW, NEWER]


def test_what_an_old_worker_makes_fail_after_its_replay_is_not_sent_again_under_the_same_release() -> None:
    one = failed(release=OLD)
    starts(NEW)
    replays.by_release()
    fails_again(one, OLD)
    assert replays.by_release() == 0


def test_going_back_to_an_old_release_replays_nothing() -> None:
    known(OLD)
    starts(NEW)
    all_stop()
    starts(OLD)
    one = failed(release=OLD)
    assert replays.by_release() == 0
    assert got(one).state == S.FAILED


def test_old_workers_during_a_roll_out_leave_it_to_the_new_ones() -> None:
    one = failed(release="2026.10.9")
    starts(OLD)
    known(NEW)
    assert replays.by_release() == 0
    starts(NEW)
    assert replays.by_release() == 1
    assert got(one).for_release == NEW


def test_without_a_release_every_start_is_one_and_the_newest_holds_for_all() -> None:
    before = counted("start")
    first = starts("")
    with db.transaction() as session:
        session.execute(text("UPDATE releases SET seen_at = seen_at - interval '61 s'"))
    one = failed(release=first)
    assert replays.by_release() == 0
    with db.transaction() as session:
        second = releases.announce(session, "")
    assert (first != second, replays.by_release(), got(one).for_release) == (True, 1, second)
    assert replayed(one)[0]["trigger"] == "start"
    assert counted("start") == before + 1


@pytest.mark.parametrize("state", sorted(set(S) - {S.FAILED}))
def test_nothing_but_what_failed_is_replayed(state: str) -> None:
    known(OLD)
    one = declared(state, release=OLD)
    starts(NEW)
    assert replays.by_release() == 0
    assert got(one).state == state


def test_many_at_once_replay_each_submission_once() -> None:
    ids = [failed(release=OLD) for _ in range(30)]
    starts(NEW)
    done: list[int] = []
    together = threading.Barrier(4)

    def run() -> None:
        together.wait()
        done.append(replays.by_release())
        done.append(replays.by_release())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), sum(done)) == (8, 30)
    assert [len(replayed(one)) for one in ids] == [1] * 30


def test_a_database_that_is_away_at_the_start_only_delays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one = failed(release=OLD)
    starts(NEW)
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing?connect_timeout=2")
    with monkeypatch.context() as patch:
        patch.setattr(db, "engine", lambda: nowhere)
        replays.at_start()
    replays.at_start()
    assert got(one).state == S.PAID


def test_refused_then_a_new_release_then_in_the_ledger_once(upstreams: Sandbox) -> None:
    """Contract 10.4."""
    starts("test")
    upstreams.fault("submit-declaration", "status", status=400, times=1)
    one = declared()
    assert (attempt(one).state, got(one).release) == (S.FAILED, "test")
    for _ in range(2):
        assert (replays.by_release(), attempt(one).state) == (0, S.FAILED)
    assert len(sent(upstreams)) == 1
    starts(NEW)
    assert replays.by_release() == 1
    engine.perform("declaration", "submit", one)  # this worker is not of that release
    assert len(sent(upstreams)) == 1
    write(one, updated_at=text("updated_at - interval '601 s'"))
    assert attempt(one).state == S.SUBMITTED
    assert [call["correlation_id"] for call in sent(upstreams)] == ["corr-1", "corr-1"]
    assert taken(upstreams) == [(got(one).acknowledgement_reference, 1)]
    assert got(one).attempts == 2


# By an operator


def ask(**filters: Any) -> UUID:
    asked = Asked.model_validate({"filter": filters, "reason": "port list corrected"})
    with db.transaction() as session:
        return replays.open_replay(session, asked, by="demo-operator")[0]


def standing(replay_id: UUID) -> tuple[int, int, int, int, int]:
    counts = replays.counts(replay_id)
    assert counts
    assert counts.matched == counts.waiting + counts.submitted + counts.failed_again + counts.skipped
    return counts.matched, counts.waiting, counts.submitted, counts.failed_again, counts.skipped


def test_an_operator_sends_again_what_failed(upstreams: Sandbox) -> None:
    before = counted("operator")
    first, second = failed(attempt=4, in_doubt=True, intent={"step": "submit", "at": "x"}), failed()
    replay_id = ask()
    assert standing(replay_id) == (2, 2, 0, 0, 0)
    replays.carry(replay_id)
    assert standing(replay_id) == (2, 2, 0, 0, 0)
    now = got(first)
    assert (now.state, now.for_release, now.attempt, now.in_doubt) == (S.PAID, None, 0, False)
    assert history(first)[-1] == ("failed", "paid", "operator", "replayed")
    assert replayed(first) == [{"trigger": "operator", "release": None, "replayId": str(replay_id)}]
    assert counted("operator") == before + 2
    upstreams.fault("submit-declaration", "status", status=400, times=1)
    assert attempt(first).state == S.FAILED
    assert standing(replay_id) == (2, 1, 0, 1, 0)
    assert attempt(second).state == S.SUBMITTED
    assert standing(replay_id) == (2, 0, 1, 1, 0)


def test_who_asked_and_why_is_kept() -> None:
    replay_id = ask(error="mdg-400")
    with db.transaction() as session:
        replay = session.scalars(select(Replay)).one()
        audit = session.scalars(select(Audit)).one()
    assert (replay.id, replay.asked_by, replay.reason) == (replay_id, "demo-operator", "port list corrected")
    assert (audit.actor, audit.action, audit.subject) == ("demo-operator", "replay", str(replay_id))
    assert audit.detail == {
        "line": "declarations", "filter": {"error": "mdg-400"}, "reason": "port list corrected", "matched": 0,
    }  # fmt: skip


def test_what_is_no_longer_failed_when_its_turn_comes_is_skipped() -> None:
    one, other = failed(), failed()
    replay_id = ask()
    starts(NEW)
    replays.by_release()
    replays.carry(replay_id)
    assert standing(replay_id) == (2, 0, 0, 0, 2)
    assert len(replayed(one)) == len(replayed(other)) == 1


def test_of_two_replays_one_moves_a_row_also_when_it_fails_again_in_between() -> None:
    one = failed()
    first, second = ask(), ask()
    replays.carry(first)
    fails_again(one, OLD)
    replays.carry(second)
    assert standing(second) == (1, 0, 0, 0, 1)
    assert (got(one).state, len(replayed(one))) == (S.FAILED, 1)


def test_many_at_once_carry_a_replay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "BATCH", 4)
    ids = [failed() for _ in range(20)]
    both = [ask(), ask()]
    together = threading.Barrier(4)

    def run(replay_id: UUID) -> None:
        together.wait()
        replays.carry(replay_id)

    threads = [threading.Thread(target=run, args=(both[number % 2],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replays.carry_all()
    assert [len(replayed(one)) for one in ids] == [1] * 20
    assert sum(standing(one)[1] for one in both) == 20
    assert sum(standing(one)[4] for one in both) == 20


def test_the_oldest_failure_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [failed(age=age) for age in (10, 30, 20)]
    replay_id = ask()
    monkeypatch.setattr(replays, "BATCH", 1)
    with db.transaction() as session:
        replays._carry_some(session, replay_id, after=0)
    assert [got(one).state for one in ids] == [S.FAILED, S.PAID, S.FAILED]


def test_what_somebody_holds_keeps_its_turn_and_the_others_go_on() -> None:
    held, free = failed(), failed()
    replay_id = ask()
    with db.transaction() as session:
        session.execute(text("SELECT 1 FROM workflows WHERE id = :id FOR UPDATE"), {"id": held})
        replays.carry(replay_id)
    assert (got(held).state, got(free).state, standing(replay_id)[1]) == (S.FAILED, S.PAID, 2)
    replays.carry_all()
    assert got(held).state == S.PAID


def test_one_broken_row_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, sound = failed(age=20), failed(age=10)
    send_again = replays.replays.send_again

    def fail(session: db.Session, found: Any, **more: Any) -> bool:
        done: bool = send_again(session, found, **more)
        if found.id == broken:
            session.execute(text("SELECT 1 / 0"))
        return done

    monkeypatch.setattr(replays.replays, "send_again", fail)
    replay_id = ask()
    replays.carry(replay_id)
    assert (got(broken).state, got(sound).state, standing(replay_id)[1]) == (S.FAILED, S.PAID, 2)


def test_the_message_lets_a_worker_begin_at_once() -> None:
    one, jobs = failed(), importlib.import_module("tasks.declaration_jobs")
    jobs.replays()  # whose next turn is a minute away
    jobs.replays(str(ask()))
    assert got(one).state == S.PAID


def test_the_job_goes_on_with_what_is_left_and_replays_for_a_new_release() -> None:
    asked, older = failed(error="mdg-413"), failed()
    ask(error="mdg-413")
    starts(NEW)
    importlib.import_module("tasks.declaration_jobs").replays()
    assert [got(one).for_release for one in (asked, older)] == [None, NEW]


def test_the_message_is_a_hint_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise errors.BrokerAway("away")

    monkeypatch.setattr(queue, "send", away)
    one = failed()
    replays.kick(ask())
    assert got(one).state == S.FAILED
    replays.carry_all()
    assert got(one).state == S.PAID


def test_a_replay_that_nobody_asked_for_has_no_counts() -> None:
    assert replays.counts(new_id()) is None


def test_a_replay_of_nothing_is_done() -> None:
    assert replays.counts(ask()) == Counts(waiting=0, submitted=0, failed_again=0, skipped=0)
