"""Payment notices: what the payment platform tells of a declaration. Source: declarations contract, 2.3 and 3.4.

Read, decide and write happen under the lock of the declaration; nothing but Postgres is called meanwhile.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from uuid import UUID

from app import charge_references, config, db, logs, metrics, states
from app.db import Session
from app.flows import dispatch
from app.models.declaration import Declaration
from app.store import declarations, workflows
from app.store.workflows import Seen

Result = Literal["applied", "repeated", "refused", "locked", "not-found"]
S = states.Declaration
log = logs.get("declarations")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A notice that the payment was made. `correlation_id`: its own; `urgent`: somebody waits for the outcome."""

    reference: str
    client_id: UUID
    correlation_id: str
    urgent: bool = False


def take(notice: Notice) -> Result:
    """Apply a notice.

    `applied`: now paid, and handed to the engine. `repeated`: it was paid already; nothing changes. `refused`: it has
    failed or expired. `locked`: somebody else works on it; nothing was done. `not-found`: the client has none such.
    """
    result: Result | None = None
    while result is None:
        result = _tried(notice)
    metrics.declarations_payment_notices.labels("Successful", result).inc()
    return result


def _tried(notice: Notice) -> Result | None:
    """None: the row is not as it was read."""
    if not charge_references.is_valid(notice.reference):
        return "not-found"
    wait = config.settings().declarations.declarations_lock_wait
    try:
        with db.transaction() as session:
            seen = declarations.lock(session, notice.reference, client_id=notice.client_id, wait=wait)
            return _decided(session, seen, notice) if seen else "not-found"
    except declarations.Locked:
        return "locked"


def _decided(session: Session, seen: Seen, notice: Notice) -> Result | None:
    if seen.state in states.UNPAID:
        return "applied" if _paid(session, seen, notice) else None
    repeated = seen.state in {S.PAID, S.SUBMITTED}
    event = "payment-repeated" if repeated else "payment-refused"
    workflows.add_event(session, seen.id, event, actor="client", detail=_detail(notice))
    db.after_commit(session, partial(_told, seen, event, notice))
    return "repeated" if repeated else "refused"


def _paid(session: Session, seen: Seen, notice: Notice) -> bool:
    """Paid and due now; False: it has changed since it was read."""
    moved = workflows.move(
        session,
        seen,
        S.PAID,
        actor="client",
        reason="payment-successful",
        holder=False,
        lead=config.settings().redispatch_seconds,
        detail=_detail(notice),
        priority=0 if notice.urgent else 1,
    )
    if moved:
        workflows.save(session, Declaration, seen.id, {"paid_at": declarations.moved_at(seen.id)})
        db.after_commit(session, partial(_told, seen, "payment-successful", notice, {"from": seen.state, "to": S.PAID}))
        db.after_commit(session, partial(dispatch.enqueue, seen.id))
    return moved


def _detail(notice: Notice) -> dict[str, Any]:
    return {"correlationId": notice.correlation_id}


def _told(seen: Seen, event: str, notice: Notice, more: dict[str, Any] | None = None) -> None:
    """One record per notice. Money for an expired declaration has come in for nothing: somebody must look at it."""
    about = {"line": "declarations", "chargeReference": notice.reference, "number": 0, **(more or {})}
    if event == "payment-refused" and seen.state == S.EXPIRED:
        metrics.declarations_late_payments.inc()
        log.error(event, alarm="late-payment", correlationId=seen.correlation_id, **about)
    else:
        log.info(event, correlationId=seen.correlation_id, **about)
