"""The query of GET /travel-claims, and the cursor that leads to its next page. Source: travel-claims contract, 2.5."""

import base64
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar
from uuid import UUID

from werkzeug.datastructures import MultiDict

from app import crypto, errors, states
from app.api import problems
from app.fields import MOST_FAULTS
from app.store.claims import Shown, Wanted

DEFAULT_LIMIT, MOST = 25, 100
PARAMETERS = ("state", "from", "to", "limit", "cursor")
_MILLISECOND = timedelta(milliseconds=1)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# A plus that was not escaped arrives as a space; there it can mean nothing else.
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)"
    r"([Zz]|[-+ ](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_STATES = [str(state) for state in states.Claim]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Page:
    """What to list, and how to tell where the next page begins."""

    wanted: Wanted
    limit: int
    whose: str
    filters: str

    def cursor_after(self, last: Shown) -> str:
        """Opaque to the client: the place of the last one listed, signed for this client and these filters."""
        return _cursor(self.whose, self.filters, f"{last.claim.created_at.astimezone(UTC).isoformat()}|{last.claim.id}")


class _Fault(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


class _Reader:
    """Reads one parameter after the other, and keeps what is wrong with them."""

    def __init__(self, given: MultiDict[str, str]) -> None:
        self.given = given
        self.faults: list[Mapping[str, str]] = []
        for name in given:
            if name not in PARAMETERS:
                self.blame(name, "unknown-parameter", f"There are {', '.join(PARAMETERS)}.")

    def blame(self, name: str, code: str, detail: str) -> None:
        self.faults.append({"pointer": f"?{name[:200]}", "code": code, "detail": detail})

    def one(self, name: str, read: Callable[[str], T]) -> T | None:
        """The parameter as `read` understands it; None where it is absent or at fault."""
        values = self.given.getlist(name)
        if len(values) > 1:
            self.blame(name, "repeated", "Give it once.")
        elif values:
            return self._try(name, read, values[0])
        return None

    def all(self, name: str, read: Callable[[str], T]) -> T | None:
        """As `one`, for a parameter whose values may be repeated or separated by commas."""
        return self._try(name, read, ",".join(self.given.getlist(name))) if name in self.given else None

    def _try(self, name: str, read: Callable[[str], T], value: str) -> T | None:
        try:
            return read(value)
        except _Fault as fault:
            self.blame(name, fault.code, fault.detail)
            return None


def read(given: MultiDict[str, str], *, whose: UUID, client_id: UUID | None) -> Page:
    """The page that a query asks for. `whose`: who asks; `client_id`: whose claims, None for all.

    Raises Refused with everything that is wrong with it.
    """
    reader = _Reader(given)
    chosen = reader.all("state", _states) or ()
    since, until = reader.one("from", _first), reader.one("to", _last)
    if since is not None and until is not None and since > until:
        reader.blame("from", "after-to", "Must not be after to.")
    limit = reader.one("limit", _limit) or DEFAULT_LIMIT
    filters = "|".join((",".join(chosen), str(since), str(until)))
    place = reader.one("cursor", lambda text: _place(text, str(whose), filters))
    if reader.faults:
        told = reader.faults[:MOST_FAULTS]
        raise errors.Refused(400, "invalid-parameter", problems.at_fault(len(reader.faults), "parameter"), faults=told)
    wanted = Wanted(
        client_id=client_id, states=chosen, since=_shown_from(since), until=_shown_to(until), older_than=place
    )
    return Page(wanted=wanted, limit=limit, whose=str(whose), filters=filters)


def _states(text: str) -> Sequence[str]:
    names = set(text.split(","))
    if not names <= set(_STATES):
        raise _Fault("enum", f"Must be one of: {', '.join(_STATES)}")
    return sorted(names)


def _first(text: str) -> datetime:
    return _moment(text, time.min)


def _last(text: str) -> datetime:
    return _moment(text, time.max)


def _moment(text: str, of_day: time) -> datetime:
    """A moment; of a day, its first or its last one."""
    try:
        if _DAY.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), of_day, UTC)
        parts = _MOMENT.fullmatch(text)
        if parts:
            offset = parts[3].upper().replace(" ", "+")
            return datetime.fromisoformat(f"{parts[1]}T{parts[2]}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _Fault("invalid-date-time", "Must be a day, e.g. 2026-03-02, or a time, e.g. 2026-03-02T10:00:00Z.")


# Clients see createdAt to the millisecond, cut off: that is what the bounds are compared with.


def _shown_from(moment: datetime | None) -> datetime | None:
    beyond = moment.microsecond % 1000 if moment else 0
    if not moment or not beyond:
        return moment
    return moment - timedelta(microseconds=beyond) + _MILLISECOND


def _shown_to(moment: datetime | None) -> datetime | None:
    return moment and moment + timedelta(microseconds=999 - moment.microsecond % 1000)


def _limit(text: str) -> int:
    if not re.fullmatch(rf"[1-9][0-9]?|{MOST}", text):
        raise _Fault("out-of-range", f"Must be a whole number from 1 to {MOST}.")
    return int(text)


def _place(text: str, whose: str, filters: str) -> tuple[datetime, UUID]:
    """Where the page before ended. Only a cursor that we made for this client and these filters leads anywhere."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        place = decoded.rpartition("|")[0]
        if not hmac.compare_digest(text, _cursor(whose, filters, place)):
            raise ValueError("not signed by us")
        made, _, last = place.partition("|")
        return datetime.fromisoformat(made), UUID(last)
    except ValueError as error:
        raise _Fault("invalid-cursor", "Use next of the page before, with the same filters.") from error


def _cursor(whose: str, filters: str, place: str) -> str:
    signed = f"{place}|{crypto.keyed_hash('cursor', whose, filters, place)}"
    return base64.urlsafe_b64encode(signed.encode()).decode().rstrip("=")
