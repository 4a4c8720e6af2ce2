"""The record of a subscription: its moves, what a read teaches it, and the questions that are answered from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from sqlalchemy import insert, select

from app import db, errors, metrics, states
from app.models.voucher import Voucher, VoucherCode, VoucherSuspension
from app.store import voucher_operations, voucher_queue, workflows
from app.store import vouchers as records
from app.store.vouchers import OPS
from tests.store.conftest import client, columns, workflow

V, S = states.Voucher, states.VoucherOperation
SUB, TODAY = "a2F5I000003KvWxUAK", date(2025, 3, 10)
NOW = datetime(2025, 3, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _(database: None) -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


@contextmanager
def record(**columns: Any) -> Iterator[tuple[Any, Voucher]]:
    """The subscription's row in a transaction, locked, with these columns."""
    with db.transaction() as session:
        voucher = records.lock(session, SUB)
        for name, value in columns.items():
            setattr(voucher, name, value)
        yield session, voucher


def adopt(session: Any, voucher: Voucher, card: str = "111111", letter: str | None = "222222", **more: Any) -> None:
    codes = {"card": card, **({"letter": letter} if letter else {})}
    given = {"scheme": "Guardian7Day", "client_id": client(), **more}
    records.adopt(session, voucher, codes=codes, **given)


def operation(kind: str = "replace", state: str = S.QUEUED, *, of: str = "test", **more: Any) -> UUID:
    """An operation of the subscription, of the next sequence; at infinity unless it is finished."""
    finished = states.VOUCHER_OPERATION.is_finished(state)
    own = {name: more.pop(name) for name in list(more) if name in OPS.c}
    when = {} if finished else {"due_at": workflows.NEVER, "wake_at": workflows.NEVER}
    ended = {"finished_at": workflows.NOW} if finished else {}
    operation_id = workflow(kind="voucher-operation", state=state, of=of, **{"slot": None, **when, **ended, **more})
    with record() as (session, voucher):
        voucher.last_sequence += 1
        values = {"id": operation_id, "subscription_id": SUB, "sequence": voucher.last_sequence, "operation": kind}
        session.execute(insert(OPS).values(**values, parameters={}, **own))
    return operation_id


# Moves


def _path(of: V | None, to: V | None) -> bool:
    return of == to or to in states.VOUCHER_MOVES[of] or (of, to) in records._THROUGH


@pytest.mark.parametrize("of", [None, *V])
@pytest.mark.parametrize("to", [None, *V])
def test_every_change_of_state_follows_the_table(of: V | None, to: V | None) -> None:
    voucher = Voucher(state=of)
    if _path(of, to):
        records.become(voucher, to)
        assert voucher.state == to
    else:
        with pytest.raises(errors.IllegalMove):
            records.become(voucher, to)


def test_what_was_before_a_request_is_remembered_until_it_is_decided() -> None:
    voucher = Voucher(state=V.CANCELLED, client_id=client())
    records.request(voucher, client("other"))
    assert (voucher.state, voucher.state_before, voucher.client_id) == (V.REQUESTED, V.CANCELLED, client())
    records.become(voucher, V.ACTIVE)
    assert voucher.state_before is None


def test_a_create_on_a_live_voucher_requests_nothing() -> None:
    voucher = Voucher(state=V.SUSPENDED)
    records.request(voucher, client())
    assert (voucher.state, voucher.client_id) == (V.SUSPENDED, client())


def test_a_voucher_whose_day_has_come_is_requested_anew() -> None:
    voucher = Voucher(state=V.ACTIVE, cancel_on=TODAY)
    records.request(voucher, client())
    assert (voucher.state, voucher.state_before) == (V.REQUESTED, V.CANCELLED)


@pytest.mark.parametrize(
    ("now", "state"),
    [
        ("2025-03-09T23:59:59Z", V.ACTIVE),
        ("2025-03-10T00:00:00Z", V.SUSPENDED),
        ("2025-03-14T23:59:59Z", V.SUSPENDED),
        ("2025-03-15T00:00:00Z", V.CANCELLED),
    ],
)
def test_cancelled_wins_over_suspended(now: str, state: V) -> None:
    voucher = Voucher(state=V.ACTIVE, cancel_on=date(2025, 3, 15))
    holiday = VoucherSuspension(starts_on=TODAY, ends_on=date(2025, 3, 20))
    day = datetime.fromisoformat(now).date()
    assert records.state_on(voucher, [holiday], day) == state


def test_a_requested_voucher_is_not_cancelled_by_the_day_of_the_one_before() -> None:
    voucher = Voucher(state=V.REQUESTED, cancel_on=TODAY)
    assert records.state_on(voucher, (), TODAY) == V.REQUESTED


# Adopting


