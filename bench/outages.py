"""What happens while an upstream is gone, and when it is back: breaker, attempts, rate limit and order."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bench.clients import Client
from bench.installation import BenchFailed, Installation, wait_for
from bench.targets import Row

DECLARATIONS, CLAIMS = 300, 120
MDG_AWAY_SECONDS, TRAVEL_PAY_AWAY_SECONDS = 40.0, 20.0
MDG_SETTINGS = {"MDG_BREAKER_OPEN": "2", "MDG_CONNECT_TIMEOUT": "2"}
TRAVEL_PAY_SETTINGS = {"TRAVEL_PAY_RATE_PER_MINUTE": "600"}
OPENS_AFTER = 10
OUT_OF_ORDER = 5  # places, as calls under way at the same time overtake each other
UNDER_WAY_SECONDS = 0.5  # after the opening: calls that had begun, stamped when they were stored, and the first probe
BACK_SECONDS = 110.0


@dataclass(frozen=True, kw_only=True)
class Outage:
    """An upstream to be without: the kind of work it holds up, and how many of its calls may be made how fast."""

    upstream: str
    kind: str
    in_flight: int
    most: int
    per: float
    seconds: float


MDG = Outage(upstream="mdg", kind="declaration", in_flight=8, most=10, per=1, seconds=MDG_AWAY_SECONDS)
TRAVEL_PAY = Outage(
    upstream="travel-pay", kind="claim", in_flight=32, most=600, per=60, seconds=TRAVEL_PAY_AWAY_SECONDS
)
_ENTERED = """
    SELECT w.id, client_id, coalesce(paid_at, w.created_at) AS entered,
           (SELECT min(at - milliseconds * interval '1 ms') FROM calls c
            WHERE c.workflow_id = w.id AND c.upstream = %(upstream)s AND outcome = 'ok') AS arrived
    FROM workflows w LEFT JOIN declarations USING (id) WHERE w.kind = %(kind)s AND client_id = ANY(%(clients)s::uuid[])
    ORDER BY entered
"""
_FAILED = """
    SELECT extract(epoch FROM at - milliseconds * interval '1 ms')::float AS begun FROM calls
    WHERE upstream = %(upstream)s AND outcome <> 'ok' ORDER BY begun
"""
_USED = """
    SELECT count(*) AS number FROM workflows w WHERE kind = %(kind)s AND attempt > (
        SELECT count(*) FROM calls c WHERE c.workflow_id = w.id AND c.upstream = %(upstream)s AND outcome <> 'ok')
