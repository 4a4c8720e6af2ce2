"""The state machines: the states and legal moves of every line, as data.

`finished` is a mark on the state, not derived from the moves: a finished state may have moves out (retry, a receipt).
`free` are the states in which a workflow no longer holds its slot (the visit of a claim), so that a new one may begin.
Sources: travel-claims contract 3.1 and 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Claim(StrEnum):
    ACCEPTED = "accepted"
    AUTHORIZED = "authorized"
    APPOINTMENT_FOUND = "appointment-found"
    CREATED = "created"
    EXPENSED = "expensed"
    ROLLING_BACK = "rolling-back"
    SUBMITTED = "submitted"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    ROLLBACK_FAILED = "rollback-failed"
    CANCELLED = "cancelled"


class Notification(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    SKIPPED = "skipped"
    FAILED = "failed"


class ClaimCallback(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of workflow: where it starts, which moves exist, where it rests."""

    kind: str
    states: type[StrEnum]
    start: StrEnum
    moves: Mapping[StrEnum, frozenset[StrEnum]]
    finished: frozenset[StrEnum]
    free: frozenset[StrEnum] = frozenset()

    def allows(self, of: str, to: str) -> bool:
        return self.states(to) in self.moves.get(self.states(of), frozenset())

    def is_finished(self, state: str) -> bool:
        return self.states(state) in self.finished

    def is_free(self, state: str) -> bool:
        return self.states(state) in self.free


_C, _N, _B = Claim, Notification, ClaimCallback
_STOPS = {_C.FAILED, _C.CANCELLED}
_STOPS_WITH_UNDO = {*_STOPS, _C.ROLLING_BACK}
_BEFORE_SUBMITTED = {_C.ACCEPTED, _C.AUTHORIZED, _C.APPOINTMENT_FOUND, _C.CREATED, _C.EXPENSED}

CLAIM = Machine(
    kind="claim",
    states=Claim,
    start=_C.ACCEPTED,
    moves={
        _C.ACCEPTED: frozenset({_C.AUTHORIZED, *_STOPS}),
        _C.AUTHORIZED: frozenset({_C.APPOINTMENT_FOUND, *_STOPS}),
        _C.APPOINTMENT_FOUND: frozenset({_C.CREATED, _C.DUPLICATE, *_STOPS_WITH_UNDO}),
        _C.CREATED: frozenset({_C.EXPENSED, *_STOPS_WITH_UNDO}),
        _C.EXPENSED: frozenset({_C.SUBMITTED, *_STOPS_WITH_UNDO}),
        _C.ROLLING_BACK: frozenset({_C.ROLLED_BACK, _C.ROLLBACK_FAILED, _C.CANCELLED, _C.SUBMITTED}),
        _C.FAILED: frozenset(_BEFORE_SUBMITTED),
    },
    finished=frozenset(
        {_C.SUBMITTED, _C.DUPLICATE, _C.FAILED, _C.ROLLED_BACK, _C.ROLLBACK_FAILED, _C.CANCELLED},
    ),
    free=frozenset({_C.FAILED, _C.ROLLED_BACK, _C.CANCELLED}),
)

NOTIFICATION = Machine(
    kind="notification",
    states=Notification,
    start=_N.PENDING,
    moves={
        _N.PENDING: frozenset({_N.SENT, _N.SKIPPED, _N.FAILED}),
        _N.SENT: frozenset({_N.DELIVERED, _N.UNDELIVERED}),
        _N.UNDELIVERED: frozenset({_N.DELIVERED}),
    },
    finished=frozenset({_N.SENT, _N.DELIVERED, _N.UNDELIVERED, _N.SKIPPED, _N.FAILED}),
)

CLAIM_CALLBACK = Machine(
    kind="claim-callback",
    states=ClaimCallback,
    start=_B.PENDING,
    moves={_B.PENDING: frozenset({_B.DELIVERED, _B.UNDELIVERED})},
    finished=frozenset({_B.DELIVERED, _B.UNDELIVERED}),
)

MACHINES: Mapping[str, Machine] = {machine.kind: machine for machine in (CLAIM, NOTIFICATION, CLAIM_CALLBACK)}
