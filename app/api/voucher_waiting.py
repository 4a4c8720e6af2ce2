"""Waiting for the outcome of an operation, and what is answered when the wait is over. Source: vouchers contract, 2.3.

Who waits holds no database connection, and takes one of the places that a process has for those who wait.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from flask import Response, g

from app import config, db, logs, metrics, states, vouchers
from app.api import headers, voucher_answers, waiting
from app.flows import voucher_requests
from app.flows.voucher_record import message
from app.store import voucher_operations
from app.store.voucher_operations import Standing

log = logs.get("api.vouchers")
_ACCEPTED = Standing(state=states.VOUCHER_OPERATION.start, due_in=0)


@contextmanager
def place() -> Iterator[bool]:
    """Whether there is a place for one more request of the line, which leaves it at the end."""
    with waiting.places.one("vouchers") as free:
        metrics.voucher_waiting_requests.inc(free)
        try:
            yield free
        finally:
            metrics.voucher_waiting_requests.dec(free)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """For how many seconds this caller waits, from the arrival of his request on; `strict`: he takes no 202."""

    seconds: float
    strict: bool
    applied: str

    @property
    def ends(self) -> float:
        """When the wait is over, by the monotonic clock."""
        return arrived() + self.seconds


def arrived() -> float:
    """When the request came, by the monotonic clock."""
    begun: float = g.begun
    return begun


def patience() -> Patience:
    """What `Prefer` says, or all the time there is."""
    most, preferred = config.settings().vouchers.wait_seconds, headers.preferences()
    seconds = 0.0 if preferred.respond_async else most
    applied = ["respond-async"] if preferred.respond_async else []
    if preferred.wait is not None:
        seconds = min(float(preferred.wait), most)
        applied.append(f"wait={seconds:g}")
    applied += ["handling=strict"] if preferred.strict else []
    return Patience(seconds=seconds, strict=preferred.strict, applied=", ".join(applied))


def outcome(operation_id: UUID, patience: Patience) -> Response:
    """The outcome of a committed operation, or what is said about it when the wait is over."""
    try:
        standing = _waited(operation_id, patience)
        response = _answer(operation_id, standing, strict=patience.strict)
    except Exception as error:
        if not db.unreachable(error):
            raise
        log.warning("vouchers.database-away", error_class=type(error).__name__)
        response = _in_the_dark(operation_id, strict=patience.strict)
    if patience.applied:
        response.headers["Preference-Applied"] = patience.applied
    return response


def _answer(operation_id: UUID, standing: Standing, *, strict: bool) -> Response:
    if standing.is_final:
        return voucher_answers.final(voucher_requests.outcome(operation_id))
    if strict:
        return voucher_answers.final(voucher_requests.withdraw(operation_id))
    return voucher_answers.unfinished(operation_id, standing.state)


def _in_the_dark(operation_id: UUID, *, strict: bool) -> Response:
    """Postgres went away after the commit: the operation goes on, whatever its outcome will be."""
    if strict:
        return voucher_answers.final(message(504, vouchers.UNDECIDED, operation_id=operation_id))
    return voucher_answers.unfinished(operation_id, _ACCEPTED.state)


def _waited(operation_id: UUID, patience: Patience) -> Standing:
    """How the operation stands when it is final, when nothing more happens within the wait, or when that is over."""
    seen = [_look(operation_id)]

    def reached() -> bool:
        seen[0] = _look(operation_id)
        return seen[0].is_final or seen[0].due_in > patience.ends - time.monotonic()

    with place() as free:
        if free and not seen[0].is_final:
            waiting.until(reached, seconds=patience.ends - time.monotonic())
    return seen[0]


def _look(operation_id: UUID) -> Standing:
    with db.statements() as session:
        return voucher_operations.standing(session, operation_id) or _ACCEPTED
