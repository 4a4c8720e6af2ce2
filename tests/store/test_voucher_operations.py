"""Operations on vouchers in Postgres: their order, how they stand, and who sees which."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import InvalidRequestError

from app import db
from app.models.client import Client
from app.models.voucher import Voucher, VoucherOperation
from app.models.workflow import Move, Workflow
from app.store import clients, voucher_operations, vouchers, workflows
from app.store.voucher_operations import NewOperation

SUB = "a2F5I000003KvWxUAK"
Accept = Callable[..., UUID]


@pytest.fixture
def owners(database: None) -> list[UUID]:
    with db.transaction() as session:
        for name in ("one", "two"):
            clients.add(session, name, ["vouchers"])
        return list(session.scalars(select(Client.id).order_by(Client.name)))


@pytest.fixture
def accept(owners: list[UUID]) -> Accept:
    def make(operation: str = "cancel", *, by: int = 0, subscription_id: str = SUB, urgent: bool = False) -> UUID:
        new = NewOperation(
            client_id=owners[by],
            correlation_id="crm-1",
            operation=operation,
            parameters={"cancellationDate": None},
            urgent=urgent,
            withdrawable=True,
        )
        with db.transaction() as session:
            return voucher_operations.accept(session, vouchers.lock(session, subscription_id), new)

    return make


def row(operation_id: UUID) -> VoucherOperation:
    with db.transaction() as session:
        return session.get_one(VoucherOperation, operation_id)


def change(operation_id: UUID, **columns: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Workflow.__table__).where(Workflow.__table__.c.id == operation_id).values(**columns))


def finish(operation_id: UUID) -> None:
    ended = {"state": "failed", "finished_at": workflows.NOW, "due_at": None, "wake_at": None, "slot": None}
    change(operation_id, **ended)


def test_operations_of_a_subscription_run_in_the_order_of_their_acceptance(accept: Accept) -> None:
    first, second, elsewhere = row(accept()), row(accept(urgent=True)), row(accept(subscription_id="other"))
    assert [one.sequence for one in (first, second, elsewhere)] == [1, 2, 1]
    assert [one.slot for one in (first, second, elsewhere)] == [f"voucher:{SUB}", None, "voucher:other"]
    assert [one.priority for one in (first, second)] == [1, 0]
    assert (first.due_at, first.due_at.year) < (second.due_at, 9999) == (second.wake_at, 9999)
    assert (first.deadline_at - first.created_at).total_seconds() == pytest.approx(86_400, abs=5)
    with db.transaction() as session:
        moves = session.execute(select(Move.of, Move.to, Move.actor).where(Move.workflow_id == first.id)).all()
    assert [tuple(move) for move in moves] == [(None, "queued", "client")]


def test_after_the_last_one_is_finished_a_new_one_is_due_at_once(accept: Accept) -> None:
    finish(accept())
    again = row(accept())
    assert (again.sequence, again.slot) == (2, f"voucher:{SUB}")


def test_the_newest_unfinished_is_the_one_to_join(accept: Accept) -> None:
    first, second = accept(), accept()
    with db.transaction() as session:
        newest = voucher_operations.newest_unfinished(session, SUB)
        assert newest
        assert newest.id == second
    finish(second)
    with db.transaction() as session:
        newest = voucher_operations.newest_unfinished(session, SUB)
        assert newest
        assert newest.id == first
        assert voucher_operations.newest_unfinished(session, "other") is None


@pytest.mark.parametrize(
    ("urgent", "strict", "expected"),
    [(True, True, (0, True, "withdraw")), (False, False, (1, False, None)), (True, False, (0, False, None))],
)
def test_who_joins_makes_it_urgent_or_unwithdrawable(
    accept: Accept, urgent: bool, strict: bool, expected: tuple[int, bool, str | None]
) -> None:
    operation_id = accept()
    change(operation_id, asked="withdraw")
    with db.transaction() as session:
        found = voucher_operations.find(session, operation_id)
        assert found
        voucher_operations.join(session, found, urgent=urgent, strict=strict)
    joined = row(operation_id)
    assert (joined.priority, joined.withdrawable, joined.asked) == expected


def test_what_stands_behind_another_one_is_due_when_that_is(accept: Accept) -> None:
    first, second = accept(), accept()
    change(first, due_at=workflows.NOW + workflows.seconds(40))
    with db.transaction() as session:
        standing = voucher_operations.standing(session, second)
    assert standing
    assert not standing.is_final
    assert 20 < standing.due_in <= 40
    finish(first)
    with db.transaction() as session:
        standing = voucher_operations.standing(session, second)
        ended = voucher_operations.standing(session, first)
    assert standing
    assert ended
    assert (standing.due_in, ended.is_final) == (0, True), "nobody has made it due yet: it may start at any moment"


def test_an_operation_is_seen_by_who_started_it_and_who_owns_the_subscription(
    accept: Accept, owners: list[UUID]
) -> None:
    operation_id = accept(by=0)
    accept(by=1)
    with db.transaction() as session:
        seen = [voucher_operations.visible(session, operation_id, who) is not None for who in (*owners, None)]
        listed = [
            len(voucher_operations.listed(session, SUB, client_id=who, before=None, limit=9)) for who in (*owners, None)
        ]
    assert (seen, listed) == ([True, False, True], [1, 1, 2])
    with db.transaction() as session:
        session.execute(update(Voucher).values(client_id=owners[1]))
    with db.transaction() as session:
        assert voucher_operations.visible(session, operation_id, owners[1]) is not None


def test_pages_hold_what_is_older_without_what_is_sealed(accept: Accept) -> None:
    ids = [accept() for _ in range(4)]
    with db.transaction() as session:
        page = voucher_operations.listed(session, SUB, client_id=None, before=4, limit=2)
        assert [one.id for one in page] == [ids[2], ids[1]]
        with pytest.raises(InvalidRequestError):
            _ = page[0].answer
