"""Travel claims and their texts, with and without rollback."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from sqlalchemy import text

from app import db, states
from app.flows import claim_requests, receipts
from app.flows.receipts import Receipt
from tests.flows.test_claims import MILEAGE, PARKING, accept
from tests.machines.machine import SOME, LineMachine, Run
from tests.machines.world import World, was_given_up

S, T = states.Claim, states.Notification
DETAILS = [MILEAGE, PARKING, PARKING]  # two equal expenses are two
_CLAIMS = text("SELECT * FROM workflows JOIN claims USING (id)")
_TEXTS = text("SELECT * FROM workflows JOIN notifications USING (id)")
pytestmark = pytest.mark.timeout(900)  # shrinking what failed takes its time


class ClaimMachine(LineMachine):
    """Claims of a veteran each."""

    effects: ClassVar[Sequence[str]] = (
        "create-claim", "add-expense", "submit-claim", "send-sms", "create-claim", "add-expense", "submit-claim",
        "delete-expense", "delete-claim",
    )  # fmt: skip
    reads: ClassVar[Sequence[str]] = ("find-or-add", "read-claim", "search-claims", "system-token", "find-sms")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.claims: dict[str, UUID] = {}

    def a_claim(self, number: int) -> UUID:
        return [*self.claims.values()][number % len(self.claims)]

    @initialize(rollbacks=st.lists(st.booleans(), min_size=1, max_size=2))
    def claims_are_filed(self, rollbacks: list[bool]) -> None:
        for number, rollback in enumerate(rollbacks):
            icn = f"{number:010}V019349"
            self.claims[icn] = accept(icn=icn, details=DETAILS, rollback=rollback, corr=f"corr-{number}")

    @rule(number=SOME)
    def it_is_filed_again(self, number: int) -> None:
        """While one blocks its visit, that one is found."""
        for icn, claim_id in [*self.claims.items()][number % 2 :]:
            if any(row.id == claim_id and row.slot for row in self.world.rows()):
                assert accept(icn=icn, details=DETAILS, corr="corr-again") == claim_id

    @rule(number=SOME)
    def a_cancel_is_asked_for(self, number: int) -> None:
        if self.world.upstreams.calls():  # what is cancelled before meets nothing else
            claim_requests.cancel(self.a_claim(number))

    @rule(number=SOME)
    def a_retry_is_asked_for(self, number: int) -> None:
        claim_requests.retry(self.a_claim(number), notify=True, actor="client")

    @rule(number=SOME, status=st.sampled_from(("delivered", "permanent-failure", "sending")))
    def a_receipt_comes(self, number: int, status: str) -> None:
        if sent := self.world.upstreams.ledger()["texts"]:
            receipts.take(Receipt(status=status, reference=sent[number % len(sent)]["reference"], id=None))

    def nothing_twice(self) -> None:
        for icn in self.claims:
            made = self.made(icn)
            assert len(made["claims"]) <= 1
            assert len(made["expenses"]) <= len(DETAILS)
            assert len(made["submissions"]) <= 1
        assert all(entry["count"] == 1 for entry in self.world.upstreams.ledger()["texts"])

    def made(self, icn: str) -> Mapping[str, list[str]]:
        """What happened at Travel Pay for a veteran, by kind, with the ids that it gave."""
        ledger = self.world.upstreams.ledger()
        return {
            kind: [one for entry in ledger[kind] if entry["icn"] == icn for one in entry["ids"]]
            for kind in ("claims", "expenses", "submissions", "deletions")
        }

    def everything_once(self) -> None:
        """What failed is tried again until all is well; then it is as the rows say, but for what was given up."""
        while self.retried():
            self.world.come_to_rest()
        given_up = {row.id for row in self.world.rows() if was_given_up(row)}
        with db.transaction() as session:
            claims, texts = session.execute(_CLAIMS).all(), session.execute(_TEXTS).all()
        icn_of = {claim_id: icn for icn, claim_id in self.claims.items()}
        for row in claims:
            assert row.state in {S.SUBMITTED, S.CANCELLED, S.ROLLED_BACK, S.ROLLBACK_FAILED}
            if row.id not in given_up:
                _compare(row, self.made(icn_of[row.id]))
        sent = {entry["reference"] for entry in self.world.upstreams.ledger()["texts"]}
        for row in texts:
            if row.id not in given_up:
                assert (str(row.id) in sent) == (row.state in {T.SENT, T.DELIVERED, T.UNDELIVERED})
                assert not row.in_doubt

    def retried(self) -> list[UUID]:
        """The failed claims, each of which begins another run."""
        return [
            one for one in self.claims.values() if claim_requests.retry(one, notify=False, actor="client") == "done"
        ]


def _compare(row: Any, made: Mapping[str, Sequence[str]]) -> None:
    """What the claim's row knows is what stands at Travel Pay. An expense goes with its claim."""
    gone = set(made["deletions"])
    standing = set(made["claims"]) - gone
    known = {item["expenseId"] for item in row.expenses if item["state"] in {"added", "adopted"}}
    assert standing == (set() if row.undo.get("claim") in {"deleted", "gone"} else {row.claim_id} - {None})
    assert (set(made["expenses"]) - gone if standing else set()) == known
    assert len(made["submissions"]) == (row.state == S.SUBMITTED)
    assert len(known) == len(DETAILS) or row.state != S.SUBMITTED
    assert not row.in_doubt


def test_every_effect_of_a_claim_and_its_text_is_there_once(run: Run) -> None:
    run(ClaimMachine)
