"""The account of operations on vouchers, subscription by subscription."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.storm.accounts import DIED, DUPLICATE, IN_DOUBT, LOST_SENDS, MISSING, ORPHAN, Account, Row, by, was_given_up
from tests.storm.orders import Subscription

ROWS = """
    SELECT id, subscription_id, sequence, operation, parameters, sends, lost_sends, outcome_code
    FROM voucher_operations ORDER BY sequence
"""
MOST_LOST_SENDS = 3  # VOUCHER_REPLACE_MAX_SENDS
SENDING = ("create-voucher", "replace-voucher", "cancel-voucher", "set-holiday")
Effects = Counter[tuple[str, ...]]


def account(
    orders: Sequence[Subscription],
    rows: Sequence[Row],
    ledger: Mapping[str, Any],
    sent: Mapping[str, int],
    shown: Mapping[str, Mapping[str, str]],
) -> Account:
    """Every effect at i-Movo is one that a succeeded operation of its subscription accounts for, and once.

    `shown`: by subscription, the codes that our record shows now. `sent`: by subscription, the calls that i-Movo got;
    every send has its intent, so that the rows' `sends` are no fewer.
    """
    told, of, at = Account("vouchers"), by(rows, "subscription_id"), _by_subscription(ledger)
    live = _live(ledger)
    for order in orders:
        own, so_far = of.get(order.id, []), len(told.wrong)
        _accepted(told, order, own)
        _compare(told, order.id, own, at.pop(order.id, Effects()))
        recorded = sum(row["sends"] for row in own)
        if sent.get(order.id, 0) > recorded:
            told.add(ORPHAN, order.id, f"{sent[order.id]} calls with effects, {recorded} sends were recorded")
        if not any(row["state"] == "unresolved" for row in own):
            _codes(told, order.id, own, live.get(order.id, {}), shown.get(order.id))
        ids = tuple(str(row["id"]) for row in own)
        told.wrong[so_far:] = [replace(wrong, rows=ids) for wrong in told.wrong[so_far:]]
    for subscription in at:
        told.add(ORPHAN, subscription, "i-Movo has effects for a subscription that nobody asked for")
    return told


def _accepted(told: Account, order: Subscription, own: Sequence[Row]) -> None:
    """Each answer that names an operation names a row; each row was asked for by a request."""
    ids = {str(row["id"]) for row in own}
    operations = [str((answer.body or {}).get("operationId")) for answer in order.answers if answer.status == 202]
    told.accepted += len(operations)
    told.states.update(row["state"] for row in own)
    for one in sorted(set(operations) - ids):
        told.add(MISSING, one, "accepted, and there is no row")
    for rows in by(own, "correlation_id").values():
        for row in rows[1:]:
            if rows[0]["state"] not in {"failed", "unresolved"}:  # only what came to nothing is asked for anew
                told.add(DUPLICATE, row["id"], f"another operation of the one request {row['correlation_id']}")


def _compare(told: Account, subscription: str, own: Sequence[Row], found: Effects) -> None:
    expected, open_ones = Effects(), Effects()
    for row in own:
        if was_given_up(row):
            told.give_up(row, DIED)
        if row["state"] == "succeeded":
            expected |= _left(row, own, found)  # a create or cancel that found it done has no effect of its own
        elif row["state"] == "unresolved" and _may_be_unresolved(row):
            told.given_up.setdefault(str(row["id"]), LOST_SENDS)
            open_ones |= Effects(_effects(row))
        elif row["state"] == "unresolved" or row["in_doubt"]:
            told.add(IN_DOUBT, row["id"], f"{row['operation']} is {row['state']}: {row['outcome_code']}")
        elif not _is_right(row, own):
            told.add(MISSING, row["id"], f"{row['operation']} is {row['state']}: {row['outcome_code']}")
    _once_a_day(told, own)
    for effect in sorted(set(expected) | set(found)):
        spare = min(open_ones[effect], max(found[effect] - expected[effect], 0))
        told.counted(
            effect[0], f"{subscription} {' '.join(effect[1:])}", found=found[effect] - spare, expected=expected[effect]
        )


def _left(row: Row, own: Sequence[Row], found: Effects) -> Effects:
    """What a succeeded operation left; a cancel nothing, where the create was given up and made no voucher."""
    given_up = any(was_given_up(one) for one in own if one["operation"] == "create")
    if row["operation"] == "cancel" and given_up and not found["vouchers",]:
        return Effects()
    return Effects(_effects(row))


def _effects(row: Row) -> list[tuple[str, ...]]:
    """What a succeeded operation must have left at i-Movo, whoever made it."""
    asked = row["parameters"]
    if row["operation"] == "replace":
        return [("replacements", kind) for kind in ("card", "letter") if asked[f"replace{kind.capitalize()}"]]
    if row["operation"] == "suspend":
        return [("holidays", asked["startDate"], asked["endDateExclusive"])]
    return [("vouchers",)] if row["operation"] == "create" else [("cancellations",)]


def _may_be_unresolved(row: Row) -> bool:
    """Only a replacement whose every allowed send was lost, or what its holders died of, is left to a person."""
    lost = row["operation"] == "replace" and row["lost_sends"] >= MOST_LOST_SENDS
    return (lost and row["outcome_code"] == "outcome-unknown") or was_given_up(row)


def _is_right(row: Row, own: Sequence[Row]) -> bool:
    """The refusals there is reason for: another operation has used up the day for a kind, the create was given up."""
    if row["finished_at"] is None or was_given_up(row):
        return row["finished_at"] is not None
    if row["outcome_code"] == "not-live":
        return any(was_given_up(one) for one in own if one["operation"] == "create")
    if row["outcome_code"] != "already-replaced":
        return False
    wanted = set(_effects(row))
    others = (one for one in own if one["operation"] == "replace" and one["state"] in {"succeeded", "unresolved"})
    return any(wanted & set(_effects(one)) for one in others)


def _once_a_day(told: Account, own: Sequence[Row]) -> None:
    """No kind is replaced by two operations; the storm is shorter than a day."""
    done = [row for row in own if row["operation"] == "replace" and row["state"] == "succeeded"]
    for effect, number in Counter(effect for row in done for effect in _effects(row)).items():
        if number > 1:
            told.add(DUPLICATE, done[-1]["id"], f"{number} replacements of the {effect[1]} succeeded")


def _by_subscription(ledger: Mapping[str, Any]) -> dict[str, Effects]:
    """What happened at i-Movo, repeats included."""
    found: dict[str, Effects] = {}
    for kind, names in (
        ("vouchers", ()),
        ("replacements", ("kind",)),
        ("cancellations", ()),
        ("holidays", ("startDate", "reactivationDate")),
    ):
        for entry in ledger[kind]:
            effect = (kind, *(entry[name] for name in names))
            found.setdefault(entry["subscriptionId"], Effects())[effect] += entry["count"]
    return found


def _live(ledger: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The codes at i-Movo by subscription: those made last."""
    live: dict[str, dict[str, str]] = {}
    for entry in ledger["vouchers"]:
        live.setdefault(entry["subscriptionId"], {}).update(cardCode=entry["cardCode"], letterCode=entry["letterCode"])
    for entry in ledger["replacements"]:
        live.setdefault(entry["subscriptionId"], {})[f"{entry['kind']}Code"] = entry["id"]
    return live


def _codes(
    told: Account, subscription: str, own: Sequence[Row], live: Mapping[str, str], shown: Mapping[str, str] | None
) -> None:
    """Our record shows the codes that are live."""
    ended = any(_is_cancelled_now(row) for row in own)
    if (shown or {}) != ({} if ended else live):
        told.add(MISSING, subscription, "our record does not show the codes that are live at i-Movo")


def _is_cancelled_now(row: Row) -> bool:
    done = row["operation"] == "cancel" and row["state"] == "succeeded"
    return done and row["parameters"]["cancellationDate"] is None
