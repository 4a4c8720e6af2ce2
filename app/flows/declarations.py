"""What happens to a paid declaration: it is handed to MDG, repeated unchanged until MDG answers yes or a definite no.

Source: declarations contract, sections 3.3, 4 and 5. MDG recognises a repeat by the acknowledgement reference, so the
step has no `find`.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from app import config, db, logs, metrics, states
from app.db import Session
from app.flows import worker
from app.flows.flow import Ending, Flow, Policy, Verdict
from app.models.declaration import Declaration
from app.steps import Ended, Failure, Ok, Outcome, Rejected, Retry, Step, Unknown, Work
from app.store import clients, declaration_jobs, replays, workflows
from app.store.declaration_jobs import Found
from app.upstreams import mdg
from app.upstreams.http import Pace
from app.upstreams.mdg import Mdg

S = states.Declaration
_LEASE_BEYOND_CALL = 10.0  # the time to wait for the limiter and to send
_ALARM = "PNGRS_DES_SUBMISSION_FAILURE"
_CRASHED, _LOST = "crashed", "worker-lost"
_ONLY_HERE = {
    "header": frozenset({"portOfEntryName", "uccRelief", "ukVATPaid", "ukExcisePaid"}),
    "item": frozenset({"valueCurrencyName", "originCountryName"}),
}
log = logs.get("declarations")


def policy() -> Policy:
    """Contract 5.2: no limit of attempts, no deadline, and waits from 1 s to the back-off."""
    line = _line()
    return Policy(
        attempts=None,
        backoff=line.retry_base,
        factor=2,
        backoff_max=line.retry_cap,
        find_after=0,
        settle=0,
        lease=line.total_timeout + _LEASE_BEYOND_CALL,
        least=1,
    )


def _line() -> config.Mdg:
    return config.settings().mdg or config.Mdg.model_construct()


def held(session: Session, declaration: Declaration) -> str | None:
    """Why nothing may be sent for this declaration now, or None."""
    if config.settings().mdg is None:
        return "MDG_URL is not set"
    if not clients.is_on(session, declaration.client_id, "declarations"):
        return "the toggle declarations is off for this client"
    return None


def failed(declaration: Declaration, failure: Failure) -> Ending:
    return Ending(state=S.FAILED)


def asked(declaration: Declaration) -> Ending:
    return Ending(state=S.FAILED)


# The step


def submit(declaration: Declaration, work: Work) -> Outcome:
    """Hand it to MDG: the same bytes on every attempt since the payment or the last replay."""
    if declaration.in_doubt and declaration.crashes:
        _lost_with_worker(declaration)
    body = _body(declaration)
    Mdg(_line(), work=work, attempts=declaration.attempt).submit(body, declaration.charge_reference)
    return Ok(reason="submitted")


def clear(session: Session, declaration: Declaration) -> Mapping[str, Any]:
    """Stored with each intent: one attempt more, and with the first one how its body was built."""
    return {"attempts": declaration.attempts + 1, "body_mode": _mode(declaration)}


def _mode(declaration: Declaration) -> str:
    return declaration.body_mode or _line().body


def _body(declaration: Declaration) -> bytes:
    """Raises Ended: what is stored cannot be made into a body."""
    try:
        with db.statements() as session:
            payload = declaration_jobs.payload(session, declaration.id)
        return body(payload, _mode(declaration))
    except Exception as error:
        if db.unreachable(error):
            raise
        what = Failure(code="local-build", http_status=500, message="The body could not be built from what is stored.")
        raise Ended(Rejected(failure=what)) from error


def body(payload: Mapping[str, Any], mode: str) -> bytes:
    """The stored payload as MDG gets it, its keys in their order. `projection` leaves out what is for us alone.

    Raises LookupError, TypeError or ValueError for what is no payload.
    """
    request = payload["simpleDeclarationRequest"]
    detail = request["requestDetail"]
    if mode == "projection":
        request = request | {"requestDetail": {name: _projected(name, part) for name, part in detail.items()}}
    whole = {"simpleDeclarationRequest": request}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _projected(name: str, part: Any) -> Any:
    if name == "declarationHeader":
        return _without(part, _ONLY_HERE["header"])
    if not name.startswith("declaration"):
        return part
    item_lists = {key: value for key, value in part.items() if key.startswith("declarationItem")}
    return part | {key: [_without(item, _ONLY_HERE["item"]) for item in items] for key, items in item_lists.items()}


def _without(part: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


# What is told


def entered(session: Session, declaration: Declaration, state: str) -> Sequence[UUID]:
    """Submitted or failed: its replay has ended, it is counted and logged."""
    replays.close(session, declaration.id, state)
    move = {"from": str(S.PAID), "to": str(state), "attempt": declaration.attempts, "release": worker.release()}
    told = fields(declaration) | move
    if state == S.SUBMITTED:
        _count_time(session, declaration)
        db.after_commit(session, partial(log.info, "submitted", **told))
    else:
        error = declaration_jobs.error_code(session, declaration.id)
        if error == _CRASHED and declaration.in_doubt:
            db.after_commit(session, partial(_lost_with_worker, declaration))
        alarm = _CRASHED if error == _CRASHED else _ALARM
        db.after_commit(session, partial(log.error, "failed", **told, error=error, alarm=alarm))
    return []


def _count_time(session: Session, declaration: Declaration) -> None:
    if declaration.paid_at:
        took = (workflows.now(session) - declaration.paid_at).total_seconds()
        db.after_commit(session, partial(metrics.declarations_paid_to_submitted_seconds.observe, took))


def _lost_with_worker(declaration: Declaration) -> None:
    """The attempt during which its worker died; nobody else could tell of it."""
    metrics.declarations_attempts.labels("unknown", _LOST).inc()
    log.warning("attempt", **fields(declaration), attempt=declaration.attempts, outcome="unknown", error=_LOST)


def observed(declaration: Declaration, verdict: Verdict) -> None:
    """Contract section 7: each attempt is counted and logged. A call that was held back is none."""
    outcome = verdict.outcome
    if not isinstance(outcome, Ok | Rejected | Retry | Unknown):
        return
    word = type(outcome).__name__.lower()
    error = "" if isinstance(outcome, Ok) else outcome.failure.code
    metrics.declarations_attempts.labels(word, error).inc()
    call = verdict.calls[-1] if verdict.calls else None
    log.info(
        "attempt",
        **fields(declaration),
        attempt=declaration.attempts,
        outcome=word,
        status=call.status if call else None,
        error=error or None,
        durationMs=call.milliseconds if call else round(verdict.seconds * 1000),
        release=worker.release(),
    )


def fields(about: Declaration | Found) -> dict[str, Any]:
    """What stands on every record about a submission."""
    return {
        "line": "declarations",
        "chargeReference": about.charge_reference,
        "number": about.number,
        "correlationId": about.correlation_id,
        "client": str(about.client_id),
    }


def pace() -> Pace:
    """As MDG takes them."""
    line = config.settings().mdg
    return mdg.upstream(line).pace() if line else Pace()


FLOW = Flow(
    machine=states.DECLARATION,
    line="declarations",
    table=Declaration,
    steps=(Step(name="submit", of=S.PAID, to=S.SUBMITTED, do=submit),),
    policy=policy,
    load=declaration_jobs.load,
    held=held,
    failed=failed,
    asked=asked,
    entered=entered,
    observed=observed,
    clear=clear,
    pace=pace,
)
