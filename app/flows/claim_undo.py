"""Undoing a travel claim: what this workflow made goes, last first; nothing else is touched. Contract 5.7.

Deletes are safe calls. One refused delete does not stop the others; each round tries all that is left, and after the
last round what is still there counts as refused. The claim's `undo` column keeps what was refused and what is deleted.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from app import expenses, states
from app.flows.spoken import gateway_of, speaks
from app.models.claim import Claim
from app.steps import Ended, Ok, Outcome, Rejected, Retry, Step, Work
from app.upstreams import travel_pay_answers as answers
from app.upstreams.travel_pay import TravelPay

S = states.Claim


def rollback(steps: Sequence[Step[Any]]) -> Callable[[Claim, Work], Outcome]:
    """The verb of `rolling-back`: look first, then undo the steps in reverse, then say how it ended."""
    undos = [step.undo for step in reversed(steps) if step.undo]

    def run(claim: Claim, work: Work) -> Outcome:
        looked = _look(claim, work)
        if not isinstance(looked, Ok) or looked.state:
            return looked
        values = _applied(claim, looked)
        waiting: Outcome | None = None
        for undo in undos:
            outcome = undo(claim, work)
            values |= _applied(claim, outcome)
            waiting = outcome if isinstance(outcome, Retry) else waiting
        if waiting is not None and claim.undo.get("claim") != "deleted":
            return replace(waiting, values=values)
        ending = _ending(claim)
        return replace(ending, values={**values, **ending.values})

    return run


def _applied(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    for name, value in outcome.values.items():
        setattr(claim, name, value)
    return dict(outcome.values)


@speaks
def _look(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """Read the claim: a submitted one is never touched, and of one that cannot be told nothing is deleted."""
    if not claim.claim_id or claim.undo.get("claim") == "deleted":
        return Ok()
    try:
        status = client.read_claim(claim.claim_id).status
    except Ended as ended:
        if ended.status == 404:
            gone = [{**item, "state": "removed"} if _own(item) else item for item in claim.expenses]
            return Ok(values={"expenses": gone, "undo": {**claim.undo, "claim": "gone"}})
        if isinstance(ended.outcome, Rejected) or work.last_try:
            return _untold("The claim could not be read; nothing was deleted.")
        raise
    if answers.is_submitted(status):
        detail = "Travel Pay shows the claim submitted; nothing was deleted."
        return Ok(state=S.SUBMITTED, values={"status": status, "rollback_detail": detail}, reason="already submitted")
    if answers.group(status) != "unfinished":
        return _untold("The claim is neither unfinished nor submitted; nothing was deleted.", status=status)
    seen = {name: what for name, what in claim.undo.items() if (name, what) != ("claim", "gone")}
    return Ok(values={"status": status, "undo": seen})


def _untold(detail: str, **values: Any) -> Ok:
    return Ok(
        state=S.ROLLBACK_FAILED,
        values={"rollback_result": "failed", "rollback_detail": detail, **values},
        reason="rollback failed",
    )


def _own(item: dict[str, Any]) -> bool:
    """Whether this workflow added the expense (an answer that was lost and found counts)."""
    return item["state"] == "added" or (item["state"] == "adopted" and bool(item.get("made")))


@speaks
def delete_expenses(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """Delete each expense that this workflow added, last first."""
    items = [dict(item) for item in claim.expenses]
    waiting: Retry | None = None
    for item in reversed(items):
        if not _own(item) or item.get("refused"):
            continue
        kind = expenses.TYPES[item["type"]]
        try:
            client.delete_expense(path=kind.path, version_key=kind.version_key, expense_id=item["expenseId"])
        except Ended as ended:
            if isinstance(ended.outcome, Retry) and not work.last_try:
                waiting = ended.outcome
            else:
                item["refused"] = True
            continue
        item["state"] = "removed"
    values: dict[str, Any] = {"expenses": items}
    if not any(item["state"] in {"added", "adopted"} for item in items):
        values["status"] = "Incomplete"
    return replace(waiting, values=values) if waiting else Ok(values=values)


@speaks
def delete_claim(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """Delete the claim, if this workflow made it and Travel Pay offers it here; its expenses go with it."""
    if not _may_delete(claim):
        return Ok()
    try:
        client.delete_claim(str(claim.claim_id))
    except Ended as ended:
        if isinstance(ended.outcome, Retry) and not work.last_try:
            raise
        return Ok(values={"undo": {**claim.undo, "claim": "refused"}})
    gone = [{**item, "state": "removed"} if _own(item) else item for item in claim.expenses]
    return Ok(values={"undo": {**claim.undo, "claim": "deleted"}, "expenses": gone})


def _may_delete(claim: Claim) -> bool:
    return bool(
        gateway_of(claim).settings.delete_claim_path
        and claim.claim_id
        and claim.claim_made
        and claim.undo.get("claim") is None
    )


def _ending(claim: Claim) -> Ok:
    """The result table of contract 5.7."""
    removed = sum(item["state"] == "removed" for item in claim.expenses)
    refused = sum(bool(item.get("refused")) and item["state"] != "removed" for item in claim.expenses)
    claim_gone = claim.undo.get("claim") in {"deleted", "gone"}
    claim_refused = claim.undo.get("claim") == "refused"
    left = claim.claim_made and not claim_gone and not claim_refused
    worked, failed = removed + claim_gone, refused + claim_refused
    result = _result(made=bool(worked or failed or left), worked=worked, failed=failed, left=left)
    detail = _detail(claim, removed, refused, left=left)
    stopped = S.CANCELLED if claim.asked else S.ROLLED_BACK
    values = {"rollback_result": result, "rollback_detail": detail}
    return Ok(state=S.ROLLBACK_FAILED if failed else stopped, values=values, reason=f"rollback {result}")


def _result(*, made: bool, worked: int, failed: int, left: bool) -> str:
    if not made:
        return "none"
    if failed:
        return "partial" if worked else "failed"
    if left:
        return "partial" if worked else "unsupported"
    return "succeeded"


def _detail(claim: Claim, removed: int, refused: int, *, left: bool) -> str | None:
    became = claim.undo.get("claim")
    parts = []
    if became == "gone":
        return "Travel Pay no longer knows the claim"
    if removed:
        parts.append(f"{removed} expense{'s' * (removed > 1)} deleted")
    if refused:
        parts.append(f"{refused} expense{'s' * (refused > 1)} could not be deleted")
    if became == "deleted":
        parts.append("claim deleted")
    if became == "refused":
        parts.append("claim could not be deleted")
    if left:
        parts.append("claim left, Travel Pay offers no delete here")
    return "; ".join(parts) or None
