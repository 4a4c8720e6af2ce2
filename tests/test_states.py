"""The state machines, pair by pair: what the tables allow happens, anything else changes nothing."""

from enum import StrEnum
from typing import Any

import pytest

from app import db, errors, states
from app.flows import lines
from app.states import Machine
from app.store import workflows
from tests.store.conftest import columns, history, seen, workflow

MACHINES = list(states.MACHINES.values())
C, N, B = states.Claim, states.Notification, states.ClaimCallback
D, V = states.Declaration, states.VoucherOperation
# The contracts' words, not derived from the code: travel-claims 3.1 and 3.2, declarations 3.1, vouchers 3.1.
FINISHED: dict[str, set[StrEnum]] = {
    "claim": {C.SUBMITTED, C.DUPLICATE, C.FAILED, C.ROLLED_BACK, C.ROLLBACK_FAILED, C.CANCELLED},
    "notification": {N.SENT, N.DELIVERED, N.UNDELIVERED, N.SKIPPED, N.FAILED},
    "claim-callback": {B.DELIVERED, B.UNDELIVERED},
    "declaration": {D.SUBMITTED, D.FAILED, D.EXPIRED},
    "voucher-operation": {V.SUCCEEDED, V.REJECTED, V.FAILED, V.UNRESOLVED},
}
WAITS: dict[str, set[StrEnum]] = {"declaration": {D.PENDING_PAYMENT, D.PAYMENT_FAILED, D.PAYMENT_CANCELLED}}
FREE: dict[str, set[StrEnum]] = {
    "claim": {C.FAILED, C.ROLLED_BACK, C.CANCELLED},
    "notification": set(),
    "claim-callback": set(),
    "declaration": set(),
    "voucher-operation": {V.SUCCEEDED, V.REJECTED, V.FAILED, V.UNRESOLVED},
}
BEFORE_SUBMITTED = [C.ACCEPTED, C.AUTHORIZED, C.APPOINTMENT_FOUND, C.CREATED, C.EXPENSED]
LEGAL: dict[str, set[tuple[StrEnum, StrEnum]]] = {
    "claim": {
        *zip(BEFORE_SUBMITTED, [*BEFORE_SUBMITTED[1:], C.SUBMITTED], strict=True),
        (C.APPOINTMENT_FOUND, C.DUPLICATE),
        *((state, C.FAILED) for state in BEFORE_SUBMITTED),
        *((state, C.CANCELLED) for state in BEFORE_SUBMITTED),
        *((state, C.ROLLING_BACK) for state in (C.APPOINTMENT_FOUND, C.CREATED, C.EXPENSED)),
        *((C.ROLLING_BACK, state) for state in (C.ROLLED_BACK, C.CANCELLED, C.ROLLBACK_FAILED, C.SUBMITTED)),
        *((C.FAILED, state) for state in BEFORE_SUBMITTED),
    },
    "notification": {
        *((N.PENDING, state) for state in (N.SENT, N.SKIPPED, N.FAILED)),
        *((N.SENT, state) for state in (N.DELIVERED, N.UNDELIVERED)),
        (N.UNDELIVERED, N.DELIVERED),
    },
    "claim-callback": {(B.PENDING, B.DELIVERED), (B.PENDING, B.UNDELIVERED)},
    "declaration": {
        *((unpaid, D.PAID) for unpaid in WAITS["declaration"]),
        *((unpaid, D.EXPIRED) for unpaid in WAITS["declaration"]),
        *((unpaid, D.PAYMENT_FAILED) for unpaid in (D.PENDING_PAYMENT, D.PAYMENT_CANCELLED)),
        *((unpaid, D.PAYMENT_CANCELLED) for unpaid in (D.PENDING_PAYMENT, D.PAYMENT_FAILED)),
        *((D.PAID, state) for state in (D.SUBMITTED, D.FAILED)),
        (D.FAILED, D.PAID),
    },
    "voucher-operation": {
        (V.QUEUED, V.RUNNING),
        *((V.RUNNING, state) for state in (V.CALLING, V.QUEUED, V.REJECTED, V.SUCCEEDED, V.UNRESOLVED)),
        *((V.CALLING, state) for state in (V.SUCCEEDED, V.REJECTED, V.QUEUED, V.CHECKING, V.UNRESOLVED)),
        *((V.CHECKING, state) for state in (V.SUCCEEDED, V.REJECTED, V.QUEUED, V.UNRESOLVED)),
        *((state, V.FAILED) for state in (V.QUEUED, V.RUNNING)),
        (V.FAILED, V.QUEUED),
        (V.UNRESOLVED, V.CHECKING),
    },
}


