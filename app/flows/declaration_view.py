"""A declaration as its owner or an operator sees it at this moment. Source: declarations contract, 2.4 and 3.1."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from app import config, states
from app.models.declaration import Declaration
from app.models.workflow import Call, Move
from app.store.declarations import TAKEN_AWAY, Shown

NEWEST = 200
S = states.Declaration
_Entry = dict[str, Any]


def render(shown: Shown) -> dict[str, Any]:
    """The declaration as JSON shows it. Nothing sealed is in it."""
    one = shown.declaration
    attempts = _attempts(shown)
    unpaid = one.state in states.UNPAID
    timeout = timedelta(seconds=config.settings().declarations.payment_timeout)
    return {
        "chargeReference": one.charge_reference,
        "state": one.state,
        "correlationId": one.correlation_id,
        "acknowledgementReference": one.acknowledgement_reference,
        "createdAt": time(one.created_at),
        "lastUpdated": time(one.updated_at),
        "paidAt": _time_or_none(one.paid_at),
        "finishedAt": _time_or_none(one.finished_at),
        "paymentDueAt": time(one.updated_at + timeout) if unpaid else None,
        "paymentTimedOut": one.payment_timed_out,
        "erasedAt": _time_or_none(one.erased_at),
        "submission": _submission(one, attempts),
        "timeline": _timeline([*_moves(shown.moves), *attempts]),
        "amendments": [],
    }


def data(declaration: Declaration) -> dict[str, Any]:
    """What is added where the data are asked for: all of it null or empty once erased."""
    return {
        "data": declaration.payload,
        "journeyData": declaration.journey_data,
        "faults": declaration.faults or [],
    }


def is_settled(state: str | None) -> bool:
    """Whether who waits after a payment has their outcome (contract 2.3)."""
    return state in {S.SUBMITTED, S.FAILED}


def time(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else time(moment)


def _submission(one: Declaration, attempts: Sequence[_Entry]) -> dict[str, Any]:
    failed, waits = one.state == S.FAILED, one.state == S.PAID and one.worker is None
    return {
        "attempts": attempts[-1]["detail"]["attempt"] if attempts else one.attempts,
        "nextAttemptAt": _time_or_none(one.due_at if waits else None),
        "error": _error(one, attempts),
        "uncertain": failed and one.in_doubt,
        "release": (one.release or None) if failed else None,
    }


def _error(one: Declaration, attempts: Sequence[_Entry]) -> str | None:
    """Why it failed, else what the last attempt that has ended met with."""
    if one.state == S.FAILED and one.error:
        return str(one.error["code"])
    ended = [entry["detail"] for entry in attempts if entry["detail"]["outcome"]]
    return ended[-1]["error"] if ended else None


def _timeline(entries: Iterable[_Entry]) -> list[_Entry]:
    """The newest, oldest first."""
    in_order = sorted(entries, key=lambda entry: entry["at"])[-NEWEST:]
    return [{**entry, "at": time(entry["at"])} for entry in in_order]


def _moves(moves: Sequence[Move]) -> Iterable[_Entry]:
    for move in moves:
        if move.reason not in TAKEN_AWAY:
            yield {
                "at": move.at,
                "event": _event(move),
                "from": move.of,
                "to": move.to,
                "by": "worker" if move.actor == "sweep" else move.actor,
                "detail": move.detail or {},
            }


def _event(move: Move) -> str:
    if move.to is None:
        return move.reason
    if move.of is None:
        return "accepted"
    if move.to == S.PAID:
        return "replayed" if move.of == S.FAILED else "payment-successful"
    return move.to


# Attempts


def _attempts(shown: Shown) -> list[_Entry]:
    """Every attempt, oldest first, numbered through: those that ended, were lost with their worker, and are under way.

    `attempts` counts intents. What is left of it beside the calls that were answered for was lost, and noticed by the
    sweep; a call without a connection has no intent.
    """
    entries = [_ended(call) for call in shown.calls]
    under_way = _under_way(shown.declaration, shown.calls)
    lost = shown.declaration.attempts - shown.sent - len(under_way)
    entries += [_lost(at) for at in _taken_away(shown.moves, under_way)[-lost:]] if lost > 0 else []
    entries = sorted([*entries, *under_way], key=lambda entry: entry["at"])
    last = max(shown.declaration.attempts, len(entries) + shown.made - len(shown.calls))
    for number, entry in enumerate(reversed(entries)):
        entry["detail"]["attempt"] = last - number
    return entries


def _taken_away(moves: Sequence[Move], under_way: Sequence[_Entry]) -> list[datetime]:
    """When the sweep took the submission from its holder, before the attempt that is under way."""
    times = [move.at for move in moves if move.reason in TAKEN_AWAY]
    return [at for at in times if not under_way or at < under_way[0]["at"]]


def _under_way(one: Declaration, calls: Sequence[Call]) -> list[_Entry]:
    """The attempt whose intent is newer than the last call, if there is one; without a holder it is lost."""
    if not one.in_doubt or not one.intent:
        return []
    begun = datetime.fromisoformat(one.intent["at"]).astimezone(UTC)
    if calls and begun <= calls[-1].at:
        return []
    return [_lost(begun) if one.worker is None else _attempt(begun)]


def _ended(call: Call) -> _Entry:
    begun = call.at - timedelta(milliseconds=call.milliseconds)
    outcome = {"outcome": call.outcome, "status": call.status, "error": call.code or None}
    return _attempt(begun, **outcome, durationMs=call.milliseconds)


def _lost(at: datetime) -> _Entry:
    return _attempt(at, outcome="unknown", error="worker-lost")


def _attempt(at: datetime, **ended: Any) -> _Entry:
    detail: Mapping[str, Any] = dict.fromkeys(("attempt", "outcome", "status", "error", "durationMs"))
    return {"at": at, "event": "attempt", "from": None, "to": None, "by": "worker", "detail": {**detail, **ended}}