@pytest.mark.parametrize("before", [None, V.REQUESTED, V.CANCELLED, V.ACTIVE])
def test_only_what_is_new_forgets_the_earlier_voucher(before: V | None) -> None:
    taken = operation(state=S.SUCCEEDED)
    old = {"cancel_on": date(2030, 1, 1), "provisioned_at": NOW, "last_replaced_on": TODAY}
    with record(state=before, **old) as (session, voucher):
        records.suspended(session, voucher, operation_id=taken, start=TODAY, end=date(2025, 3, 12))
        adopt(session, voucher)
    kept = before is V.ACTIVE
    with record() as (session, voucher):
        assert (voucher.state, voucher.scheme, voucher.confirmed_at) == (V.ACTIVE, "Guardian7Day", NOW)
        assert [getattr(voucher, name) for name in old] == [value if kept else None for value in old.values()]
        assert len(records.suspensions(session, SUB)) == kept


def test_the_first_client_that_adopts_owns_it() -> None:
    with record() as (session, voucher):
        adopt(session, voucher, client_id=client("one"))
        adopt(session, voucher, client_id=client("two"))
        assert voucher.client_id == client("one")


def test_codes_are_superseded_with_day_and_operation_and_may_come_back() -> None:
    by = operation()
    with record() as (session, voucher):
        adopt(session, voucher, "111111", "222222")
        since = voucher.codes_since
    with time_machine.travel(NOW + timedelta(days=1), tick=False):
        with record() as (session, voucher):
            adopt(session, voucher, "333333", "222222", operation_id=by)
            assert voucher.codes_since == since + timedelta(days=1)
        assert known() == {
            ("card", "111111"): (date(2025, 3, 11), by),
            ("card", "333333"): (None, None),
            ("letter", "222222"): (None, None),
        }
        with record() as (session, voucher):
            adopt(session, voucher, "111111", "222222")
        assert known()["card", "111111"] == (None, None)
        assert known()["card", "333333"] == (date(2025, 3, 11), None)


def known() -> dict[tuple[str, str], tuple[date | None, UUID | None]]:
    codes = {(k, c): records.code_hash(k, c) for k in ("card", "letter") for c in ("111111", "222222", "333333")}
    with db.transaction() as session:
        rows = session.scalars(select(VoucherCode).where(VoucherCode.subscription_id == SUB)).all()
    named = {(kind, hashed): code for (kind, code), hashed in codes.items()}
    return {(one.kind, named[one.kind, one.hash]): (one.superseded_on, one.superseded_by) for one in rows}


def test_a_code_of_one_kind_is_unknown_as_the_other() -> None:
    assert records.code_hash("card", "111111") != records.code_hash("letter", "111111")


def test_half_a_pair_confirms_nothing() -> None:
    with record() as (session, voucher):
        adopt(session, voucher, letter=None)
        assert (voucher.state, voucher.confirmed_at) == (V.ACTIVE, None)


@pytest.mark.parametrize(
    ("before", "after", "drifts"),
    [
        (None, None, 0),
        (V.REQUESTED, V.CANCELLED, 0),
        (V.ACTIVE, V.CANCELLED, 1),
        (V.SUSPENDED, V.CANCELLED, 1),
        (V.CANCELLED, V.CANCELLED, 0),
    ],
)
def test_what_is_not_live_is_cancelled_and_drift_only_where_we_thought_so(
    before: V | None, after: V | None, drifts: int
) -> None:
    counter = metrics.voucher_drift.labels("not-live")._value
    was = counter.get()
    with record(state=before) as (session, voucher):
        records.not_live(session, voucher)
        assert counter.get() == was  # not before it is committed
    assert (columns_of()["state"], counter.get() - was) == (after, drifts)


def columns_of() -> dict[str, Any]:
    with db.transaction() as session:
        found = records.load(session, SUB)
        return {"state": found.state} if found else {}


# In step


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"confirmed_at": None}, False),
        ({"confirmed_at": NOW - timedelta(seconds=3600)}, True),
        ({"confirmed_at": NOW - timedelta(seconds=3601)}, False),
        ({"letter_code": None}, False),
        ({"letter_code": None, "state": V.CANCELLED}, True),
        ({"letter_code": None, "cancel_on": TODAY}, True),
    ],
)
def test_in_step_is_confirmed_lately_with_codes(more: dict[str, Any], expected: bool) -> None:
    known = {"state": V.ACTIVE, "card_code": "111111", "letter_code": "222222", "confirmed_at": NOW}
    with record(**{**known, **more}) as (session, voucher):
        assert records.in_step(session, voucher) is expected


@pytest.mark.parametrize(
    ("state", "ended", "expected"),
    [
        (S.QUEUED, None, False),
        (S.SUCCEEDED, 10, True),
        (S.UNRESOLVED, 10, False),
        (S.UNRESOLVED, -10, True),
    ],
)
def test_in_step_is_nothing_left_open_since(state: str, ended: int | None, expected: bool) -> None:
    more = {} if ended is None else {"finished_at": NOW + timedelta(seconds=ended)}
    operation(state=state, **more)
    known = {"state": V.ACTIVE, "card_code": "111111", "letter_code": "222222", "confirmed_at": NOW}
    with record(**known) as (session, voucher):
        assert records.in_step(session, voucher) is expected


# Days


