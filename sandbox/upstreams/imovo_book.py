"""What i-Movo remembers: subscriptions with their codes, live and old, and their holidays. Dates are London's."""

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any
from zoneinfo import ZoneInfo

LONDON = ZoneInfo("Europe/London")
HOLIDAYS_LIFTED_AT = time_of_day(1, tzinfo=UTC)
PREFIXES = {"card": "60", "letter": "09"}  # a letter code that is taken for a number loses its zero
REJECTED = "Redemption rejected - the voucher cannot be used today"


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def today() -> date:
    return now().astimezone(LONDON).date()


@dataclass(slots=True, eq=False)
class Voucher:
    """One code of a subscription: `kind` is `card` or `letter`."""

    kind: str
    code: str
    issued_at: datetime = field(default_factory=now)
    is_active: bool = True

    def shown(self) -> dict[str, str]:
        word = "Active" if self.is_active else "Inactive"
        return {"subscriptionType": word + self.kind.capitalize(), "voucherCode": self.code}

    def redemptions(self) -> list[dict[str, Any]]:
        """Made up: the voucher was used on the day before it was issued, and refused two days before."""
        used = {"activityType": "Redemption", "address": None, "postCode": "CB2 1TN", "reason": "Success", "value": 1.0}
        refused = used | {"address": "12 High Street", "postCode": None, "reason": REJECTED, "value": 0.0}
        return [self._line(days=1, **used), self._line(days=2, **refused)]

    def _line(self, *, days: int, **more: Any) -> dict[str, Any]:
        at = (self.issued_at - timedelta(days=days)).astimezone(LONDON)
        shown = at.replace(tzinfo=None).isoformat(timespec="milliseconds")
        return {"voucherCode": self.code, "voucherType": self.kind.capitalize(), "date": shown, **more}


@dataclass(frozen=True, slots=True)
class Holiday:
    """No voucher from `start` up to the day before `reactivation`."""

    start: date
    reactivation: date

    @property
    def is_running(self) -> bool:
        return self.start <= today() and now() < datetime.combine(self.reactivation, HOLIDAYS_LIFTED_AT)

    def overlaps(self, other: "Holiday") -> bool:
        return self.start < other.reactivation and other.start < self.reactivation


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription and every code it ever had, oldest first. `last_active_day` None: no end is known."""

    id: str
    scheme: str
    vouchers: list[Voucher] = field(default_factory=list)
    holidays: list[Holiday] = field(default_factory=list)
    last_active_day: date | None = None

    @property
    def is_live(self) -> bool:
        within = self.last_active_day is None or today() <= self.last_active_day
        return within and any(one.is_active for one in self.vouchers)

    def code(self, kind: str) -> str:
        return next(one.code for one in self.vouchers if one.is_active and one.kind == kind)

    def shown(self) -> dict[str, Any]:
        vouchers = [one.shown() for one in self.vouchers]
        return shape(self.id, self.scheme, vouchers)

    def history(self, most: int) -> list[dict[str, Any]]:
        """The latest lines of all codes, latest first."""
        lines = [line for one in self.vouchers for line in one.redemptions()]
        return sorted(lines, key=lambda line: str(line["date"]), reverse=True)[:most]

    def end(self, kinds: Iterable[str] = PREFIXES) -> None:
        for one in self.vouchers:
            one.is_active = one.is_active and one.kind not in kinds


def shape(id: str, scheme: str, vouchers: list[dict[str, str]]) -> dict[str, Any]:
    """A success of create, get and replace."""
    return {"schemeName": scheme, "subscriptionId": id, "successfulRequest": True, "subscriptionVouchers": vouchers}


class Book:
    """Read and changed only under the world's lock."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._codes: set[str] = set()

    def subscription(self, id: str) -> Subscription | None:
        """Live or not; None for one that never had a voucher."""
        return self._subscriptions.get(id)

    def live(self, id: str) -> Subscription | None:
        found = self._subscriptions.get(id)
        return found if found is not None and found.is_live else None

    def issue(self, id: str, scheme: str, codes: Mapping[str, str | None] | None = None) -> Subscription:
        """A new live voucher of that scheme, with fresh codes where none are given; earlier codes are old ones now."""
        found = self._subscriptions.setdefault(id, Subscription(id, scheme))
        found.scheme, found.holidays, found.last_active_day = scheme, [], None
        self.renew(found, PREFIXES, codes or {})
        return found

    def renew(
        self, subscription: Subscription, kinds: Iterable[str], codes: Mapping[str, str | None] | None = None
    ) -> None:
        """New codes of these kinds in place of the ones it has."""
        subscription.end(kinds)
        subscription.vouchers += [Voucher(kind, (codes or {}).get(kind) or self._fresh(kind)) for kind in kinds]

    def _fresh(self, kind: str) -> str:
        while (code := f"{PREFIXES[kind]}{random.randrange(10**8):08}") in self._codes:
            pass
        self._codes.add(code)
        return code
