"""Vouchers in Postgres: the record of a subscription under its lock, its codes and suspensions, its day counts.

Whoever writes about a subscription locks its row first and `workflows` after it. Dates are London's.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, case, delete, exists, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import clock, config, crypto, db, errors, metrics, states, vouchers
from app.models.voucher import Voucher, VoucherCode, VoucherOperation, VoucherSuspension
from app.store.workflows import W

V = states.Voucher
LIVE = frozenset({V.ACTIVE, V.SUSPENDED})
OPS: Table = VoucherOperation.__table__  # type: ignore[assignment]
_SWEPT_AT_ONCE = 500
# A state that is reached through another one: the record learns late what happened in between.
_THROUGH: Mapping[tuple[str | None, str], str] = {
    (None, V.SUSPENDED): V.ACTIVE,
    (None, V.CANCELLED): V.ACTIVE,
    (V.CANCELLED, V.ACTIVE): V.REQUESTED,
    (V.REQUESTED, V.SUSPENDED): V.ACTIVE,
}


def lock(session: Session, subscription_id: str) -> Voucher:
    """The subscription's row, locked until the transaction ends; made when there is none. What is set on it is kept."""
    wanted = select(Voucher).where(Voucher.subscription_id == subscription_id).with_for_update()
    found = session.scalar(wanted.execution_options(populate_existing=True))
    if found is None:
        session.execute(insert(Voucher).values(subscription_id=subscription_id).on_conflict_do_nothing())
        found = session.scalars(wanted).one()
    return found


def load(session: Session, subscription_id: str) -> Voucher | None:
    """The subscription's row as it is, or None."""
    return session.get(Voucher, subscription_id)


# The record's state (contract 3.2)


def state_on(voucher: Voucher, recorded: Collection[VoucherSuspension], day: date) -> V | None:
    """The state as of a London date. Cancelled wins over suspended."""
    if voucher.state not in LIVE:
        return V(voucher.state) if voucher.state else None
    if voucher.cancel_on and voucher.cancel_on <= day:
        return V.CANCELLED
    return V.SUSPENDED if covering(recorded, day) else V.ACTIVE


def is_live(voucher: Voucher) -> bool:
    """Whether i-Movo has vouchers for the subscription today, as far as we know."""
    return state_on(voucher, (), vouchers.today()) in LIVE


def become(voucher: Voucher, to: V | None) -> None:
    """Change the stored state, through another one where there is no direct move. Raises IllegalMove."""
    of = V(voucher.state) if voucher.state else None
    if of == to:
        return
    if to is not None and (via := _THROUGH.get((of, to))):
        become(voucher, V(via))
        become(voucher, to)
        return
    if to not in states.VOUCHER_MOVES[of]:
        raise errors.IllegalMove(f"voucher: {of} -> {to}")
    voucher.state_before = of if to is V.REQUESTED else None
    voucher.state = to


def request(voucher: Voucher, client_id: UUID) -> None:
    """A create of this client was accepted: it owns the subscription from now on, if nobody does."""
    if not is_live(voucher):
        _end(voucher)
        become(voucher, V.REQUESTED)
    voucher.client_id = voucher.client_id or client_id


def _end(voucher: Voucher) -> None:
    """What is stored as live is cancelled; anything else stays."""
    if voucher.state in LIVE:
        become(voucher, V.CANCELLED)


# What a call told of the voucher


def adopt(
    session: Session,
    voucher: Voucher,
    *,
    scheme: str,
    codes: Mapping[str, str],
    client_id: UUID,
    operation_id: UUID | None = None,
) -> None:
    """i-Movo shows a live voucher with these codes, by kind. `operation_id`: what made them new.

    The record is confirmed only if both kinds are there. What an earlier voucher left is cleared.
    """
    if not is_live(voucher):
        _end(voucher)
        become(voucher, V.ACTIVE)
        voucher.cancel_on = voucher.provisioned_at = voucher.last_replaced_on = None
        ours = VoucherSuspension.subscription_id == voucher.subscription_id
        session.execute(delete(VoucherSuspension).where(ours))
    voucher.client_id = voucher.client_id or client_id
    voucher.scheme = scheme
    for kind, code in codes.items():
        _adopt_code(session, voucher, kind, code, operation_id)
    voucher.confirmed_at = clock.now() if len(codes) == len(vouchers.KINDS) else None


def _adopt_code(session: Session, voucher: Voucher, kind: str, code: str, operation_id: UUID | None) -> None:
    column = f"{kind}_code"
    if getattr(voucher, column) == code:
        return
    setattr(voucher, column, code)
    voucher.codes_since = clock.now()
    hashed = code_hash(kind, code)
    ours = and_(VoucherCode.subscription_id == voucher.subscription_id, VoucherCode.kind == kind)
    others = and_(ours, VoucherCode.hash != hashed, VoucherCode.superseded_on.is_(None))
    old = update(VoucherCode).where(others)
    session.execute(old.values(superseded_on=vouchers.today(), superseded_by=operation_id))
    new = insert(VoucherCode).values(hash=hashed, kind=kind, subscription_id=voucher.subscription_id)
    current = {"superseded_on": None, "superseded_by": None}
    session.execute(new.on_conflict_do_update(index_elements=["hash", "kind", "subscription_id"], set_=current))


def code_hash(kind: str, code: str) -> str:
    """Under which a code of a kind is found."""
    return crypto.keyed_hash(f"voucher-{kind}", code)


