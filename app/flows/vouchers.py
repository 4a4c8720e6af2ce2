"""What happens to an operation on a voucher: its one step, and what follows from how it ends.

Source: vouchers contract, sections 3 and 5. The verbs live in `voucher_steps`, the answers in `voucher_answers`.
Operations of one subscription run one after another; the end of one lets the next one start.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from app import clock, config, db, logs, metrics, states, vouchers
from app.db import Session
from app.flows import voucher_answers as answers
from app.flows import voucher_steps
from app.flows.flow import Ending, Flow, Verdict
from app.flows.voucher_calls import lost_as, policy
from app.flows.voucher_replace import counting
from app.models.voucher import VoucherOperation
from app.steps import Failure, Step
from app.store import clients, voucher_queue, workflows
from app.store import vouchers as records
from app.upstreams import imovo
from app.upstreams.http import Pace

S = states.VoucherOperation
log = logs.get(__name__)


def held(session: Session, operation: VoucherOperation) -> str | None:
    """Why nothing may be sent for this operation now, or None."""
    if config.settings().imovo is None:
        return "IMOVO_URL is not set"
    if not clients.is_on(session, operation.client_id, "vouchers"):
        return "the toggle vouchers is off for this client"
    return None


def failed(operation: VoucherOperation, failure: Failure) -> Ending:
    """Contract 3.1: what may have had an effect stays unresolved; what had none has failed."""
    if failure.code in answers.OPEN and operation.outcome_code == failure.code:
        return Ending(state=S.UNRESOLVED)
    if operation.in_doubt and not _is_known_to_change_nothing(operation, failure):
        values = answers.values("outcome-unknown", vouchers.OUTCOME_UNKNOWN)
        return Ending(state=S.UNRESOLVED, values=values)
    return Ending(state=S.FAILED, values=answers.values("given-up", vouchers.GIVEN_UP))


def _is_known_to_change_nothing(operation: VoucherOperation, failure: Failure) -> bool:
    """A create that i-Movo refused because there is a voucher; which one, could not be read."""
    lost = lost_as(operation)
    refused = operation.operation == "create" and lost is not None and lost.code == "already-exists"
    return refused and failure.code != "crashed"


def asked(operation: VoucherOperation) -> Ending:
    """Its caller has withdrawn it, and nothing is in doubt."""
    return Ending(state=S.FAILED, values=answers.values("withdrawn", vouchers.WITHDRAWN))


def lock(session: Session, operation: VoucherOperation) -> None:
    """Lock the subscription, and write what the verb has learned of its voucher along with what the holder writes.

    Who holds the operation no more, teaches the record nothing: others may have learned better since.
    """
    voucher = records.lock(session, operation.subscription_id)
    if operation.learned and voucher_queue.is_held_as(session, operation):
        for write in operation.learned:
            write(session, voucher)


def entered(session: Session, operation: VoucherOperation, state: str) -> Sequence[UUID]:
    """Once final: what had no effect counts no more, the record is what it was, and the next operation may start."""
    if not states.VOUCHER_OPERATION.is_finished(state):
        return []
    if state in {S.REJECTED, S.FAILED}:
        workflows.save(session, VoucherOperation, operation.id, counting(()))
    voucher = records.lock(session, operation.subscription_id)
    voucher_queue.after_operation(session, voucher)
    db.after_commit(session, partial(_ended, operation, str(state)))
    return voucher_queue.release_next(session, operation.subscription_id)


def _ended(operation: VoucherOperation, state: str) -> None:
    kind, code = operation.operation, operation.outcome_code
    metrics.voucher_operations.labels(kind, code).inc()
    metrics.voucher_operation_seconds.labels(kind).observe((clock.now() - operation.created_at).total_seconds())
    log.info("vouchers.ended", **_ids(operation), state=state, code=code)


def observed(operation: VoucherOperation, verdict: Verdict) -> None:
    """Contract section 7: one log record per verb."""
    failure = getattr(verdict.outcome, "failure", None)
    log.info(
        "vouchers.step",
        **_ids(operation),
        step=verdict.step,
        verb=verdict.verb,
        send=operation.sends,
        code=failure.code if failure else None,
        upstream_status=verdict.calls[-1].status if verdict.calls else None,
        elapsed_ms=round(verdict.seconds * 1000),
        **{"class": type(verdict.outcome).__name__.lower()},
    )


def _ids(operation: VoucherOperation) -> dict[str, Any]:
    """What stands on every record about an operation."""
    return {
        "line": "vouchers",
        "operation_id": str(operation.id),
        "subscription_id": operation.subscription_id,
        "kind": operation.operation,
        "client_id": str(operation.client_id),
        "correlation_id": operation.correlation_id,
    }


def pace() -> Pace:
    """As i-Movo takes them."""
    line = config.settings().imovo
    return imovo.upstream(line).pace() if line else Pace()


FLOW = Flow(
    machine=states.VOUCHER_OPERATION,
    line="vouchers",
    table=VoucherOperation,
    steps=(Step(name="carry_out", of=S.QUEUED, to=S.SUCCEEDED, do=voucher_steps.do, find=voucher_steps.find),),
    policy=policy,
    load=voucher_queue.load,
    held=held,
    failed=failed,
    asked=asked,
    entered=entered,
    observed=observed,
    lock=lock,
    clear=voucher_steps.clear,
    pace=pace,
)
