"""Passenger declarations: paid or not, refused, replayed by a release and by an operator."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from sqlalchemy import text

from app import db, states
from app.flows import declaration_jobs, declaration_notices, replays
from app.flows.declaration_notices import Notice
from app.flows.replay_request import Asked, Filter
from tests.flows.declared import client, declared
from tests.machines.machine import SOME, LineMachine, Run
from tests.machines.world import World

S = states.Declaration
_ROWS = text("SELECT * FROM workflows JOIN declarations USING (id) ORDER BY id")
FORTNIGHT = 15 * 86_400
pytestmark = pytest.mark.timeout(900)  # shrinking what failed takes its time


class DeclarationMachine(LineMachine):
    """Declarations of one client; some are paid, some expire."""

    effects: ClassVar[Sequence[str]] = ("submit-declaration",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.client = client()
        self.releases = 0

    @initialize(paid=st.lists(st.booleans(), max_size=2))
    def declarations_are_made(self, paid: list[bool]) -> None:
        """The first one is paid at once."""
        for number, is_paid in enumerate([True, *paid]):
            declared(S.PENDING_PAYMENT)
            if is_paid:
                self.pay(self.declarations()[number])

    def declarations(self) -> Sequence[Any]:
        with db.transaction() as session:
            return session.execute(_ROWS).all()

    @rule(number=SOME)
    def it_is_paid(self, number: int) -> None:
        """Perhaps once more, or after it has expired."""
        rows = self.declarations()
        self.pay(rows[number % len(rows)])

    def pay(self, row: Any) -> str:
        return declaration_notices.take(
            Notice(reference=row.charge_reference, client_id=self.client, correlation_id="pay")
        )

    @rule()
    def two_weeks_pass(self) -> None:
        self.world.pass_time(FORTNIGHT)
        self.the_payment_job_runs()

    @rule()
    def the_payment_job_runs(self) -> None:
        declaration_jobs.time_out_payments()
        declaration_jobs.tell_overdue()

    @rule()
    def a_release_is_rolled_out(self) -> None:
        """Its workers run from now on, and replay what the one before made fail."""
        self.releases += 1
        self.world.release(f"release-{self.releases}")
        replays.by_release()

    @rule()
    def an_operator_replays(self) -> None:
        with db.transaction() as session:
            replay_id, _ = replays.open_replay(session, Asked(filter=Filter(), reason="mended"), by="ada")
        replays.carry(replay_id)

    def nothing_twice(self) -> None:
        """MDG knows a repeat: what it must never see is a call too many, or one for what is not paid."""
        calls = Counter(_reference(call) for call in self.world.upstreams.calls(call="submit-declaration"))
        assert all(entry["count"] == 1 for entry in self.world.upstreams.ledger()["declarations"])
        for row in self.declarations():
            made = calls.pop(f"{row.charge_reference}{row.number}", 0)
            assert made <= row.attempts
            assert row.paid_at or not made
        assert not calls

    def everything_once(self) -> None:
        """What is paid is at MDG, once what failed has been sent again; the rest is not."""
        self.a_release_is_rolled_out()
        while self.world.come_to_rest() or any(row.state == S.FAILED for row in self.declarations()):
            self.an_operator_replays()
        taken = {entry["acknowledgementReference"] for entry in self.world.upstreams.ledger()["declarations"]}
        for row in self.declarations():
            assert row.state == (S.SUBMITTED if row.paid_at else row.state)
            assert not row.in_doubt
            reference = f"{row.charge_reference}{row.number}"
            assert (reference in taken) == (row.state == S.SUBMITTED)


def _reference(call: Mapping[str, Any]) -> str:
    body = call["body"]["simpleDeclarationRequest"]
    return str(body["requestCommon"]["acknowledgementReference"])


def test_every_paid_declaration_is_at_mdg_once_and_no_other(run: Run) -> None:
    run(DeclarationMachine)


@pytest.fixture
def expiring(set_settings: Callable[..., None]) -> None:
    """What is not paid in time expires, and is not paid any more."""
    set_settings(PAYMENT_TIMEOUT_ACTION="expire")


def test_none_that_expired_is_at_mdg(expiring: None, run: Run) -> None:
    run(DeclarationMachine)