def test_a_day_is_used_up_per_kind(set_settings: Callable[..., None]) -> None:
    first = operation(state=S.SUCCEEDED, counted_on=TODAY, counts_card=True, counts_letter=False)
    operation(state=S.SUCCEEDED, counted_on=TODAY - timedelta(days=1), counts_card=True, counts_letter=True)
    operation(state=S.REJECTED, counted_on=TODAY, counts_card=False, counts_letter=False)
    second = operation(state=S.UNRESOLVED, counted_on=TODAY, counts_card=True, counts_letter=False)
    with db.transaction() as session:
        assert records.used_up(session, SUB, ("card", "letter"), TODAY) == {"card": second}
        assert records.used_up(session, SUB, ("letter",), TODAY) == {}
        assert records.used_up(session, SUB, ("card",), TODAY, besides=second) == {"card": first}
        assert records.used_up(session, "other", ("card",), TODAY) == {}
    set_settings(VOUCHER_REPLACEMENTS_PER_DAY=2)
    with db.transaction() as session:
        assert records.used_up(session, SUB, ("card",), TODAY) == {"card": second}
        assert records.used_up(session, SUB, ("card",), TODAY, besides=first) == {}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(10, 12, True), (11, 14, True), (10, 15, True), (10, 16, False), (9, 11, False), (20, 21, False)],
)
def test_days_may_lie_in_several_suspensions(start: int, end: int, expected: bool) -> None:
    recorded = [
        VoucherSuspension(starts_on=date(2025, 3, first), ends_on=date(2025, 3, last))
        for first, last in ((10, 12), (12, 15), (13, 14))
    ]
    days = date(2025, 3, start), date(2025, 3, end)
    assert records.is_suspended_throughout(recorded, *days) is expected


# The next operation


def test_only_the_oldest_unfinished_one_is_released_and_only_once() -> None:
    operation(state=S.SUCCEEDED)
    oldest, newer = operation(), operation()
    with record() as (session, _):
        assert voucher_queue.blocked(session) == [SUB]
        assert voucher_queue.release_next(session, SUB) == [oldest]
    with record() as (session, _):
        assert voucher_queue.release_next(session, SUB) == []
        assert voucher_queue.blocked(session) == []
    assert columns(oldest)["slot"] == voucher_operations.slot_of(SUB)
    assert columns(oldest)["fence"] == 1
    assert columns(newer)["slot"] is None


def test_nothing_is_released_while_another_one_is_at_work() -> None:
    """An older one may have been queued again behind it."""
    older = operation()
    operation("cancel", S.RUNNING, slot=voucher_operations.slot_of(SUB))
    with record() as (session, _):
        assert voucher_queue.release_next(session, SUB) == []
        assert voucher_queue.blocked(session) == []
    assert columns(older)["slot"] is None


def test_a_subscription_without_voucher_is_nobodys_when_its_create_ends() -> None:
    operation("create", S.FAILED)
    with record(state=V.REQUESTED, client_id=client()) as (session, voucher):
        voucher_queue.after_operation(session, voucher)
        assert (voucher.state, voucher.client_id) == (None, None)


@pytest.mark.parametrize("state", [S.QUEUED, S.UNRESOLVED])
def test_a_subscription_stays_requested_while_a_create_may_have_made_it(state: str) -> None:
    operation("create", state)
    operation("create", S.FAILED)
    with record(state=V.REQUESTED, client_id=client()) as (session, voucher):
        voucher_queue.after_operation(session, voucher)
        assert (voucher.state, voucher.client_id) == (V.REQUESTED, client())


def test_unfinished_operations_are_counted_by_what_and_where() -> None:
    operation("create", created_at=NOW - timedelta(days=400))
    operation("create")
    operation("cancel", S.FAILED)
    with db.transaction() as session:
        counts, oldest = voucher_queue.standing(session)
        now = workflows.now(session)
    assert counts == {("create", "queued"): 2}
    assert oldest == pytest.approx((now - NOW + timedelta(days=400)).total_seconds(), abs=60)


def test_the_sweep_stores_what_follows_from_the_date() -> None:
    taken = operation("suspend", S.SUCCEEDED)
    with record(state=V.ACTIVE) as (session, voucher):
        records.suspended(session, voucher, operation_id=taken, start=TODAY, end=date(2025, 3, 12))
    with db.transaction() as session:
        session.execute(insert(Voucher).values(subscription_id="b", state=V.SUSPENDED))
        session.execute(insert(Voucher).values(subscription_id="c", state=V.SUSPENDED, cancel_on=TODAY))
        session.execute(insert(Voucher).values(subscription_id="d", state=V.REQUESTED, cancel_on=TODAY))
    with db.transaction() as session:
        assert records.store_states(session) == 3
    with db.transaction() as session:
        assert records.store_states(session) == 0
        found = session.execute(select(Voucher.subscription_id, Voucher.state).order_by(Voucher.subscription_id))
        assert [tuple(row) for row in found] == [
            (SUB, "suspended"),
            ("b", "active"),
            ("c", "cancelled"),
            ("d", "requested"),
        ]


def test_the_lock_of_an_unknown_subscription_makes_its_row_once() -> None:
    with db.transaction() as session:
        first = records.lock(session, "new")
        assert records.lock(session, "new") is first
