"""How the upstreams behave in the storm: calls go wrong, or take effect late, and some refusals are certain."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.installation import Installation
from tests.storm.orders import REFUSING, Declaration, Order

SHARE = 0.2  # of all calls
LATE_SHARE = 0.05  # of the calls with effects
# Connect and read limits of 1 and 3 s (texts: 3 and 3); with the 2 s within which a call is sent, 7 s (9) until a lost
# call has settled.
SETTINGS: Mapping[str, str] = {
    "WEB_CONCURRENCY": "1",
    "WORKER_CONCURRENCY": "48",  # per line: claims need most, with five calls each
    "TRAVEL_PAY_CONNECT_TIMEOUT": "1",
    "TRAVEL_PAY_READ_TIMEOUT": "3",
    "TRAVEL_PAY_AUTH_READ_TIMEOUT": "3",
    "TRAVEL_PAY_FIND_SECONDS": "1",
    "TRAVEL_PAY_SETTLE_SECONDS": "7",
    "TRAVEL_PAY_BACKOFF_SECONDS": "1",
    "TRAVEL_PAY_BACKOFF_MAX_SECONDS": "3",
    "TRAVEL_PAY_MAX_ATTEMPTS": "50",
    "TRAVEL_PAY_DELETE_CLAIM_PATH": "api/v3/claims/{claimId}",
    "NOTIFY_TIMEOUT": "3",
    "NOTIFY_SETTLE_SECONDS": "9",
    "NOTIFY_BACKOFF_SECONDS": "1",
    "MDG_CONNECT_TIMEOUT": "1",
    "MDG_READ_TIMEOUT": "3",
    "MDG_TOTAL_TIMEOUT": "4",
    "MDG_RETRY_BASE": "2",
    "MDG_RETRY_CAP": "3",
    "MDG_BREAKER_OPEN": "1",
    "MDG_RATE_PER_SECOND": "200",
    "MDG_MAX_IN_FLIGHT": "32",
    "IMOVO_CONNECT_TIMEOUT": "1",
    "IMOVO_TIMEOUT": "3",
    "IMOVO_BREAKER_SECONDS": "1",
    "IMOVO_RATE_PER_SECOND": "200",
    "VOUCHER_SETTLE_SECONDS": "7",
    "VOUCHER_BACKOFF_MAX_SECONDS": "3",
}
_BEYOND_LIMITS = 4.0
_LATE = {
    # After a look at once would have seen nothing, and before the call has settled.
    **dict.fromkeys(("create-claim", "add-expense", "submit-claim", "send-sms", "replace-voucher"), 2.0),
    # What is repeated without that wait: before its back-off is over, or a late create might follow the cancel.
    **dict.fromkeys(("create-voucher", "cancel-voucher", "set-holiday", "submit-declaration"), 0.3),
}
_SLOW = {"seconds": 0.05, "max_seconds": 1.5}  # so that calls are under way when their worker dies
_WRONG: Sequence[Mapping[str, Any]] = (
    {"fault": "drop-before"},
    {"fault": "drop-after"},
    {"fault": "hang-after", "seconds": _BEYOND_LIMITS},
    {"fault": "reset", "effect": True},
    {"fault": "status", "status": 500},
    {"fault": "status", "status": 503, "effect": True},
    {"fault": "malformed-json"},
    {"fault": "broken-off"},
    {"fault": "rate-limit", "seconds": 1, "retry_after": 1},
)
_FOR_EVER = 1_000_000


def trouble(on: Installation, dice: random.Random) -> list[int]:
    """Set the faults of the storm; their ids. One after the other is tried, so each has its share of what is left."""
    ids = [on.fault(call="*", fault="delay", **_SLOW, seed=dice.getrandbits(32))]
    for call, seconds in _LATE.items():
        seed = dice.getrandbits(32)
        ids.append(on.fault(call=call, fault="late", seconds=seconds, probability=LATE_SHARE, seed=seed))
    share = SHARE / len(_WRONG)
    for number, wrong in enumerate(_WRONG):
        chance = share / (1 - number * share)
        ids.append(on.fault(call="*", **wrong, probability=chance, seed=dice.getrandbits(32)))
    return ids


def refuse(on: Installation, orders: Sequence[Order]) -> None:
    """What is to be refused is, always, before any other fault is thought of: it never has an effect."""
    on.control("POST", "settings", {"claim_delete": True})
    for call, match in _refusals(orders):
        on.fault(call=call, fault="status", status=400, times=_FOR_EVER, match=match)


def _refusals(orders: Sequence[Order]) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "submit-claim", {"station": REFUSING}
    for order in orders:
        if isinstance(order, Declaration) and order.refused:
            yield "submit-declaration", {"correlation_id": order.name}


def calm(on: Installation, ids: Sequence[int]) -> dict[str, int]:
    """Take the faults of the storm away; how often each was played, `calls` being those of all."""
    faults = {one["id"]: one for one in on.control("GET", "faults")["faults"]}
    last = on.control("GET", "calls?limit=1")["calls"]
    played = Counter({"calls": last[0]["number"] if last else 0})
    for one in ids:
        played[faults[one]["fault"]] += faults[one]["used"]
        on.control("DELETE", f"faults/{one}")
    return dict(played)
