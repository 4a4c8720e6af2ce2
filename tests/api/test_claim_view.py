"""A claim as shown: contract 2.4, 10.2 and 10.5."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, null

from app import db, states
from app.api.claim_schema import TravelClaim
from app.flows import claim_view
from app.models.claim import Claim
from app.models.notification import Notification
from app.store import claims
from app.store.claims import Shown
from tests.api.factories import add_text, claim, everything, put_into

UPSTREAM = "7d0f2c1e-5b0a-4b86-9c3d-0a1f6e2b8c44"
FAILURE = {
    "step": "add_expenses",
    "httpStatus": 422,
    "code": "rejected",
    "message": "Expense type is invalid for this claim.",
    "expenseIndex": 1,
    "retryable": False,
}


def change(id: str, /, **columns: Any) -> None:
    with db.transaction() as session:
        row = session.get_one(Claim, UUID(id))
        for name, value in columns.items():
            setattr(row, name, value)


def shown(claim_id: str) -> dict[str, Any]:
    with db.transaction() as session:
        found = claims.view(session, UUID(claim_id), None)
        assert found is not None
        return claim_view.render(found)


@pytest.fixture
def filed(post) -> str:
    expenses = everything()["expenses"][:2]
    return str(post(claim(expenses=expenses, rollback=True), headers={"X-Correlation-ID": "mine"}).json["id"])


def progress(*found: str) -> list[dict[str, Any]]:
    types = ("mileage", "parking")
    return [{"type": word, "state": state, "expenseId": None} for word, state in zip(types, found, strict=True)]


def test_the_error_object_is_that_of_the_contracts_example(filed):
    put_into(filed, "rolled-back", error=FAILURE)
    change(
        filed, claim_id=UPSTREAM, status="Incomplete", expenses=progress("removed", "pending"), failed_in="created",
        rollback_result="partial", rollback_detail="1 expense deleted; claim left, Travel Pay offers no delete here",
    )  # fmt: skip
    found = shown(filed)
    expected = {
        "step": "add_expenses", "httpStatus": 422, "code": "rejected",
        "message": "Expense type is invalid for this claim.", "expenseIndex": 1,
        "claim": {"id": UPSTREAM, "state": "Incomplete"},
        "rollback": {
            "requested": True, "result": "partial",
            "detail": "1 expense deleted; claim left, Travel Pay offers no delete here",
        },
        "retryable": False, "correlationId": "mine",
    }  # fmt: skip
    assert list(found["error"].items()) == list(expected.items())
    assert (found["step"], found["dueAt"], found["final"]) == ("add_expenses", None, True)
    assert [one["state"] for one in found["expenses"]] == ["removed", "pending"]


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({}, "none"),
        ({"in_doubt": True, "intent": {"step": "create_claim", "index": 0}}, "unknown"),
        ({"in_doubt": True, "intent": {"step": "add_expenses", "index": 0}, "claim_id": UPSTREAM}, "Incomplete"),
        ({"claim_id": UPSTREAM, "status": "Incomplete"}, "Incomplete"),
        ({"claim_id": UPSTREAM, "status": "Incomplete", "expenses": progress("added", "pending")}, "Saved"),
        ({"claim_id": UPSTREAM, "status": "Saved"}, "Saved"),
        ({"claim_id": UPSTREAM, "status": "Saved", "expenses": progress("removed", "pending")}, "Incomplete"),
        ({"claim_id": UPSTREAM, "status": "OnHold"}, "OnHold"),
        ({"claim_id": UPSTREAM, "status": "Brand New"}, "Brand New"),
        ({"claim_id": UPSTREAM, "status": "Saved", "undo": {"claim": "deleted"}}, "deleted"),
        ({"claim_id": UPSTREAM, "status": "Saved", "undo": {"claim": "gone"}}, "none"),
        ({"claim_id": UPSTREAM, "status": "Saved", "undo": {"claim": "refused"}}, "Saved"),
    ],
)
def test_the_error_tells_what_became_of_the_upstream_claim(filed, columns, state):
    put_into(filed, "failed", error=FAILURE)
    change(filed, **columns)
    assert shown(filed)["error"]["claim"]["state"] == state


@pytest.mark.parametrize("state", ["accepted", "created", "submitted", "cancelled"])
def test_an_error_is_shown_only_where_it_says_what_happened(filed, state):
    put_into(filed, state, error=FAILURE)
    assert shown(filed)["error"] is None


@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("accepted", "authorize"), ("authorized", "find_appointment"), ("appointment-found", "create_claim"),
        ("created", "add_expenses"), ("expensed", "submit_claim"), ("rolling-back", None), ("submitted", None),
        ("cancelled", None),
    ],
)  # fmt: skip
def test_the_step_in_progress_is_shown(filed, state, step):
    put_into(filed, state)
    assert shown(filed)["step"] == step


def test_an_expense_whose_call_was_lost_is_in_doubt(filed):
    put_into(filed, "created")
    change(filed, in_doubt=True, intent={"step": "add_expenses", "index": 1, "verb": "do"})
    assert [one["state"] for one in shown(filed)["expenses"]] == ["pending", "in-doubt"]


def test_a_cancel_asked_for_is_shown(filed):
    assert shown(filed)["cancelRequested"] is False
    put_into(filed, "created", asked="cancel")
    assert shown(filed)["cancelRequested"] is True


def test_the_text_of_the_present_run_is_shown(filed):
    put_into(filed, "failed")
    with db.transaction() as session:
        row = session.get_one(Claim, UUID(filed))
        text = Notification(
            state="skipped",
            due_at=null(),
            wake_at=null(),
            client_id=row.client_id,
            correlation_id="x",
            claim_id=row.id,
            run=1,
            product="pci",
            template="error",
            reason="no-phone",
            phone="+12025550143",
        )
        session.add(text)
    assert shown(filed)["text"] == {"state": "skipped", "template": "error", "reason": "no-phone"}
    change(filed, run=2)
    assert shown(filed)["text"] == {"state": "none", "template": None, "reason": None}


@pytest.mark.parametrize("state", list(states.Notification))
def test_a_text_is_shown_in_whatever_state_it_is(filed, state):
    put_into(filed, "failed")
    add_text(filed, state, template="timeout")
    assert shown(filed)["text"] == {"state": state, "template": "timeout", "reason": None}


@pytest.mark.parametrize(
    ("state", "told", "text"),
    [("failed", True, "sent"), ("failed", False, "none"), ("accepted", True, "none"), ("cancelled", True, "none")],
)
def test_where_the_new_outcome_is_not_told_the_text_of_the_earlier_run_stands(filed, state, told, text):
    put_into(filed, "failed")
    add_text(filed, "sent", run=1)
    due = {} if states.CLAIM.is_finished(state) else {"due_at": func.now(), "wake_at": func.now()}
    put_into(filed, state, **due)
    change(filed, run=2, told=told)
    assert shown(filed)["text"]["state"] == text


def test_a_cancelled_claim_shows_no_text(filed):
    put_into(filed, "failed")
    add_text(filed, "sent")
    put_into(filed, "cancelled")
    assert shown(filed)["text"]["state"] == "none"


@pytest.mark.parametrize("state", list(states.Claim))
def test_what_is_shown_is_what_the_documentation_says(filed, state):
    put_into(filed, state, error={name: FAILURE[name] for name in FAILURE if name != "expenseIndex"})
    found = shown(filed)
    TravelClaim.model_validate(found)
    names = [member.alias for member in TravelClaim.model_fields.values()]
    assert list(found) == names


def test_nothing_sealed_is_read_for_showing(filed):
    with db.transaction() as session:
        found = claims.view(session, UUID(filed), None)
        assert isinstance(found, Shown)
        for name in ("icn", "phone", "expense_details", "btsss_token"):
            with pytest.raises(Exception, match=r"raiseload|not available"):
                getattr(found.claim, name)