def not_live(session: Session, voucher: Voucher) -> None:
    """i-Movo has no live voucher: the record is cancelled; that it called one live is drift.

    What an unfinished create has requested stays requested, until that one ends.
    """
    if is_live(voucher):
        count_drift(session, "not-live")
    if voucher.state != V.REQUESTED or not _is_being_created(session, voucher):
        cancelled(session, voucher)


def _is_being_created(session: Session, voucher: Voucher) -> bool:
    creates = (OPS.c.subscription_id == voucher.subscription_id, OPS.c.operation == "create")
    return bool(session.scalar(select(exists().where(OPS.c.id == W.c.id, *creates, W.c.finished_at.is_(None)))))


def cancelled(_session: Session, voucher: Voucher) -> None:
    """The voucher is gone. A subscription that nothing was known of stays unknown."""
    if voucher.state:
        become(voucher, V.CANCELLED)
        voucher.confirmed_at = clock.now()


def cancel_taken(_session: Session, voucher: Voucher, *, client_id: UUID) -> None:
    """i-Movo cancelled at once, so there was a voucher."""
    become(voucher, V.CANCELLED)
    voucher.client_id = voucher.client_id or client_id
    voucher.confirmed_at = clock.now()


def cancel_due(_session: Session, voucher: Voucher, *, day: date) -> None:
    """i-Movo took a cancellation with this first day without voucher."""
    voucher.cancel_on = day


def suspended(session: Session, voucher: Voucher, *, operation_id: UUID, start: date, end: date) -> None:
    """i-Movo took a suspension; `end` is exclusive."""
    row = {"operation_id": operation_id, "subscription_id": voucher.subscription_id, "starts_on": start, "ends_on": end}
    session.execute(insert(VoucherSuspension).values(row).on_conflict_do_nothing())


def replaced(_session: Session, voucher: Voucher, *, on: date) -> None:
    """A kind or both were replaced."""
    voucher.last_replaced_on = on


def count_drift(session: Session, reason: str) -> None:
    """Counted once the transaction has committed."""
    db.after_commit(session, metrics.voucher_drift.labels(reason).inc)


# Questions


def suspensions(session: Session, subscription_id: str) -> Sequence[VoucherSuspension]:
    """The recorded suspensions, earliest first."""
    ours = select(VoucherSuspension).where(VoucherSuspension.subscription_id == subscription_id)
    return session.scalars(ours.order_by(VoucherSuspension.starts_on)).all()


def covering(recorded: Collection[VoucherSuspension], day: date) -> VoucherSuspension | None:
    """The suspension within which the day lies; of several the one that ends last."""
    found = [one for one in recorded if one.starts_on <= day < one.ends_on]
    return max(found, key=lambda one: one.ends_on, default=None)


def is_suspended_throughout(recorded: Collection[VoucherSuspension], start: date, end: date) -> bool:
    """Whether each day from `start` up to `end`, which is exclusive, lies within a recorded suspension."""
    while start < end:
        found = covering(recorded, start)
        if found is None:
            return False
        start = found.ends_on
    return True


def in_step(session: Session, voucher: Voucher) -> bool:
    """Contract, section 1: confirmed lately, with codes unless cancelled, and nothing was left open since."""
    if voucher.confirmed_at is None:
        return False
    codes = voucher.card_code and voucher.letter_code
    if not codes and state_on(voucher, (), vouchers.today()) is not V.CANCELLED:
        return False
    if clock.now() - voucher.confirmed_at > timedelta(seconds=config.settings().vouchers.fresh_seconds):
        return False
    unresolved = and_(W.c.state == states.VoucherOperation.UNRESOLVED, since_confirmed(voucher))
    ours = and_(OPS.c.id == W.c.id, OPS.c.subscription_id == voucher.subscription_id)
    left_open = exists().where(ours, W.c.finished_at.is_(None) | unresolved)
    return not session.scalar(select(left_open))


def since_confirmed(voucher: Voucher) -> ColumnElement[bool]:
    """SQL: the operation ended after our record was last confirmed."""
    return true() if voucher.confirmed_at is None else W.c.finished_at > voucher.confirmed_at


def used_up(
    session: Session, subscription_id: str, kinds: Collection[str], day: date, *, besides: UUID | None = None
) -> Mapping[str, UUID]:
    """Of these kinds those that may not be replaced again on this day, with the operation that used it up (5.3).

    `besides`: an operation that does not count.
    """
    most = config.settings().vouchers.replacements_per_day
    found: dict[str, UUID] = {}
    for kind in kinds:
        counted = session.scalars(
            select(OPS.c.id)
            .where(OPS.c.subscription_id == subscription_id, OPS.c.counted_on == day, OPS.c[f"counts_{kind}"])
            .where(OPS.c.id.is_distinct_from(besides))
            .order_by(OPS.c.sequence.desc())
        ).all()
        if len(counted) >= most:
            found[kind] = counted[0]
    return found


# By the clock


def store_states(session: Session) -> int:
    """Store the states that follow from today's date, of some records. Returns of how many."""
    day = vouchers.today()
    is_covered = exists().where(
        VoucherSuspension.subscription_id == Voucher.subscription_id,
        VoucherSuspension.starts_on <= day,
        VoucherSuspension.ends_on > day,
    )
    derived = case((Voucher.cancel_on <= day, V.CANCELLED.value), (is_covered, V.SUSPENDED.value), else_=V.ACTIVE.value)
    stale = select(Voucher).where(Voucher.state.in_(LIVE), Voucher.state != derived)
    found = session.scalars(stale.limit(_SWEPT_AT_ONCE).with_for_update(skip_locked=True)).all()
    for voucher in found:
        become(voucher, state_on(voucher, suspensions(session, voucher.subscription_id), day))
    return len(found)
