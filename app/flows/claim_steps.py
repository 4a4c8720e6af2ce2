"""The verbs of a travel claim's steps but add_expenses: do and find. Source: travel-claims contract, 5.2 to 5.5.

A verb reads the claim's row, speaks to Travel Pay, and returns an outcome with the columns to store. Tokens that were
renewed on the way are stored with whatever outcome there is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app import errors, states
from app.flows import claim_expenses, spoken
from app.flows.spoken import speaks
from app.models.claim import Claim
from app.steps import Ended, Failure, Nothing, Ok, Outcome, Rejected, Retry, Unknown, Work
from app.upstreams import travel_pay_answers as answers
from app.upstreams.travel_pay import TravelPay
from app.upstreams.travel_pay_answers import Appointment, ClaimDetails

ALREADY_FILED = "A claim already exists for this appointment."
_READ_AGAIN_SECONDS = 2.0
ROLLING_BACK = states.Claim.ROLLING_BACK


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


def claim_is_there(claim: Claim) -> bool:
    """Whether create_claim is through; an associated claim that was only forgotten leaves it to be created."""
    return claim.claim_id is not None


@speaks
def create_claim(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    if claim.associated_claim_id or claim.associated_claim_number:
        return _already_there(claim, client)
    try:
        claim_id = client.create_claim(str(claim.appointment_id))
    except Ended as ended:
        if isinstance(ended.outcome, Unknown):
            return replace(ended.outcome, values={**ended.outcome.values, "create_doubted": True})
        if answers.is_duplicate(ended):
            return _answered_duplicate(claim, client, ended)
        raise
    return Ok(values={"claim_id": claim_id, "claim_made": True, "status": "Incomplete"})


def _already_there(claim: Claim, client: TravelPay) -> Outcome:
    """What find_appointment saw: adopt our own unfinished claim, else duplicate. One that is gone is forgotten."""
    if not claim.associated_claim_id or not _ours(claim, claim.associated_claim_id):
        return _duplicate(ALREADY_FILED, number=claim.associated_claim_number)
    try:
        details = client.read_claim(claim.associated_claim_id)
    except Ended as ended:
        if ended.status == 404:
            return Ok(values={"associated_claim_id": None, "associated_claim_number": None})
        raise
    if answers.group(details.status) == "unfinished":
        return _adopted(claim, details)
    return _duplicate(ALREADY_FILED, number=details.claim_number or claim.associated_claim_number)


def _answered_duplicate(claim: Claim, client: TravelPay, refused: Ended) -> Outcome:
    """Create was refused because there is a claim: resume it if it is our own, whatever else is a duplicate.

    A look-up that is held back puts nothing in doubt: create was answered, and may be asked again.
    """
    failure = getattr(refused.outcome, "failure", None)
    sentence = failure.message if failure else ALREADY_FILED
    try:
        found = _look_for_claims(claim, client)
    except errors.NotSent as held_back:
        late = Failure(code="deadline-exceeded", http_status=504, message=sentence)
        return Retry(failure=late, after=held_back.after, free=True)
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
    if claim.state == ROLLING_BACK:
        return Ok(values=doubted, reason="the claim that stands there is not ours")
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


# submit_claim


@speaks
def submit_claim(claim: Claim, work: Work, client: TravelPay) -> Outcome:
    claim_expenses.delete_late(claim, client)
    try:
        status = client.submit(str(claim.claim_id))
    except Ended as ended:
        if not answers.is_already_submitted(ended):
            raise spoken.noting_a_lost_claim(claim, ended) from ended
        status = None
    return Ok(values=_read_back(claim, work, client, status))


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
