"""Delivery receipts: what Notify says became of a text. Source: travel-claims contract 2.8, 3.2 and 7.

A receipt is written without the text's lease, and the row is read again where its holder has written meanwhile.
"""

from dataclasses import dataclass
from functools import partial

from app import db, logs, metrics, states
from app.db import Session
from app.flows import texts
from app.store import notifications, workflows
from app.store.notifications import NOTIFY, Told
from app.store.workflows import Seen

S = states.Notification
_ON_THE_WAY = frozenset({"created", "sending", "sent", "pending"})
_FAILURES = frozenset({"permanent-failure", "temporary-failure", "technical-failure"})
_KNOWN = frozenset({"delivered"}) | _ON_THE_WAY | _FAILURES
_COUNTED = {S.SENT: "success", S.DELIVERED: "delivered", S.UNDELIVERED: "error"}
_LONGEST_ID, _LONGEST_WORD = 100, 50
log = logs.get("notifications")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """`reference` is our id of the text, `id` Notify's; at least one is there."""

    status: str
    reference: str | None
    id: str | None


def take(receipt: Receipt) -> None:
    """Write down what a receipt says. One that is not ours, or came before, changes nothing."""
    written = False
    while not written:
        with db.transaction() as session:
            written = _take(session, receipt)


def _take(session: Session, receipt: Receipt) -> bool:
    """False: the text has changed since it was read."""
    text = notifications.told(session, reference=receipt.reference, notify_id=receipt.id)
    if text is None:
        db.after_commit(session, partial(_count, receipt, "unknown", known=False))
        return True
    word = _word(receipt.status)
    if notifications.had_receipt(session, text.id, word):
        return True
    if not _moved(session, text, receipt, word):
        return False
    if receipt.id and len(receipt.id) <= _LONGEST_ID:
        notifications.keep_notify_id(session, text.id, receipt.id)
    db.after_commit(session, partial(_count, receipt, text.product, known=True))
    db.after_commit(session, partial(_log, text, word))
    return True


def _word(status: str) -> str:
    """The status as the history keeps it: what is no word of Notify's might hold anything."""
    return status if status in _KNOWN else logs.scrub(status)[:_LONGEST_WORD]


def _moved(session: Session, text: Told, receipt: Receipt, word: str) -> bool:
    """Every status proves that the send took effect, also while its own answer is missing."""
    state = before = _read(session, text)
    for to in (S.SENT, _target(receipt.status)):
        if to is None or not states.NOTIFICATION.allows(state.state, to):
            continue
        if not _move(session, state, to, word):
            return False
        db.after_commit(session, partial(texts.count, text.product, text.template, _COUNTED[to]))
        state = _read(session, text)
    if state is before:
        workflows.add_event(session, text.id, word, actor=NOTIFY)
    return True


def _read(session: Session, text: Told) -> Seen:
    seen = workflows.read(session, text.id)
    if seen is None:
        raise LookupError(f"text {text.id} is gone")
    return seen


def _move(session: Session, seen: Seen, to: S, word: str) -> bool:
    """The send is in doubt no more."""
    return workflows.move(session, seen, to, actor=NOTIFY, reason=word, holder=False, intent=None, in_doubt=False)


def _target(status: str) -> S | None:
    if status in _ON_THE_WAY:
        return None
    return S.DELIVERED if status == "delivered" else S.UNDELIVERED


def _count(receipt: Receipt, product: str, *, known: bool) -> None:
    """Words that are new to us share one label."""
    status = receipt.status if receipt.status in _KNOWN else "other"
    metrics.claims_notify_receipts.labels(product, status, str(known).lower()).inc()


def _log(text: Told, word: str) -> None:
    log.info(
        "notifications.receipt",
        line="claims",
        claim=str(text.claim_id),
        workflow=str(text.id),
        product=text.product,
        correlation_id=text.correlation_id,
        outcome=word,
    )
