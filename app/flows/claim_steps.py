"""The verbs of a travel claim's five steps: do and find. Source: travel-claims contract, 5.2 to 5.5.

A verb reads the claim's row, speaks to Travel Pay, and returns an outcome with the columns to store. Tokens that were
renewed on the way are stored with whatever outcome there is.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from app import config, errors, expenses
from app.models.claim import Claim
from app.steps import Ended, Failure, Nothing, Ok, Outcome, Rejected, Unknown, Work
from app.upstreams import travel_pay_answers as answers
from app.upstreams.travel_pay import TravelPay
from app.upstreams.travel_pay_answers import Appointment, ClaimDetails

ALREADY_FILED = "A claim already exists for this appointment."
_READ_AGAIN_SECONDS = 2.0

Spoken = Callable[[Claim, Work, TravelPay], Outcome]


def settings() -> config.TravelPay:
    """The line's settings; only asked for while the line is on."""
    found = config.settings().travel_pay
    if found is None:
        raise errors.BadSettings("TRAVEL_PAY_URL is not set")
    return found


def speaks(verb: Spoken) -> Callable[[Claim, Work], Outcome]:
    """Give a verb its Travel Pay client, and store renewed tokens with its outcome."""

    @functools.wraps(verb)
    def run(claim: Claim, work: Work) -> Outcome:
        client = TravelPay(
            settings(),
            product=claim.product,
            icn=str(claim.icn),
            work=work,
            btsss_token=claim.btsss_token,
            veis_fingerprint=claim.veis_fingerprint,
        )
        try:
            outcome = verb(claim, work, client)
        except Ended as ended:
            outcome = ended.outcome
        return replace(outcome, values={**client.changed, **outcome.values})

    return run


