"""The state machines: the states and legal moves of every line, as data.

`finished` is a mark on the state, not derived from the moves: a finished state may have moves out (retry, a receipt).
`free` are the states in which a workflow no longer holds its slot (the visit of a claim), so that a new one may begin.
`waits` are those in which somebody else moves next. A machine with `phases` shows in its state how far the one step of
its workflows is. Sources: travel-claims contract 3.1 and 3.2, declarations contract 3.1, vouchers contract 3.1 and 3.2.
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


class Declaration(StrEnum):
    PENDING_PAYMENT = "pending-payment"
    PAYMENT_FAILED = "payment-failed"
    PAYMENT_CANCELLED = "payment-cancelled"
    PAID = "paid"
    SUBMITTED = "submitted"
    FAILED = "failed"
    EXPIRED = "expired"


class VoucherOperation(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CALLING = "calling"
    CHECKING = "checking"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    UNRESOLVED = "unresolved"


class Voucher(StrEnum):
    """The long-lived record of a subscription; no workflow."""

    REQUESTED = "requested"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Phases:
    """The states of the one step of a workflow: nobody is at it, somebody is, its call is sent, its answer is in doubt.

    The engine's own writes (take, intent, retry, the end of a lease) move between them.
    """

    waiting: StrEnum
    running: StrEnum
    calling: StrEnum
    checking: StrEnum

    @property
    def all(self) -> frozenset[StrEnum]:
        return frozenset({self.waiting, self.running, self.calling, self.checking})


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of workflow: where it starts, which moves exist, where it rests."""

    kind: str
    states: type[StrEnum]
    start: StrEnum
    moves: Mapping[StrEnum, frozenset[StrEnum]]
    finished: frozenset[StrEnum]
    free: frozenset[StrEnum] = frozenset()
    waits: frozenset[StrEnum] = frozenset()
    phases: Phases | None = None

    def rest(self, state: str, *, in_doubt: bool) -> StrEnum:
        """Where a workflow in this state stands that nobody holds, with or without a call of unknown outcome."""
        found = self.states(state)
        if self.phases is None or found not in self.phases.all:
            return found
        return self.phases.checking if in_doubt else self.phases.waiting

    def busy(self, state: str, *, in_doubt: bool) -> StrEnum:
        """Where a workflow in this state stands once its holder has begun, or has recorded that its call follows."""
        found = self.states(state)
        if self.phases is None or found not in self.phases.all or found is self.phases.checking:
            return found
        return self.phases.calling if in_doubt else self.phases.running

    def allows(self, of: str, to: str) -> bool:
        return self.states(to) in self.moves.get(self.states(of), frozenset())

    def is_finished(self, state: str) -> bool:
        return self.states(state) in self.finished

    def is_free(self, state: str) -> bool:
        return self.states(state) in self.free

    def waits_in(self, state: str) -> bool:
        return self.states(state) in self.waits


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

_D = Declaration
UNPAID = frozenset({_D.PENDING_PAYMENT, _D.PAYMENT_FAILED, _D.PAYMENT_CANCELLED})
_NOTICES = frozenset({_D.PAID, _D.PAYMENT_FAILED, _D.PAYMENT_CANCELLED, _D.EXPIRED})

DECLARATION = Machine(
    kind="declaration",
    states=Declaration,
    start=_D.PENDING_PAYMENT,
    moves={
        **{unpaid: _NOTICES - {unpaid} for unpaid in UNPAID},
        _D.PAID: frozenset({_D.SUBMITTED, _D.FAILED}),
        _D.FAILED: frozenset({_D.PAID}),
    },
    finished=frozenset({_D.SUBMITTED, _D.FAILED, _D.EXPIRED}),
    waits=UNPAID,
)

_O = VoucherOperation

VOUCHER_OPERATION = Machine(
    kind="voucher-operation",
    states=VoucherOperation,
    start=_O.QUEUED,
    moves={
        _O.QUEUED: frozenset({_O.RUNNING, _O.FAILED}),
        _O.RUNNING: frozenset({_O.CALLING, _O.QUEUED, _O.SUCCEEDED, _O.REJECTED, _O.FAILED, _O.UNRESOLVED}),
        _O.CALLING: frozenset({_O.CHECKING, _O.QUEUED, _O.SUCCEEDED, _O.REJECTED, _O.UNRESOLVED}),
        _O.CHECKING: frozenset({_O.QUEUED, _O.SUCCEEDED, _O.REJECTED, _O.UNRESOLVED}),
        _O.FAILED: frozenset({_O.QUEUED}),
        _O.UNRESOLVED: frozenset({_O.CHECKING}),
    },
    finished=frozenset({_O.SUCCEEDED, _O.REJECTED, _O.FAILED, _O.UNRESOLVED}),
    free=frozenset({_O.SUCCEEDED, _O.REJECTED, _O.FAILED, _O.UNRESOLVED}),
    phases=Phases(waiting=_O.QUEUED, running=_O.RUNNING, calling=_O.CALLING, checking=_O.CHECKING),
)

MACHINES: Mapping[str, Machine] = {
    machine.kind: machine for machine in (CLAIM, NOTIFICATION, CLAIM_CALLBACK, DECLARATION, VOUCHER_OPERATION)
}

_V = Voucher
VOUCHER_MOVES: Mapping[Voucher | None, frozenset[Voucher | None]] = {
    None: frozenset({_V.REQUESTED, _V.ACTIVE}),
    _V.REQUESTED: frozenset({_V.ACTIVE, _V.CANCELLED, None}),
    _V.ACTIVE: frozenset({_V.SUSPENDED, _V.CANCELLED}),
    _V.SUSPENDED: frozenset({_V.ACTIVE, _V.CANCELLED}),
    _V.CANCELLED: frozenset({_V.REQUESTED}),
}
