"""The step add_expenses of a travel claim: one expense after the other, each exactly once. Contract 5.4.

An expense of ours and one upstream are equal in type, day, description and cost; two equal expenses in one claim are
two expenses, told apart by count only.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from app import expenses
from app.flows.spoken import gateway_of, noting_a_lost_claim, speaks
from app.models.claim import Claim
from app.steps import Ended, Nothing, Ok, Outcome, Unknown, Work
from app.upstreams.travel_pay import TravelPay


def all_expenses_added(claim: Claim) -> bool:
    return all(item["state"] in {"added", "adopted"} for item in claim.expenses) and not claim.adopt_expenses


@speaks
def add_expense(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """The next expense in order; an adopted claim's own expenses are matched first."""
    if claim.adopt_expenses:
        return _match_expenses(claim, client)
    index = next(place for place, item in enumerate(claim.expenses) if item["state"] not in {"added", "adopted"})
    details = _details(claim)[index]
    kind = expenses.TYPES[details["type"]]
    try:
        expense_id = client.add_expense(
            str(claim.claim_id),
            path=kind.path,
            version_key=kind.version_key,
            body=expenses.wire_body(
                details, claim_id=str(claim.claim_id), spaced=gateway_of(claim).settings.spaced_trip_types
            ),
            id_field=kind.id_field,
            index=index,
        )
    except Ended as ended:
        raise _at_expense(claim, noting_a_lost_claim(claim, ended), index) from ended
    return Ok(values={"expenses": _with(claim, index, state="added", expenseId=expense_id), "status": "Saved"})


def _at_expense(claim: Claim, ended: Ended, index: int) -> Ended:
    """The same ending, its failure naming the expense; a lost answer marks the expense for good."""
    outcome = ended.outcome
    if isinstance(outcome, Unknown):
        outcome = replace(outcome, values={**outcome.values, "expenses": _with(claim, index, doubted=True)})
    failure = getattr(outcome, "failure", None)
    if failure is not None:
        outcome = replace(outcome, failure=replace(failure, extra={"expenseIndex": index}))  # type: ignore[call-arg]
    return Ended(outcome, status=ended.status, message=ended.message, code=ended.code)


@speaks
def find_expense(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """An expense call was lost: is there one more equal to it than we know of?"""
    index = int((claim.intent or {})["index"])
    upstream = client.read_claim(str(claim.claim_id)).expenses
    surplus = surplus_expenses(claim, upstream, _details(claim)[index])
    if not surplus:
        return Nothing(values={"expenses": _with(claim, index, doubted=True)})
    changed = _with(claim, index, state="adopted", expenseId=surplus[0].id, doubted=True, made=True)
    return Ok(values={"expenses": changed, "status": "Saved"})


def _match_expenses(claim: Claim, client: TravelPay) -> Outcome:
    """Adopt, one for one, the expenses of an adopted claim that equal ours; the rest of theirs stays."""
    details = client.read_claim(str(claim.claim_id))
    theirs = list(details.expenses)
    changed = [dict(item) for item in claim.expenses]
    for item, wanted in zip(changed, _details(claim), strict=True):
        match = next((one for one in theirs if is_equal(one, wanted)), None)
        if match and item["state"] == "pending":
            theirs.remove(match)
            item.update(state="adopted", expenseId=match.id)
    return Ok(values={"expenses": changed, "status": details.status, "adopt_expenses": False})


def surplus_expenses(claim: Claim, upstream: Sequence[Any], wanted: dict[str, Any]) -> list[Any]:
    """The upstream expenses equal to this one of ours beyond those whose ids we know."""
    known = {item["expenseId"] for item in claim.expenses}
    return [one for one in upstream if one.id not in known and is_equal(one, wanted)]


def is_equal(one: Any, wanted: dict[str, Any]) -> bool:
    """Contract 5.4: type, day, description, and cost by value where the type has one."""
    return (
        _type_of(one) == wanted["type"]
        and (one.date_incurred or "")[:10] == wanted["dateIncurred"]
        and one.description == wanted["description"]
        and (not expenses.TYPES[wanted["type"]].has_cost or _money(one.cost) == _money(wanted["costRequested"]))
    )


def _type_of(one: Any) -> str | None:
    """The type of an expense as read back. `Other` may be any type: then the name tells, where it is one's."""
    words = {name.casefold(): word for word, kind in expenses.TYPES.items() for name in (word, kind.shown_as)}
    told = [words[said.casefold()] for said in (one.type, one.name) if said and said.casefold() in words]
    return next((word for word in told if word != "other"), "other" if told else None)


def _money(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _details(claim: Claim) -> list[dict[str, Any]]:
    return claim.expense_details or []


def _with(claim: Claim, index: int, **changes: Any) -> list[dict[str, Any]]:
    """The claim's expenses with one of them changed."""
    return [{**item, **changes} if place == index else dict(item) for place, item in enumerate(claim.expenses)]


def delete_late(claim: Claim, client: TravelPay) -> None:
    """A lost call may have taken effect after its repeat: what is there too often goes, before the submission."""
    doubted = [place for place, item in enumerate(claim.expenses) if item.get("doubted")]
    if not doubted:
        return
    upstream = client.read_claim(str(claim.claim_id)).expenses
    details = _details(claim)
    gone: set[str] = set()
    for place in doubted:
        kind = expenses.TYPES[details[place]["type"]]
        for extra in surplus_expenses(claim, upstream, details[place]):
            if extra.id not in gone:
                client.delete_expense(path=kind.path, version_key=kind.version_key, expense_id=extra.id)
                gone.add(extra.id)
