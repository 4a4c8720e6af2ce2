"""What the callers ask for: claims, declarations and subscriptions, with all choices made beforehand.

An order yields its requests one by one and is told each answer; what it is told it keeps, for the accounting.
"""

import datetime
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from tests.declaration_payloads import payload

MILEAGE = {"type": "mileage", "dateIncurred": "2026-03-02", "description": "mileage", "tripType": "RoundTrip"}
PARKING = {"type": "parking", "dateIncurred": "2026-03-02", "description": "Garage", "costRequested": 12.5}
PLACE = "/bc-passengers-declarations"
VOUCHERS = "/DEV/digital-voucher"
REPLACES: Mapping[str, tuple[str, ...]] = {
    "replace card": ("card",),
    "replace letter": ("letter",),
    "replace both": ("card", "letter"),
}
REFUSING = "984"  # the station whose claims Travel Pay will not take
_LATER = {"Prefer": "respond-async"}
_LONDON = ZoneInfo("Europe/London")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request. `name` is its Idempotency-Key and its correlation id. `pause`: seconds before it is sent."""

    name: str
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a request was answered in the end: of the body only its ids. `times`: how often it was sent until then."""

    status: int
    body: Mapping[str, str]
    times: int

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


Requests = Generator[Request, Answer, None]


@dataclass(kw_only=True)
class Claim:
    """A claim of a veteran of its own. `refused`: Travel Pay will not take its submission."""

    kind: ClassVar[str] = "claim"
    name: str
    icn: str
    expenses: Sequence[Mapping[str, Any]]
    rollback: bool
    refused: bool
    answers: list[Answer] = field(default_factory=list)

    def requests(self) -> Requests:
        body = {
            "icn": self.icn,
            "appointment": {"dateTime": "2026-03-02T10:00:00", "stationNumber": REFUSING if self.refused else "983"},
            "phone": f"+1202{self.icn[3:10]}",
            "expenses": self.expenses,
            "rollback": self.rollback,
        }
        self.answers.append((yield Request(name=self.name, method="POST", path="/travel-claims", body=body)))


@dataclass(kw_only=True)
class Declaration:
    """A declaration, paid for so many times. `refused`: MDG will not take it."""

    kind: ClassVar[str] = "declaration"
    name: str
    notices: int
    refused: bool
    pause: float
    answers: list[Answer] = field(default_factory=list)

    @property
    def reference(self) -> str | None:
        """The charge reference that the caller was told."""
        return str(self.answers[0].body["_id"]) if self.answers and self.answers[0].good else None

    def requests(self) -> Requests:
        self.answers.append((yield Request(name=self.name, method="POST", path=f"{PLACE}/submit", body=payload())))
        for number in range(self.notices if self.reference else 0):
            path, pause = f"{PLACE}/update/{self.reference}", 0.0 if number else self.pause
            notice = Request(name=f"{self.name}-n{number}", method="POST", path=path, pause=pause)
            self.answers.append((yield notice))


@dataclass(kw_only=True)
class Subscription:
    """A subscription's voucher: created, and changed by each of `changes` in turn, without waiting for the one before.

    A change is a word: `create`, one of REPLACES, `suspend N` (the N-th range of days), `cancel`, `cancel later`.
    """

    kind: ClassVar[str] = "voucher-operation"
    name: str
    id: str
    changes: Sequence[tuple[str, float]]
    answers: list[Answer] = field(default_factory=list)

    def requests(self) -> Requests:
        for number, (change, pause) in enumerate(self.changes):
            method, path, body = _change(self.id, change)
            request = Request(
                name=f"{self.name}-{number}", method=method, path=path, body=body, headers=_LATER, pause=pause
            )
            self.answers.append((yield request))


Order = Claim | Declaration | Subscription


def _change(subscription: str, change: str) -> tuple[str, str, Mapping[str, Any]]:
    word, _, rest = change.partition(" ")
    own = {"subscriptionId": subscription}
    if word == "create":
        return "PUT", f"{VOUCHERS}/{subscription}", {"ratePlanName": "Everyday"}
    if word == "suspend":
        start, end = days(int(rest))
        return "PUT", f"{VOUCHERS}/suspend", own | {"startDate": start, "endDateExclusive": end}
    if word == "cancel":
        return "POST", f"{VOUCHERS}/cancel", own | ({"cancellationDate": days(20)[0]} if rest else {})
    kinds = REPLACES[change]
    flags = {"replaceCard": "card" in kinds, "replaceLetter": "letter" in kinds}
    return "POST", f"{VOUCHERS}/replace", own | flags


def days(number: int) -> tuple[str, str]:
    """First day and day of return of the N-th suspension; none touches another."""
    first = datetime.datetime.now(_LONDON).date() + datetime.timedelta(days=10 * (number + 1))  # noqa: TID251 - a caller's clock
    return first.isoformat(), (first + datetime.timedelta(days=5)).isoformat()


# Choosing

CLAIMS, DECLARATIONS = 0.155, 0.39  # of the workflows
BECOME_WORKFLOWS = 0.83  # of the changes; a second replacement of a day is none, nor what is refused


def chosen(dice: random.Random, seed: int, workflows: int) -> list[Order]:
    """Orders for so many workflows and some more, in the order in which they are placed.

    A claim is two, for it has its text; not every change of a subscription becomes one.
    """
    claims, declared = (max(1, round(workflows * share)) for share in (CLAIMS, DECLARATIONS))
    orders: list[Order] = [_claim(dice, f"storm-{seed}-c{number}", number) for number in range(claims)]
    orders += [_declaration(dice, f"storm-{seed}-d{number}") for number in range(declared)]
    changes = 0
    while changes * BECOME_WORKFLOWS < workflows - 2 * claims - declared:
        one = _subscription(dice, seed, changes)
        changes += len(one.changes)
        orders.append(one)
    dice.shuffle(orders)
    return orders


def _claim(dice: random.Random, name: str, number: int) -> Claim:
    return Claim(
        name=name,
        icn=f"{1_000_000_000 + number}V{number:06}",
        expenses=[MILEAGE, PARKING] if dice.random() < 0.5 else [MILEAGE],
        rollback=dice.random() < 0.4,
        refused=dice.random() < 0.2,
    )


def _declaration(dice: random.Random, name: str) -> Declaration:
    return Declaration(
        name=name,
        notices=dice.choices([0, 1, 2], [1, 7, 2])[0],
        refused=dice.random() < 0.05,
        pause=dice.choice([0.0, 1.0]),
    )


def _subscription(dice: random.Random, seed: int, number: int) -> Subscription:
    more = range(dice.randint(1, 4))
    changes = ["create", *(dice.choice([*REPLACES, *REPLACES, *[f"suspend {place}"] * 2, "create"]) for place in more)]
    if dice.random() < 0.4:
        changes += [dice.choice(["cancel", "cancel later"])] * dice.choice([1, 1, 2])
    return Subscription(
        name=f"storm-{seed}-v{number}",
        id=f"STORM{seed}x{number:06}",
        changes=[(change, dice.choice([0.0, 0.5, 3.0])) for change in changes],
    )
