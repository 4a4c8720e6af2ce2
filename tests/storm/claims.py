"""The account of travel claims and their texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.storm.accounts import DIED, DUPLICATE, IN_DOUBT, MISSING, Account, Row, by, only_row, was_given_up
from tests.storm.orders import Claim

CLAIMS = "SELECT id, claim_id, expenses, undo FROM claims"
TEXTS = "SELECT id, claim_id AS claim FROM notifications"
_THERE = {"added", "adopted"}
_NOT_SENT = {"failed", "skipped"}


def account(orders: Sequence[Claim], rows: Sequence[Row], ledger: Mapping[str, Any]) -> Account:
    """Each claim has at Travel Pay the claim and the expenses that its row knows, and is submitted if it says so."""
    told, of, at = Account("claims"), by(rows, "correlation_id"), _Upstream(ledger)
    for order in orders:
        accepted = bool(order.answers) and order.answers[0].good
        row = only_row(told, of.get(order.name, ()), accepted=accepted, name=order.name)
        if row is None:
            told.matched("claims", order.name, found=at.claims(order.icn), known=())
            continue
        if accepted and order.answers[0].body["id"] != str(row["id"]):
            told.add(MISSING, row["id"], "its caller was told another id")
        if was_given_up(row):
            told.give_up(row, DIED)
        if row["in_doubt"] and row["finished_at"]:
            _doubtful(told, row)
        else:
            _compare(told, order, row, at)
    return told


def _doubtful(told: Account, row: Row) -> None:
    if not was_given_up(row):
        told.add(IN_DOUBT, row["id"], f"{row['state']}, and its last call may have taken effect")


def _compare(told: Account, order: Claim, row: Row, at: "_Upstream") -> None:
    deleted = row["undo"].get("claim") in {"deleted", "gone"}
    claim = [] if deleted or row["claim_id"] is None else [row["claim_id"]]
    expenses = [item["expenseId"] for item in row["expenses"] if item["state"] in _THERE]
    if row["state"] == "rollback-failed" and was_given_up(row):  # how far it was undone it does not say
        claim = [one for one in claim if one in at.claims(order.icn)]
        expenses = [one for one in expenses if one in at.expenses(order.icn)]
    told.matched("claims", row["id"], found=at.claims(order.icn), known=claim)
    told.matched("expenses", row["id"], found=at.expenses(order.icn), known=expenses)
    submitted = int(row["state"] == "submitted")
    told.counted("submissions", row["id"], found=at.submissions(order.icn), expected=submitted)
    if row["state"] == "submitted" and len(expenses) != len(order.expenses):
        told.add(MISSING, row["id"], f"submitted with {len(expenses)} of {len(order.expenses)} expenses")
    planned = _planned(order)
    if row["state"] != planned and not was_given_up(row):
        told.add(MISSING, row["id"], f"it is {row['state']} and not {planned}")


def _planned(order: Claim) -> str:
    if not order.refused:
        return "submitted"
    return "rolled-back" if order.rollback else "failed"


class _Upstream:
    """What stands at Travel Pay, by veteran; each has one claim at most that ought to be there."""

    def __init__(self, ledger: Mapping[str, Any]) -> None:
        self._of = {kind: by(ledger[kind], "icn") for kind in ("claims", "expenses", "submissions", "deletions")}

    def _gone(self, icn: str) -> set[str]:
        deletions = self._of["deletions"].get(icn, ())
        return {one["expenseId"] if one["what"] == "expense" else one["claimId"] for one in deletions}

    def claims(self, icn: str) -> set[str]:
        return self._made("claims", icn) - self._gone(icn)

    def expenses(self, icn: str) -> set[str]:
        """Those of claims that stand; an expense goes with its claim."""
        gone = self._gone(icn)
        made = (entry for entry in self._of["expenses"].get(icn, ()) if entry["claimId"] not in gone)
        return {one for entry in made for one in entry["ids"]} - gone

    def submissions(self, icn: str) -> int:
        return sum(entry["count"] for entry in self._of["submissions"].get(icn, ()))

    def _made(self, kind: str, icn: str) -> set[str]:
        return {one for entry in self._of[kind].get(icn, ()) for one in entry["ids"]}


def texts(claims: Sequence[Row], rows: Sequence[Row], ledger: Mapping[str, Any]) -> Account:
    """Every final claim has one text, and Notify was given it once if the row says so."""
    told, of = Account("texts"), by(rows, "claim")
    sent = {entry["reference"]: entry["count"] for entry in ledger["texts"]}
    for claim in claims:
        row = only_row(told, of.get(claim["id"], ()), accepted=claim["finished_at"] is not None, name=claim["id"])
        if row is None:
            continue
        found, there = sent.pop(str(row["id"]), 0), int(row["state"] in {"sent", "delivered", "undelivered"})
        if was_given_up(row):
            told.give_up(row, DIED)
        if row["in_doubt"] and row["finished_at"]:
            _doubtful(told, row)
            there = min(found, 1)
        told.counted("texts", row["id"], found=found, expected=there)
        if row["state"] in _NOT_SENT and not (row["in_doubt"] or was_given_up(row)):
            told.add(MISSING, row["id"], f"it is {row['state']} and not sent")
    for reference in sent:
        told.add(DUPLICATE, reference, "a text that no claim's row accounts for")
    return told
