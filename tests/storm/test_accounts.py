"""The accounting tells what is wrong: each thing that may go wrong is told once, and nothing else is."""

import random
import uuid
from typing import Any

import pytest

from tests.storm import accounts, claims, declarations, disasters, orders, vouchers
from tests.storm.accounts import Account
from tests.storm.orders import MILEAGE, Answer, Claim, Declaration, Subscription

ONE = uuid.UUID(int=1)
NOTHING: dict[str, list[Any]] = {
    kind: []
    for kind in (
        "claims", "expenses", "submissions", "deletions", "texts",
        "declarations", "vouchers", "replacements", "cancellations", "holidays",
    )
}  # fmt: skip


def answer(status: int, body: Any) -> Answer:
    return Answer(status, body or {}, 1)


def row(state: str, *, id: uuid.UUID = ONE, **more: Any) -> dict[str, Any]:
    common = {"id": id, "state": state, "correlation_id": "one", "in_doubt": False, "finished_at": 1, "error": None}
    return {**common, "deaths": 0, "crashed": False, **more}


def told(account: Account) -> list[str]:
    return [wrong.kind for wrong in account.wrong]


# Claims


def filed(*, rollback: bool = False, refused: bool = False) -> Claim:
    answers = [answer(202, {"id": str(ONE)})]
    return Claim(name="one", icn="V", expenses=[MILEAGE], rollback=rollback, refused=refused, answers=answers)


def claim(state: str = "submitted", **more: Any) -> dict[str, Any]:
    expenses = [{"state": "added", "expenseId": "e1"}]
    return row(state, **{"claim_id": "c1", "expenses": expenses, "undo": {}} | more)


def travel_pay(*, claims: str = "c1", expenses: str = "e1", submissions: int = 1, gone: str = "") -> dict[str, Any]:
    deletions = [{"icn": "V", "what": "expense", "claimId": "c1", "expenseId": one} for one in gone.split()]
    return NOTHING | {
        "claims": [{"icn": "V", "ids": claims.split()}],
        "expenses": [{"icn": "V", "claimId": "c1", "ids": expenses.split()}],
        "submissions": [{"icn": "V", "count": submissions}] if submissions else [],
        "deletions": deletions,
    }


@pytest.mark.parametrize(
    ("rows", "ledger", "wrong"),
    [
        ([claim()], travel_pay(), []),
        ([claim()], travel_pay(expenses="e1 e2", gone="e2"), []),
        ([], travel_pay(), ["missing", "orphans"]),
        ([claim(), claim(id=uuid.UUID(int=2))], travel_pay(), ["duplicates"]),
        ([claim()], travel_pay(claims="c1 c2"), ["duplicates"]),
        ([claim()], travel_pay(expenses="e1 e2"), ["duplicates"]),
        ([claim()], travel_pay(expenses="e1", gone="e1"), ["missing"]),
        ([claim()], travel_pay(submissions=2), ["duplicates"]),
        ([claim()], travel_pay(submissions=0), ["missing"]),
        ([claim("failed")], travel_pay(), ["orphans", "missing"]),
        ([claim("failed", claim_id=None)], travel_pay(submissions=0), ["orphans", "missing"]),
        ([claim("failed", in_doubt=True)], travel_pay(), ["in doubt"]),
        ([claim("failed", in_doubt=True, crashed=True, deaths=2)], travel_pay(), ["in doubt"]),
        ([claim("failed", in_doubt=True, crashed=True, deaths=3)], travel_pay(), []),
    ],
)
def test_a_claim_is_right_exactly_if_travel_pay_shows_what_its_row_says(
    rows: list[Any], ledger: Any, wrong: list[str]
) -> None:
    assert told(claims.account([filed()], rows, ledger)) == wrong


def test_a_claim_that_was_refused_ends_as_it_was_asked_to() -> None:
    undone = claim("rolled-back", undo={"claim": "gone"}, expenses=[{"state": "removed", "expenseId": "e1"}])
    left, gone = travel_pay(submissions=0), travel_pay(submissions=0, gone="e1")
    gone["deletions"].append({"icn": "V", "what": "claim", "claimId": "c1"})
    refused = filed(refused=True)
    assert told(claims.account([refused], [claim("failed")], left)) == []
    assert told(claims.account([filed(refused=True, rollback=True)], [undone], gone)) == []
    assert told(claims.account([filed(refused=True, rollback=True)], [undone], left)) == ["orphans", "orphans"]
    assert told(claims.account([refused], [claim()], left)) == ["missing", "missing"]


