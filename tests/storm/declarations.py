"""The account of passenger declarations."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.storm.accounts import (
    DIED,
    IN_DOUBT,
    MISSING,
    ORPHAN,
    REFUSED_IN_DOUBT,
    Account,
    Row,
    by,
    only_row,
    was_given_up,
)
from tests.storm.orders import Declaration

ROWS = "SELECT id, charge_reference, number, attempts FROM declarations"


def account(
    orders: Sequence[Declaration], rows: Sequence[Row], at: Mapping[str, Any], made: Mapping[str, int]
) -> Account:
    """MDG holds a declaration exactly if its row is submitted; a paid one is; no call was made without its attempt.

    MDG knows a repeat by its reference, so that its ledger shows no call too many: those are `made`, by reference.
    """
    told, of = Account("declarations"), by(rows, "correlation_id")
    taken = {entry["acknowledgementReference"]: entry["count"] for entry in at["declarations"]}
    for order in orders:
        accepted = order.reference is not None
        row = only_row(told, of.get(order.name, ()), accepted=accepted, name=order.name)
        if row is None:
            continue
        if accepted and order.reference != row["charge_reference"]:
            told.add(MISSING, row["id"], "its caller was told another charge reference")
        reference = f"{row['charge_reference']}{row['number']}"
        _compare(told, order, row, found=taken.pop(reference, 0))
        if (calls := made.get(reference, 0)) > row["attempts"]:
            told.add(ORPHAN, row["id"], f"{calls} calls, {row['attempts']} attempts were recorded")
    for reference in taken:
        told.add(ORPHAN, reference, "MDG has a declaration that no row accounts for")
    return told


def _compare(told: Account, order: Declaration, row: Row, *, found: int) -> None:
    """A refused one whose earlier call was lost says that MDG may hold it (`uncertain`); here it is known not to."""
    if was_given_up(row):
        told.give_up(row, DIED)
    if row["state"] == "failed" and row["in_doubt"] and not order.refused:
        if not was_given_up(row):
            told.add(IN_DOUBT, row["id"], "failed, and MDG may hold it")
        return
    if row["state"] == "failed" and row["in_doubt"] and not was_given_up(row):
        told.give_up(row, REFUSED_IN_DOUBT)
    told.counted("declarations", row["id"], found=found, expected=int(row["state"] == "submitted"))
    planned = _planned(order)
    if row["state"] not in planned and not was_given_up(row):
        told.add(MISSING, row["id"], f"it is {row['state']} and not {' or '.join(planned)}")


def _planned(order: Declaration) -> list[str]:
    """By what its caller knows: a notice that was answered 202 has been taken. Where an answer was lost and its repeat
    refused, the first may have been taken."""
    paid, notices = "failed" if order.refused else "submitted", order.answers[1:]
    if any(answer.good for answer in notices):
        return [paid]
    return ["pending-payment", paid] if any(answer.times > 1 for answer in notices) else ["pending-payment"]
