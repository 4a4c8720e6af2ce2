"""An operator's replay of an operation that failed or stayed open. Contract 3.1."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app import db, states
from app.flows import voucher_replay
from app.models.replay import Audit
from app.models.workflow import Move
from app.store import vouchers as records
from app.store import workflows
from sandbox import Sandbox
from tests.flows import voucher_play as play
from tests.flows.conftest import moves, row, write
from tests.flows.voucher_play import SUB, cancel, carry, client_id, create, live, made, plant, replace, short

__all__ = ["short"]  # fixtures, used by their names
S = states.VoucherOperation
CREATE, GET, REPLACE = "create-voucher", "get-voucher", "replace-voucher"


def replay(operation_id: UUID, *, dry_run: bool = False) -> str:
    return voucher_replay.replay(operation_id, by="ada", reason="i-Movo was down", dry_run=dry_run)


def given_up(operation: UUID) -> UUID:
    with db.transaction() as session:
        now = workflows.now(session)
    write(operation, deadline_at=now)
    assert carry(operation).outcome_code == "given-up"
    return operation


@pytest.fixture
def unresolved(upstreams: Sandbox) -> Any:
    """A replacement of whose three sends nothing was ever seen."""
    carry(create())
    upstreams.fault(REPLACE, "drop-before")
    done = carry(replace())
    assert done.state == S.UNRESOLVED
    return done


def test_a_failed_create_is_queued_again_with_new_time_and_owns_again(upstreams: Sandbox) -> None:
    operation = given_up(create())
    assert replay(operation) == S.QUEUED
    again = row(operation)
    assert (again.state, again.outcome_code, again.answer, again.error, again.finished_at) == (S.QUEUED, *[None] * 4)
    assert (again.deadline_at - again.due_at).total_seconds() == pytest.approx(86_400, abs=5)
    assert (play.voucher().state, play.voucher().client_id) == ("requested", client_id())
    assert carry(operation).answer["body"] == live(upstreams)


def test_who_replayed_it_and_why_is_kept(upstreams: Sandbox) -> None:
    operation = given_up(create())
    replay(operation)
    with db.transaction() as session:
        kept = session.scalars(select(Audit)).one()
        move = session.scalars(select(Move).where(Move.workflow_id == operation).order_by(Move.id.desc())).first()
    assert (kept.actor, kept.action, kept.subject) == ("ada", "replay", str(operation))
    assert kept.detail == {"line": "vouchers", "from": "failed", "to": "queued", "reason": "i-Movo was down"}
    assert move
    assert (move.of, move.to, move.actor, move.reason) == ("failed", "queued", "operator", "replayed")


def test_what_was_withdrawn_goes_on_and_nobody_withdraws_it_again(upstreams: Sandbox) -> None:
    operation = given_up(create())
    write(operation, asked="withdraw")
    replay(operation)
    assert (row(operation).asked, row(operation).withdrawable) == (None, False)
    assert carry(operation).state == S.SUCCEEDED


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_unresolved_one_is_looked_at_and_never_sent_at_once(
    upstreams: Sandbox, unresolved: Any, took_effect: bool
) -> None:
    if took_effect:
        book = upstreams.upstreams["imovo"].book  # type: ignore[attr-defined]
        book.renew(book.live(SUB), ("card", "letter"))
    sent = made(upstreams).count(REPLACE)
    assert replay(unresolved.id) == S.CHECKING
    again = row(unresolved.id)
    assert (again.in_doubt, again.outcome_code, again.answer) == (True, None, None)
    assert again.intent["at"] == unresolved.intent["at"]
    done = carry(unresolved.id)
    assert (done.state, made(upstreams).count(REPLACE)) == (S.SUCCEEDED if took_effect else S.UNRESOLVED, sent)
    assert moves(done.id)[-2][0] == "unresolved"


def test_one_that_was_not_in_doubt_is_looked_at_from_now_on(unresolved: Any) -> None:
    write(unresolved.id, intent=None, in_doubt=False)
    replay(unresolved.id)
    again = row(unresolved.id)
    assert {**again.intent, "at": None} == {"step": "carry_out", "index": 0, "verb": "do", "at": None}
    assert carry(unresolved.id).state == S.UNRESOLVED


def test_a_dry_run_changes_nothing(upstreams: Sandbox) -> None:
    operation = given_up(create())
    assert replay(operation, dry_run=True) == S.QUEUED
    assert row(operation).state == S.FAILED
    with db.transaction() as session:
        assert session.scalar(select(Audit)) is None


def refused(operation: UUID, said: str) -> None:
    before = row(operation)
    with pytest.raises(ValueError, match=said):
        replay(operation)
    assert (row(operation).state, row(operation).fence) == (before.state, before.fence)


def test_a_later_one_that_was_sent_is_in_the_way(upstreams: Sandbox) -> None:
    operation = given_up(create())
    later = carry(cancel())
    assert later.sends == 1
    refused(operation, str(later.id))


def test_a_later_one_that_was_not_sent_is_not(upstreams: Sandbox) -> None:
    operation = given_up(create())
    assert carry(replace()).sends == 0
    assert replay(operation) == S.QUEUED


def test_an_unfinished_one_is_in_the_way(upstreams: Sandbox) -> None:
    operation = given_up(create())
    refused(operation, str(cancel()))


def test_an_earlier_one_that_was_sent_is_not(upstreams: Sandbox) -> None:
    carry(create())
    assert replay(given_up(cancel())) == S.QUEUED


def test_a_voucher_that_is_another_clients_by_now_is_left_alone(upstreams: Sandbox) -> None:
    operation = given_up(create())
    plant(upstreams)
    with db.transaction() as session:
        records.lock(session, SUB).client_id = client_id("other")
        session.flush()
    refused(operation, "another client")


def test_what_went_well_cannot_be_replayed(upstreams: Sandbox) -> None:
    refused(carry(create()).id, "succeeded")


def test_what_is_not_there_cannot_be_replayed(database: None) -> None:
    with pytest.raises(LookupError, match="no operation"):
        replay(uuid4())