def test_a_rollback_given_up_half_way_leaves_some_of_it_and_nothing_else() -> None:
    """It does not say how far it came; a person looks."""
    died = claim("rollback-failed", crashed=True, deaths=3)
    for left in (travel_pay(submissions=0), travel_pay(claims="", expenses="", submissions=0)):
        account = claims.account([filed(rollback=True, refused=True)], [died], left)
        assert (told(account), account.given_up) == ([], {str(ONE): accounts.DIED})
    foreign = travel_pay(claims="c2", submissions=0)
    assert "orphans" in told(claims.account([filed(rollback=True, refused=True)], [died], foreign))


@pytest.mark.parametrize(
    ("rows", "sent", "wrong"),
    [
        ([row("sent", claim=ONE)], {str(ONE): 1}, []),
        ([row("sent", claim=ONE)], {str(ONE): 2}, ["duplicates"]),
        ([row("sent", claim=ONE)], {}, ["missing"]),
        ([row("failed", claim=ONE)], {}, ["missing"]),
        ([], {}, ["missing"]),
        ([row("sent", claim=ONE)], {str(ONE): 1, "foreign": 1}, ["duplicates"]),
        ([row("failed", claim=ONE, in_doubt=True)], {str(ONE): 1}, ["in doubt"]),
        ([row("failed", claim=ONE, in_doubt=True, crashed=True, deaths=3)], {str(ONE): 1}, []),
        ([row("failed", claim=ONE, in_doubt=True, crashed=True, deaths=3)], {str(ONE): 2}, ["duplicates"]),
    ],
)
def test_every_final_claim_has_one_text(rows: list[Any], sent: dict[str, int], wrong: list[str]) -> None:
    ledger = NOTHING | {"texts": [{"reference": one, "count": count} for one, count in sent.items()]}
    assert told(claims.texts([claim()], rows, ledger)) == wrong


# Declarations


def declared(state: str = "submitted", **more: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"charge_reference": "X1", "number": 0, "attempts": 1}
    return row(state, **own | more)


@pytest.mark.parametrize(
    ("rows", "count", "calls", "wrong"),
    [
        ([declared()], 1, 1, []),
        ([declared()], 0, 1, ["missing"]),
        ([declared()], 1, 2, ["orphans"]),
        ([declared(attempts=2)], 1, 2, []),
        ([declared("failed")], 0, 1, ["missing"]),
        ([declared("failed")], 1, 1, ["orphans", "missing"]),
        ([declared("failed", in_doubt=True)], 1, 1, ["in doubt"]),
        ([declared("pending-payment")], 0, 0, ["missing"]),
        ([], 0, 0, ["missing"]),
        ([declared(charge_reference="X2")], 0, 0, ["missing", "missing"]),
    ],
)
def test_a_declaration_that_was_paid_is_at_mdg_once(rows: list[Any], count: int, calls: int, wrong: list[str]) -> None:
    order = Declaration(
        name="one", notices=1, refused=False, pause=0, answers=[answer(202, {"_id": "X1"}), answer(202, None)]
    )
    ledger = NOTHING | {"declarations": [{"acknowledgementReference": "X10", "count": count}] if count else []}
    assert told(declarations.account([order], rows, ledger, {"X10": calls})) == wrong


@pytest.mark.parametrize(
    ("times", "state", "wrong"), [(1, "submitted", ["missing"]), (2, "submitted", []), (2, "failed", ["missing"])]
)
def test_a_notice_whose_first_answer_was_lost_may_have_been_taken(times: int, state: str, wrong: list[str]) -> None:
    refused = Answer(423, {}, times)
    order = Declaration(name="one", notices=1, refused=False, pause=0, answers=[answer(202, {"_id": "X1"}), refused])
    held = int(state == "submitted")
    ledger = NOTHING | {"declarations": [{"acknowledgementReference": "X10", "count": held}] if held else []}
    assert told(declarations.account([order], [declared(state)], ledger, {"X10": 1})) == wrong


def test_a_declaration_that_mdg_refuses_after_a_lost_call_is_uncertain_and_not_there() -> None:
    order = Declaration(
        name="one", notices=1, refused=True, pause=0, answers=[answer(202, {"_id": "X1"}), answer(202, None)]
    )
    there = NOTHING | {"declarations": [{"acknowledgementReference": "X10", "count": 1}]}
    uncertain = declarations.account([order], [declared("failed", in_doubt=True)], NOTHING, {})
    assert (told(uncertain), uncertain.given_up) == ([], {str(ONE): accounts.REFUSED_IN_DOUBT})
    assert told(declarations.account([order], [declared("failed", in_doubt=True)], there, {})) == ["orphans"]


# Vouchers