def pairs(*, legal: bool) -> list[Any]:
    """Every state with every target, of every machine."""
    return [
        pytest.param(machine, of, to, id=f"{machine.kind}-{of}-{to}")
        for machine in MACHINES
        for of in machine.states
        for to in machine.states
        if ((of, to) in LEGAL[machine.kind]) is legal
    ]


@pytest.mark.parametrize(("machine", "of", "to"), pairs(legal=True))
def test_a_legal_move_happens_and_is_written_down_once(database: None, machine: Machine, of: str, to: str) -> None:
    row = workflow(kind=machine.kind, state=of, slot="slot")
    with db.transaction() as session:
        assert workflows.move(session, seen(row), to, actor="worker", reason="because")
    after = columns(row)
    finished, free = to in FINISHED[machine.kind], to in FREE[machine.kind]
    assert after["state"] == to
    assert [after[name] is None for name in ("due_at", "wake_at", "finished_at")] == [finished, finished, not finished]
    assert after["slot"] == (None if free else "slot")
    assert history(row) == [(of, to, "worker", "because")]


@pytest.mark.parametrize(("machine", "of", "to"), pairs(legal=False))
def test_an_illegal_move_is_refused_and_changes_nothing(database: None, machine: Machine, of: str, to: str) -> None:
    row = workflow(kind=machine.kind, state=of)
    before = columns(row)
    with db.transaction() as session, pytest.raises(errors.IllegalMove, match=f"{of} -> {to}"):
        workflows.move(session, seen(row), to, actor="worker")
    assert (columns(row), history(row)) == (before, [])


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_no_state_goes_by_a_name_that_is_none(machine: Machine, database: None) -> None:
    row = workflow(kind=machine.kind)
    with db.transaction() as session, pytest.raises(ValueError, match="nowhere"):
        workflows.move(session, seen(row), "nowhere", actor="worker")


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_every_state_can_be_reached(machine: Machine) -> None:
    # A text may begin as `skipped` (travel-claims 3.2), but need not.
    reached, new = set[StrEnum](), {machine.start}
    while new:
        reached |= new
        new = {to for of in new for to in machine.moves.get(of, ())} - reached
    assert reached == set(machine.states)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_every_unfinished_state_has_a_step_that_leads_out_of_it(machine: Machine) -> None:
    flow = lines.FLOWS[machine.kind]
    for state in machine.states:
        step = flow.step_in(state)
        assert (step is None) == (machine.is_finished(state) or machine.waits_in(state)), f"{state}: {step}"
        assert step is None or machine.phases or machine.allows(state, step.to)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_finished_and_free_are_marked_as_the_contracts_say(machine: Machine) -> None:
    assert (machine.finished, machine.free) == (FINISHED[machine.kind], FREE[machine.kind])
    assert machine.waits == WAITS.get(machine.kind, set())
    for state in machine.states:
        assert machine.is_finished(state) == (state in FINISHED[machine.kind])
        assert machine.is_free(state) == (state in FREE[machine.kind])


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
def test_no_unfinished_state_is_a_dead_end(machine: Machine) -> None:
    assert [state for state in machine.states if not machine.is_finished(state) and not machine.moves.get(state)] == []


def test_every_machine_has_a_flow_and_the_other_way_round() -> None:
    assert {kind: flow.machine for kind, flow in lines.FLOWS.items()} == dict(states.MACHINES)
