"""The gauges of the vouchers: unfinished operations, and how old the oldest is. Contract, section 7."""

from collections.abc import Mapping

from app import metrics, states
from app.db import Session
from app.store import voucher_queue

_OPERATIONS = ("create", "replace", "cancel", "suspend")
Standing = tuple[Mapping[tuple[str, str], int], float]


def read(session: Session) -> Standing:
    """Counts by operation and state, and the age of the oldest in seconds."""
    return voucher_queue.standing(session)


def show(standing: Standing) -> None:
    """Set the gauges; what there is none of is 0."""
    counts, oldest = standing
    for operation in _OPERATIONS:
        for state in states.VOUCHER_OPERATION.states:
            if not states.VOUCHER_OPERATION.is_finished(state):
                count = counts.get((operation, str(state)), 0)
                metrics.voucher_operations_open.labels(operation, state).set(count)
    metrics.voucher_oldest_open_seconds.set(oldest)
