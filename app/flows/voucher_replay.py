"""Replaying one operation that failed or stayed open, as an operator asks for it. Source: vouchers contract, 3.1.

Needs Postgres alone; the workers' sweep finds what is due again.
"""

from functools import partial
from typing import Any
from uuid import UUID

from app import db, logs, states
from app.flows.vouchers import FLOW
from app.store import voucher_operations, voucher_replays, workflows
from app.store import vouchers as records
from app.store.workflows import Seen

S = states.VoucherOperation
_BACK = {S.FAILED: S.QUEUED, S.UNRESOLVED: S.CHECKING}
log = logs.get("vouchers")


def replay(operation_id: UUID, *, by: str, reason: str, dry_run: bool) -> str:
    """Bring it back, if nothing of its subscription is in the way. Returns the state that it has (or would have).

    What failed is queued anew; what is unresolved is looked at first, and never sent straight away. Raises LookupError
    where there is none, ValueError for one that cannot be replayed.
    """
    with db.transaction() as session:
        operation = voucher_operations.find(session, operation_id)
        if operation is None:
            raise LookupError(f"There is no operation {operation_id} on a voucher.")
        voucher = records.lock(session, operation.subscription_id)
        seen = workflows.read(session, operation_id)
        to = _BACK.get(S(seen.state)) if seen else None
        if seen is None or to is None:
            raise ValueError(f"The operation is {seen and seen.state}: only what failed or is unresolved is replayed.")
        if voucher.client_id not in {None, operation.client_id}:
            raise ValueError("The voucher is another client's by now.")
        if other := voucher_replays.in_the_way(session, operation):
            raise ValueError(f"Operation {other} of the subscription is unfinished, or was accepted later and sent.")
        if dry_run:
            return to
        intent = _intent(seen) if to is S.CHECKING else None
        if not voucher_replays.send_again(session, operation, seen, to, intent=intent):
            raise ValueError("The operation has changed meanwhile; try again.")
        if operation.operation == "create":
            records.request(voucher, operation.client_id)
        voucher_replays.audit(session, operation_id, by=by, reason=reason, of=seen.state, to=to)
        told = {"line": voucher_replays.LINE, "operation_id": str(operation_id), "from": seen.state, "to": str(to)}
        db.after_commit(session, partial(log.info, "vouchers.replayed", **told, by=by))
    return to


def _intent(seen: Seen) -> dict[str, Any]:
    """Of the call in doubt, where it is kept; its finds are counted anew."""
    kept = seen.intent or {"step": FLOW.steps[0].name, "index": 0, "verb": "do", "at": seen.now.isoformat()}
    return {name: value for name, value in kept.items() if name != "finds"}