@speaks
def authorize(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    client.authorize()
    return Ok()


@speaks
def find_appointment(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    found = _appointment(claim, client)
    return Ok(
        values={
            "appointment_id": found.id,
            "facility_name": found.facility_name,
            "associated_claim_id": found.claim_id,
            "associated_claim_number": found.claim_number,
        }
    )


def _appointment(claim: Claim, client: TravelPay) -> Appointment:
    """The entry of find-or-add that fits the visit; one that is not cancelled is preferred."""
    wanted = claim.appointment
    entries = client.find_or_add(
        wanted["dateTime"],
        wanted["stationNumber"],
        type=wanted.get("type"),
        complete=wanted.get("complete"),
        name=claim.appointment_name,
    )
    time = wanted["dateTime"]
    fitting = [entry for entry in entries if not entry.date_time or answers.same_minute(entry.date_time, time)]
    standing = [entry for entry in fitting if not entry.cancelled]
    if not fitting:
        message = "Travel Pay has no appointment that fits the visit."
        raise Ended(Rejected(failure=Failure(code="appointment-not-found", http_status=404, message=message)))
    return (standing or fitting)[0]


# create_claim


@speaks
def create_claim(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    if claim.associated_claim_id or claim.associated_claim_number:
        taken = _already_there(claim, client)
        if taken is not None:
            return taken
    try:
        claim_id = client.create_claim(str(claim.appointment_id))
    except Ended as ended:
        if isinstance(ended.outcome, Unknown):
            return replace(ended.outcome, values={**ended.outcome.values, "create_doubted": True})
        if answers.is_duplicate(ended):
            return _answered_duplicate(claim, client, _sentence(ended))
        raise
    return Ok(values={"claim_id": claim_id, "claim_made": True, "status": "Incomplete"})


def _sentence(ended: Ended) -> str:
    failure = getattr(ended.outcome, "failure", None)
    return failure.message if failure else ALREADY_FILED


def _already_there(claim: Claim, client: TravelPay) -> Outcome | None:
    """What find_appointment saw: adopt our own unfinished claim, else duplicate. None: it is gone, create."""
    if not claim.associated_claim_id or not _ours(claim, claim.associated_claim_id):
        return _duplicate(ALREADY_FILED, number=claim.associated_claim_number)
    try:
        details = client.read_claim(claim.associated_claim_id)
    except Ended as ended:
        if ended.status == 404:
            return None
        raise
    if answers.group(details.status) == "unfinished":
        return _adopted(claim, details)
    return _duplicate(ALREADY_FILED, number=details.claim_number or claim.associated_claim_number)


def _answered_duplicate(claim: Claim, client: TravelPay, sentence: str) -> Outcome:
    """Create was refused because there is a claim: resume it if it is our own, whatever else is a duplicate."""
    found = _look_for_claims(claim, client)
    own = [one for one in found if answers.group(one.status) == "unfinished" and _ours(claim, one.id)]
    if len(own) == 1:
        return _adopted(claim, own[0])
    if len(own) > 1:
        return _ambiguous()
    number = found[0].claim_number if len(found) == 1 else None
    return _duplicate(sentence, number=number)


@speaks
def find_claim(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """A create was lost: what unfinished claim of ours stands there now?"""
    claim.create_doubted = True
    found = _look_for_claims(claim, client)
    unfinished = [one for one in found if answers.group(one.status) == "unfinished"]
    doubted = {"create_doubted": True}
    if not found:
        return Nothing(values=doubted)
    if len(unfinished) > 1:
        return _ambiguous()
    if len(unfinished) == 1 and _ours(claim, unfinished[0].id):
        adopted = _adopted(claim, unfinished[0])
        return replace(adopted, values={**adopted.values, **doubted})
    return _duplicate(ALREADY_FILED, number=(unfinished or found)[0].claim_number)


def _look_for_claims(claim: Claim, client: TravelPay) -> Sequence[ClaimDetails]:
    """The claims of the visit as Travel Pay knows them: by the appointment, else by searching the day."""
    appointment = _appointment(claim, client)
    if appointment.claim_id:
        ids = [appointment.claim_id]
    else:
        time = claim.appointment["dateTime"]
        day = time[:10]
        facility = appointment.facility_name or claim.facility_name
        ids = [
            one.id
            for one in client.search(f"{day}T00:00:00", f"{day}T23:59:59")
            if answers.same_minute(one.date_time, time)
            and (not facility or not one.facility_name or one.facility_name == facility)
        ]
    return [client.read_claim(claim_id) for claim_id in dict.fromkeys(ids)]


def _ours(claim: Claim, claim_id: str) -> bool:
    """Contract 5.3: (a) recorded by a workflow of this client for this visit, or (b) a create of such a one was lost
    when none stood there. Whoever asks has seen, for (b), that the claim is unfinished."""
    saw_none = not claim.associated_claim_id and not claim.associated_claim_number
    return claim_id in claim.own_claims or claim.visit_doubted or (claim.create_doubted and saw_none)


def _adopted(claim: Claim, details: ClaimDetails) -> Ok:
    """Made by this workflow only where its own create had been in doubt."""
    made = claim.create_doubted and details.id not in claim.own_claims and not claim.associated_claim_id
    values = {
        "claim_id": details.id,
        "claim_made": made,
        "claim_number": details.claim_number,
        "status": details.status,
        "adopt_expenses": True,
    }
    return Ok(values=values, reason="claim adopted")


def _ambiguous() -> Outcome:
    message = "Several unfinished claims fit the visit; none was touched."
    return Rejected(failure=Failure(code="ambiguous-match", http_status=409, message=message, retryable=False))


def _duplicate(message: str, *, number: str | None) -> Outcome:
    failure = Failure(code="duplicate-claim", http_status=409, message=message, retryable=False)
    return Ok(state="duplicate", failure=failure, values={"claim_number": number}, reason="duplicate-claim")


# add_expenses


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
            body=expenses.wire_body(details, claim_id=str(claim.claim_id), spaced=settings().spaced_trip_types),
            id_field=kind.id_field,
            index=index,
        )
    except Ended as ended:
        raise _at_expense(claim, ended, index) from ended
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
    """Contract 5.4: type, day, description, and cost by value where the type has one. A type may hide in the name."""
    kind = expenses.TYPES[wanted["type"]]
    names = {(one.type or "").casefold(), (one.name or "").casefold()}
    return (
        bool(names & {name.casefold() for name in (wanted["type"], kind.shown_as)})
        and (one.date_incurred or "")[:10] == wanted["dateIncurred"]
        and one.description == wanted["description"]
        and (not kind.has_cost or _money(one.cost) == _money(wanted["costRequested"]))
    )


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


# submit_claim


@speaks
def submit_claim(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    _delete_late_expenses(claim, client)
    try:
        status = client.submit(str(claim.claim_id))
    except Ended as ended:
        if not answers.is_already_submitted(ended):
            raise
        status = None
    return Ok(values=_read_back(claim, work, client, status))


def _delete_late_expenses(claim: Claim, client: TravelPay) -> None:
    """A lost expense call may have taken effect after its repeat: what is there too often goes."""
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


def _read_back(claim: Claim, work: Work, client: TravelPay, status: str | None) -> dict[str, Any]:
    """Number and status after a submission. It stands: a read that fails or still says unfinished changes nothing."""
    values: dict[str, Any] = {"status": status or "ClaimSubmitted"}
    for pause in (0.0, _READ_AGAIN_SECONDS):
        try:
            if pause:
                work.pause(pause)
            details = client.read_claim(str(claim.claim_id))
        except (Ended, errors.NotSent):
            continue
        if details.claim_number:
            values["claim_number"] = details.claim_number
        if answers.group(details.status) != "unfinished":
            return {**values, "status": details.status}
    return values


@speaks
def find_submission(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    """A submit was lost: does Travel Pay call the claim submitted? Any other word: submit again once settled."""
    details = client.read_claim(str(claim.claim_id))
    if not answers.is_submitted(details.status):
        return Nothing(values={"status": details.status})
    values = {"status": details.status, "claim_number": details.claim_number or claim.claim_number}
    return Ok(values=values)