def operation(kind: str, state: str = "succeeded", *, number: int = 1, **more: Any) -> dict[str, Any]:
    asked = {"cancellationDate": None, "replaceCard": True, "replaceLetter": False}
    own = {"subscription_id": "S", "operation": kind, "parameters": asked, "sends": 1, "lost_sends": 0}
    own |= {"outcome_code": "done", "correlation_id": f"one-{number}"}
    return row(state, id=uuid.UUID(int=number), **own | more)


def imovo(*, vouchers: int = 1, replacements: int = 1) -> dict[str, Any]:
    made = {"subscriptionId": "S", "count": vouchers, "cardCode": "60", "letterCode": "09"}
    replaced = {"subscriptionId": "S", "count": replacements, "kind": "card", "id": "61"}
    return NOTHING | {"vouchers": [made] if vouchers else [], "replacements": [replaced] if replacements else []}


CREATED, REPLACED = operation("create"), operation("replace", number=2)
LOST = operation("replace", "unresolved", number=2, in_doubt=True, outcome_code="outcome-unknown")
NOT_LIVE = operation("replace", "rejected", number=2, outcome_code="not-live")
DIED = operation("create", "failed", crashed=True, deaths=3, outcome_code="crashed")
CANCELLED = operation("cancel", number=2)
OVER = operation("replace", "rejected", number=3, outcome_code="already-replaced")


@pytest.mark.parametrize(
    ("rows", "ledger", "shown", "wrong"),
    [
        ([CREATED, REPLACED], imovo(), "61", []),
        ([CREATED, REPLACED, OVER], imovo(), "61", []),
        ([CREATED, OVER], imovo(replacements=0), "60", ["missing"]),
        ([CREATED, REPLACED], imovo(), "60", ["missing"]),
        ([CREATED, REPLACED], imovo(replacements=2), "61", ["duplicates"]),
        ([CREATED, REPLACED], imovo(replacements=0), "60", ["missing"]),
        ([CREATED, REPLACED, REPLACED | {"correlation_id": "two"}], imovo(), "61", ["duplicates"]),
        ([CREATED, operation("replace", "failed", number=2)], imovo(), "61", ["missing", "orphans"]),
        ([CREATED, LOST], imovo(), "61", ["in doubt", "orphans"]),
        ([CREATED, LOST | {"lost_sends": 3}], imovo(), "61", []),
        ([CREATED, LOST | {"lost_sends": 3}], imovo(replacements=2), "61", ["orphans"]),
        ([CREATED, operation("create", number=2)], imovo(replacements=0), "60", []),
        ([CREATED | {"sends": 0}], imovo(replacements=0), "60", ["orphans"]),
        ([CREATED, CREATED | {"id": 2}], imovo(replacements=0), "60", ["duplicates"]),
        ([CREATED, NOT_LIVE], imovo(replacements=0), "60", ["missing"]),
        ([DIED, NOT_LIVE], NOTHING, "", []),
        ([DIED, CANCELLED], NOTHING, "", []),
        ([DIED, CANCELLED], imovo(replacements=0), "", ["missing", "orphans"]),
        ([CREATED, CANCELLED], imovo(replacements=0), "", ["missing"]),
        ([], NOTHING, "", ["missing"]),
    ],
)
def test_every_effect_on_a_voucher_is_that_of_one_operation(
    rows: list[Any], ledger: Any, shown: str, wrong: list[str]
) -> None:
    order = Subscription(name="one", id="S", changes=(), answers=[answer(202, {"operationId": str(ONE)})])
    codes = {"S": {"cardCode": shown, "letterCode": "09"}} if shown else {}
    assert told(vouchers.account([order], rows, ledger, {"S": len(rows[:1])}, codes)) == wrong


# Choices


@pytest.mark.parametrize("workflows", [300, 20_000])
def test_the_orders_are_for_so_many_workflows_of_every_kind(workflows: int) -> None:
    placed = orders.chosen(random.Random(1), 1, workflows)
    filed, declared = (sum(isinstance(one, line) for one in placed) for line in (Claim, Declaration))
    changes = sum(len(one.changes) for one in placed if isinstance(one, Subscription))
    assert min(2 * filed, declared, changes) > workflows / 4
    assert 0 <= 2 * filed + declared + changes * orders.BECOME_WORKFLOWS - workflows < 10


def test_the_same_seed_makes_the_same_choices() -> None:
    def chosen(seed: int) -> tuple[Any, Any]:
        dice = random.Random(seed)
        placed, troubles = orders.chosen(dice, seed, 90), disasters.chosen(dice)
        return placed, [next(troubles) for _ in range(20)]

    assert chosen(1) == chosen(1) != chosen(2)
