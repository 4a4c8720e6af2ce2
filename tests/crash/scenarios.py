"""Every flow, in the ways that lead through all of its verbs. A verb that no scenario leads through fails the tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import update

from app import clock, db
from app.models.workflow import Workflow
from app.store import voucher_operations, vouchers
from app.store.voucher_operations import NewOperation
from sandbox import Sandbox
from tests.crash.carrying import carry
from tests.flows import voucher_play
from tests.flows.declared import declared
from tests.flows.test_claims import MILEAGE, PARKING, accept, texts_of

LOST: Mapping[str, Any] = {"fault": "drop-after", "times": 1}


@dataclass(frozen=True)
class Scenario:
    """One way of a workflow: how it begins, and what must be true at its end, whatever happened in between.

    `right` returns what is wrong. `settings` are the installation's variables for it. `overlapping`: tried with two
    holders at once, too; one way per flow tells what there is to tell.
    """

    name: str
    begin: Callable[[Sandbox, str], UUID]
    right: Callable[[Sandbox, str, UUID], list[str]]
    settings: Mapping[str, str] = field(default_factory=dict)
    overlapping: bool = False


def counted(sandbox: Sandbox, correlation: str, **expected: int) -> list[str]:
    """What the ledger says of this workflow's effects, where it is not what it should be."""
    ledger = sandbox.ledger(correlation)
    return [
        f"{kind}: {found} effects instead of {number}"
        for kind, number in expected.items()
        if (found := sum(entry["count"] for entry in ledger[kind])) != number
    ]


def rests_in(workflow_id: UUID, *states: str) -> list[str]:
    found = carry(workflow_id)
    return [] if found.state in states and not found.in_doubt else [f"it is {found.state}, in doubt: {found.in_doubt}"]


# Travel claims and their texts


def claim(sandbox: Sandbox, correlation: str, *, lost: tuple[str, ...] = (), refused: str = "", **more: Any) -> UUID:
    for call in lost:
        sandbox.fault(call, **LOST)
    if refused:
        sandbox.fault(refused, "status", status=400)
    icn = f"{correlation.rpartition('-')[2]:0>10}V019349"
    return accept(corr=correlation, icn=icn, details=[MILEAGE, PARKING], **more)


def ended(sandbox: Sandbox, correlation: str, claim_id: UUID, *, state: str, **effects: int) -> list[str]:
    faults = rests_in(claim_id, state)
    told = texts_of(claim_id)
    for one in told:
        faults += rests_in(one.id, "sent", "delivered")
    faults += [] if len(told) == 1 else [f"{len(told)} texts"]
    return faults + counted(sandbox, correlation, claims=1, expenses=2, texts=1, **effects)


def text(sandbox: Sandbox, correlation: str, *, lost: tuple[str, ...] = ()) -> UUID:
    claim_id = claim(sandbox, correlation)
    carry(claim_id)
    for call in lost:
        sandbox.fault(call, **LOST)
    (told,) = texts_of(claim_id)
    return told.id


def sent(sandbox: Sandbox, correlation: str, text_id: UUID) -> list[str]:
    return rests_in(text_id, "sent", "delivered") + counted(sandbox, correlation, texts=1)


# Declarations


def paid(sandbox: Sandbox, correlation: str, *, lost: tuple[str, ...] = ()) -> UUID:
    for call in lost:
        sandbox.fault(call, **LOST)
    declaration_id = declared()
    with db.transaction() as session:
        session.execute(update(Workflow).where(Workflow.id == declaration_id).values(correlation_id=correlation))
    return declaration_id


def received(sandbox: Sandbox, correlation: str, declaration_id: UUID) -> list[str]:
    return rests_in(declaration_id, "submitted") + counted(sandbox, correlation, declarations=1)


# Vouchers


def operation(
    sandbox: Sandbox, correlation: str, kind: str, parameters: Mapping[str, Any], *, lost: tuple[str, ...] = ()
) -> UUID:
    """An operation on the voucher of a new subscription, which is live unless it is to be created."""
    subscription = f"S{correlation.rpartition('-')[2]}"
    if kind != "create":
        carry(asked_for(subscription, f"{correlation}-create", "create", {"scheme": "Guardian7Day"}))
    for call in lost:
        sandbox.fault(call, **LOST)
    return asked_for(subscription, correlation, kind, parameters)


def asked_for(subscription: str, correlation: str, kind: str, parameters: Mapping[str, Any]) -> UUID:
    owner = voucher_play.client_id()
    new = NewOperation(
        client_id=owner,
        correlation_id=correlation,
        operation=kind,
        parameters=dict(parameters),
        urgent=False,
        withdrawable=False,
    )
    with db.transaction() as session:
        voucher = vouchers.lock(session, subscription)
        if kind == "create":
            vouchers.request(voucher, owner)
        return voucher_operations.accept(session, voucher, new)


def done(sandbox: Sandbox, correlation: str, operation_id: UUID, **effects: int) -> list[str]:
    return rests_in(operation_id, "succeeded") + counted(sandbox, correlation, **effects)


def vouchers_ways() -> list[Scenario]:
    """Each operation, with every answer, and with one lost."""
    start, end, last = (str((clock.now() + timedelta(days=days)).date()) for days in (2, 9, 30))
    soon, later = {"startDate": start, "endDateExclusive": end}, {"cancellationDate": last}
    ways: list[tuple[str, str, Mapping[str, Any], str, dict[str, int]]] = [
        ("create", "create", {"scheme": "Guardian7Day"}, "create-voucher", {"vouchers": 1}),
        ("replace", "replace", {"replaceCard": True, "replaceLetter": True}, "replace-voucher", {"replacements": 2}),
        ("cancel", "cancel", {"cancellationDate": None}, "cancel-voucher", {"cancellations": 1}),
        ("cancel later", "cancel", later, "cancel-voucher", {}),
        ("suspend", "suspend", soon, "set-holiday", {"holidays": 1}),
    ]
    return [
        Scenario(
            f"voucher, {name}{', answer lost' if lost else ''}",
            partial(operation, kind=kind, parameters=parameters, lost=lost),
            partial(done, **effects),
            overlapping=name == "replace" and not lost,
        )
        for name, kind, parameters, call, effects in ways
        for lost in ((), (call,))
    ]


EFFECTS = ("find-or-add", "create-claim", "add-expense", "submit-claim")
DELETES = {"TRAVEL_PAY_DELETE_CLAIM_PATH": "api/v3/claims/{claimId}"}
submitted = partial(ended, state="submitted", submissions=1, deletions=0)
undone = partial(ended, state="rolled-back", submissions=0, deletions=2)

SCENARIOS = [
    Scenario("claim", claim, submitted, overlapping=True),
    Scenario("claim, every answer lost once", partial(claim, lost=EFFECTS), submitted),
    Scenario("claim undone", partial(claim, rollback=True, refused="submit-claim"), undone),
    Scenario("text", text, sent, overlapping=True),
    Scenario("text, answer lost", partial(text, lost=("send-sms",)), sent),
    Scenario("declaration", paid, received, overlapping=True),
    Scenario("declaration, answer lost", partial(paid, lost=("submit-declaration",)), received),
    *vouchers_ways(),
]
