"""Every flow, in the ways that lead through all of its verbs. A step that no scenario leads through fails the tests."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from sandbox import Sandbox
from tests.crash.carrying import carry
from tests.crash.conftest import Scenario
from tests.flows.test_claims import MILEAGE, PARKING, accept, texts_of

LOST = {"fault": "drop-after", "times": 1}


def counted(sandbox: Sandbox, correlation: str, **expected: int) -> list[str]:
    """What the ledger says of this workflow's effects, where it is not what it should be."""
    ledger = sandbox.ledger(correlation)
    return [
        f"{kind}: {found} effects instead of {number}"
        for kind, number in expected.items()
        if (found := sum(entry["count"] for entry in ledger[kind])) != number
    ]


def in_state(workflow_id: UUID, *states: str) -> list[str]:
    found = carry(workflow_id)
    return [] if found.state in states and not found.in_doubt else [f"it is {found.state}, in doubt: {found.in_doubt}"]


def claim(sandbox: Sandbox, correlation: str, *, lost: tuple[str, ...] = (), **more: Any) -> UUID:
    for call in lost:
        sandbox.fault(call, **LOST)
    return accept(corr=correlation, icn=f"{correlation.rpartition('-')[2]:0>10}V019349", details=[MILEAGE, PARKING], **more)


def submitted(sandbox: Sandbox, correlation: str, claim_id: UUID) -> list[str]:
    faults = in_state(claim_id, "submitted")
    told = texts_of(claim_id)
    for one in told:
        faults += in_state(one.id, "sent", "delivered")
    faults += [] if len(told) == 1 else [f"{len(told)} texts"]
    return faults + counted(sandbox, correlation, claims=1, expenses=2, submissions=1, texts=1, deletions=0)


SCENARIOS = [
    Scenario("claim", claim, submitted),
    Scenario(
        "claim, every answer lost once",
        partial(claim, lost=("find-or-add", "create-claim", "add-expense", "submit-claim")),
        submitted,
    ),
]