"""
_UNFINISHED = "SELECT count(*) FROM workflows WHERE kind = %s AND finished_at IS NULL"


def mdg_away(on: Installation) -> list[Row]:
    """(d) Declarations of two clients are paid while MDG takes no connection."""
    clients = [Client(on, name) for name in ("one", "two")]
    declared = [client.declarations(DECLARATIONS // 2) for client in clients]
    notices = [[client.notice(one) for one in some] for client, some in zip(clients, declared, strict=True)]
    on.control("POST", "listeners", {"upstream": "mdg", "open": False})

    def place() -> None:
        clients[0].send(itertools.chain.from_iterable(zip(*notices, strict=True)))

    def back() -> None:
        on.control("POST", "listeners", {"upstream": "mdg", "open": True})

    rows = _without(on, MDG, clients, place, back)
    return [*rows, _once(on, "declarations", DECLARATIONS)]


def travel_pay_away(on: Installation) -> list[Row]:
    """(d) Claims of two clients are accepted while Travel Pay answers 503."""
    clients = [Client(on, name) for name in ("one", "two")]
    fault = on.fault(call="*", upstream="travel-pay", fault="status", status=503)

    def place() -> None:
        for _ in range(CLAIMS // 2):
            for client in clients:
                client.posts(1)

    rows = _without(on, TRAVEL_PAY, clients, place, lambda: on.control("DELETE", f"faults/{fault}"))
    return [*rows, _once(on, "submissions", CLAIMS)]


def _without(
    on: Installation, outage: Outage, clients: Sequence[Client], place: Callable[[], None], back: Callable[[], object]
) -> list[Row]:
    begun = time.monotonic()
    place()
    time.sleep(max(outage.seconds - (time.monotonic() - begun), 0))
    asked = {"upstream": outage.upstream, "kind": outage.kind, "clients": [client.id for client in clients]}
    used = _read(on, _USED, asked)[0]["number"]
    back()
    returned = time.time()
    wait_for(lambda: on.sql(_UNFINISHED, outage.kind) == 0, seconds=BACK_SECONDS, why="all came to its end", pause=0.2)
    drained = time.time() - returned
    failed = [row["begun"] for row in _read(on, _FAILED, asked)]
    opened, counted = _opened(on, outage.upstream)
    early = max(counted, sum(at <= opened + UNDER_WAY_SECONDS for at in failed))
    probes = failed[early:]
    most = OPENS_AFTER + outage.in_flight
    rate = most_within(_arrivals(on, outage.upstream, after=returned), outage.per)
    name = outage.upstream
    return [
        Row(name=f"{name}: failed calls until the breaker held", value=str(early), base=str(most),
            ratio=early / most, most=1),
        Row(name=f"{name}: most of {len(probes)} probes within a second", value=str(most_within(probes, 1.0)), base="1",
            ratio=most_within(probes, 1.0), most=1),
        Row(name=f"{name}: attempts used without a call", value=str(used), ratio=used, most=0),
        Row(name=f"{name}: most calls in {outage.per:g} s once back", value=str(rate), base=str(outage.most),
            ratio=rate / outage.most, most=1),
        Row(name=f"{name}: all through after", value=f"{drained:.0f} s"),
        *_order(name, _read(on, _ENTERED, asked)),
    ]  # fmt: skip


def _order(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """How far each client's own order of arrival is from that in which it paid, or was accepted."""
    descents, moved = 0, []
    for client in {row["client_id"] for row in rows}:
        own = [row["arrived"] for row in rows if row["client_id"] == client]
        descents += sum(later < earlier for earlier, later in itertools.pairwise(own))
        places = {at: place for place, at in enumerate(sorted(own))}
        moved += [abs(places[at] - place) for place, at in enumerate(own)]
    middle = statistics.median(moved)
    told = f"median {middle:g}, most {max(moved)} of {len(rows) // 2}"
    yield Row(
        name=f"{name}: places out of order", value=told, base=f"{OUT_OF_ORDER}", ratio=middle / OUT_OF_ORDER, most=1
    )
    yield Row(name=f"{name}: came before the one ahead of it", value=f"{descents} of {len(rows)}")


def most_within(moments: Sequence[float], seconds: float) -> int:
    """The largest number of moments, in their order, within any stretch of less than so many seconds."""
    first, most = 0, 0
    for number, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, number - first + 1)
    return most


def _arrivals(on: Installation, upstream: str, *, after: float) -> list[float]:
    """When calls reached the upstream."""
    calls = on.control("GET", f"calls?upstream={upstream}")["calls"]
    moments = sorted(datetime.fromisoformat(call["at"]).timestamp() for call in calls)
    return [moment for moment in moments if moment > after]


def _once(on: Installation, what: str, number: int) -> Row:
    counts = [entry["count"] for entry in on.ledger()[what]]
    wrong = abs(number - len(counts)) + sum(count != 1 for count in counts)
    return Row(name=f"{what} missing or doubled", value=f"{wrong} of {number}", ratio=wrong, most=0)


def _opened(on: Installation, upstream: str) -> tuple[float, int]:
    """When the breaker opened, and after how many failed calls."""
    for line in on.log("worker").read_text().splitlines():
        if "upstream.breaker_opened" in line and f'"{upstream}"' in line:
            told = json.loads(line)
            return datetime.fromisoformat(told["timestamp"]).timestamp(), told["failures"]
    raise BenchFailed(f"the breaker of {upstream} never opened")


def _read(on: Installation, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    with psycopg.connect(on.postgres.url, row_factory=dict_row) as connection:
        return connection.execute(query, values).fetchall()
