"""Operations on vouchers as the API accepts them, carried out against the sandbox's i-Movo."""

import importlib
from datetime import date
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import select

from app import config, db
from app.flows import engine
from app.models.voucher import Voucher, VoucherCode
from app.store import clients, voucher_operations, workflows
from app.store import vouchers as records
from app.store.voucher_operations import NewOperation
from app.upstreams import imovo as client
from sandbox import Sandbox
from tests.flows.conftest import row, shift

SUB, SCHEME = "a2F5I000003KvWxUAK", "Guardian7Day"
BOTH = {"replaceCard": True, "replaceLetter": True}
CARD = {"replaceCard": True, "replaceLetter": False}
AT_ONCE: dict[str, Any] = {"cancellationDate": None}


@pytest.fixture(autouse=True)
def short(quick: None) -> None:
    """No limiter that an earlier test has closed."""
    client._upstreams.clear()


@pytest.fixture
def jobs(environment: dict[str, str]) -> Any:
    """The calendar jobs; importing them asks for the settings."""
    return importlib.import_module("tasks.voucher_jobs")


def client_id(name: str = "crm") -> UUID:
    with db.transaction() as session:
        try:
            return clients.named(session, name).id
        except LookupError:
            clients.add(session, name, ["vouchers"])
            return clients.named(session, name).id


def accept(operation: str, parameters: dict[str, Any], *, of: str = "crm", sub: str = SUB) -> UUID:
    owner = client_id(of)
    new = NewOperation(
        client_id=owner,
        correlation_id="crm-1",
        operation=operation,
        parameters=parameters,
        urgent=True,
        withdrawable=True,
    )
    with db.transaction() as session:
        voucher = records.lock(session, sub)
        if operation == "create":
            records.request(voucher, owner)
        return voucher_operations.accept(session, voucher, new)


def create(scheme: str = SCHEME, **more: Any) -> UUID:
    return accept("create", {"scheme": scheme}, **more)


def replace(flags: dict[str, Any] | None = None, **more: Any) -> UUID:
    return accept("replace", flags or BOTH, **more)


def cancel(on: date | None = None, **more: Any) -> UUID:
    return accept("cancel", {"cancellationDate": on.isoformat() if on else None}, **more)


def suspend(start: date, end: date, **more: Any) -> UUID:
    days = {"startDate": start.isoformat(), "endDateExclusive": end.isoformat()}
    return accept("suspend", days, **more)


def once(operation_id: UUID) -> Any:
    """One round: what is due now is done."""
    engine.run(operation_id)
    return row(operation_id)


def let_pass(operation_id: UUID) -> None:
    """What the operation waits for has come; breaker and limiter have forgotten."""
    found = row(operation_id)
    with db.transaction() as session:
        wait = (found.due_at - workflows.now(session)).total_seconds()
    shift(operation_id, max(wait, 0) + 0.01)
    redis.Redis.from_url(config.settings().redis_url).flushall()
    client._upstreams.clear()


def carry(operation_id: UUID) -> Any:
    """Run it to its end; what it waits for comes at once."""
    for _ in range(30):
        if once(operation_id).finished_at:
            return row(operation_id)
        let_pass(operation_id)
    raise AssertionError(f"still {row(operation_id).state} after 30 rounds")


def carry_first(operation_id: UUID) -> Any:
    """Until the calls of now are done: it waits, or has ended."""
    while not (found := once(operation_id)).finished_at and is_due(operation_id):
        pass
    return found


def is_due(operation_id: UUID) -> bool:
    with db.transaction() as session:
        return bool(row(operation_id).due_at <= workflows.now(session))


def voucher(sub: str = SUB) -> Voucher:
    with db.transaction() as session:
        found = records.load(session, sub)
    assert found
    return found


def codes(sub: str = SUB) -> dict[str, str | None]:
    found = voucher(sub)
    return {"cardCode": found.card_code, "letterCode": found.letter_code}


def live(upstreams: Sandbox, sub: str = SUB) -> dict[str, str]:
    """The codes that i-Movo has."""
    book = upstreams.upstreams["imovo"].book  # type: ignore[attr-defined]
    return {f"{kind}Code": book.live(sub).code(kind) for kind in ("card", "letter")}


def plant(upstreams: Sandbox, sub: str = SUB, **more: Any) -> None:
    upstreams.upstreams["imovo"].plant(sub, **more)  # type: ignore[attr-defined]


def made(upstreams: Sandbox) -> list[str]:
    """The calls received, in order."""
    return [call["call"] for call in upstreams.calls(upstream="imovo")]


def asked(upstreams: Sandbox, call: str) -> list[dict[str, str]]:
    """The parameters of the calls of this name."""
    return [entry["query"] for entry in upstreams.calls(call=call)]


def superseded(sub: str = SUB) -> dict[str, tuple[date | None, UUID | None]]:
    """Per hash: since when it is old, and by which operation."""
    with db.transaction() as session:
        rows = session.scalars(select(VoucherCode).where(VoucherCode.subscription_id == sub))
        return {one.hash: (one.superseded_on, one.superseded_by) for one in rows}
