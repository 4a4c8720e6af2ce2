"""i-Movo: vouchers of newspaper subscriptions. Every call is a GET under `/Subscription/`, also those with effects."""

import hmac
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from sandbox.faults import Kind
from sandbox.messages import Answer, Refusal, Request, json_answer
from sandbox.turn import Call
from sandbox.upstreams import imovo_faults as own_faults
from sandbox.upstreams.imovo_book import Book, Holiday, Subscription, shape, today
from sandbox.world import World

BASE = "/Subscription/"
ROUTES = {
    "RequestSubscriptionVouchers": ("create-voucher", "_create"),
    "GetSubscriptionVoucherDetails": ("get-voucher", "_get"),
    "ReplaceVoucherBySubscriptionId": ("replace-voucher", "replace"),
    "CancelSubscriptionVoucher": ("cancel-voucher", "_cancel"),
    "SetHoliday": ("set-holiday", "_set_holiday"),
    "SubscriptionRedemptionHistory": ("redemption-history", "_history"),
}
REPLACED = {"Both": ("card", "letter"), "ActiveCard": ("card",), "ActiveLetter": ("letter",)}
LIVE = "Unable to create vouchers: live subscription vouchers already exist for the supplied subscription ID"
NOT_LIVE = "Unable to {}: no live subscription vouchers exist for the supplied subscription id"
CONFLICT = "Unable to create holiday, conflicting holiday found between entered dates"
PAST = "Invalid Request: Please enter a reactivation date in the future"


class Imovo:
    """Speaks the six calls of ROUTES. A refusal is HTTP 200 with the flag false; a malformed call is 400."""

    name = "imovo"
    calls: tuple[str, ...] = tuple(name for name, _ in ROUTES.values())

    def __init__(self, world: World) -> None:
        self.world = world
        self.book = Book()
        self.faults: Mapping[str, Kind] = own_faults.kinds(self)

    def route(self, request: Request) -> Call | None:
        if request.method != "GET" or not request.path.startswith(BASE):
            return None
        found = ROUTES.get(request.path.removeprefix(BASE))
        return Call(found[0], getattr(self, found[1])) if found else None

    def traits(self, _call: Call, _request: Request) -> Mapping[str, Any]:
        return {}

    def error(self, status: int, message: str) -> Answer:
        return refusal([message], status)

    def empty(self, call: str, request: Request) -> Answer:
        """For create, get and replace no codes at all, for history no lines."""
        asked = request.arguments
        subscription_id = asked.get("SubscriptionId", "")
        if call == "redemption-history":
            return _history(subscription_id, [])
        if call in ("cancel-voucher", "set-holiday"):
            return DONE
        with self.world.lock:
            known = self.book.subscription(subscription_id)
        return json_answer(200, shape(subscription_id, known.scheme if known else asked.get("SchemeName", ""), []))

    def reset(self) -> None:
        self.book = Book()

    def plant(
        self,
        subscription_id: str,
        *,
        scheme: str = "Guardian7Day",
        codes: Mapping[str, str | None] | None = None,
        holidays: Collection[tuple[date, date]] = (),
    ) -> Subscription:
        """A live voucher that nobody here asked for: it is in no ledger. `codes` by kind, fresh where not given.

        A holiday is first day and day of return; it may be running already.
        """
        with self.world.lock:
            planted = self.book.issue(subscription_id, scheme, codes)
            planted.holidays = [Holiday(*days) for days in holidays]
            return planted

    def replace(self, request: Request, only: str | None = None) -> Answer:
        """Fresh codes of the kinds asked for, or of the one kind whatever was asked for."""
        asked = self._asked(request, {"SubscriptionId", "SubscriptionType"})
        if asked["SubscriptionType"] not in REPLACED:
            raise Refusal(self.error(400, f"Invalid Request: SubscriptionType must be one of {', '.join(REPLACED)}"))
        subscription = self._live(request, "replace voucher(s)")
        kinds = REPLACED[asked["SubscriptionType"]] if only is None else (only,)
        self.book.renew(subscription, kinds)
        for kind in kinds:
            key = {"subscriptionId": subscription.id, "kind": kind, "date": today().isoformat()}
            self._record(request, "replacements", key, id=subscription.code(kind))
        return json_answer(200, subscription.shown())

    def _asked(self, request: Request, required: set[str], optional: str = "") -> dict[str, str]:
        """The parameters, when it is a call that i-Movo takes. Raises Refusal."""
        key = self.world.credentials.imovo_api_key
        if not hmac.compare_digest((request.header("X-API-KEY") or "").encode(), key.encode()):
            raise Refusal(self.error(401, "Unauthorized"))
        if request.header("Accept") != "application/json" or not request.correlation_id or request.body:
            said = "Invalid Request: Accept application/json, an X-Correlation-ID and no body are expected"
            raise Refusal(self.error(400, said))
        asked = request.arguments
        wrong = {name for name in required if not asked.get(name)} | (asked.keys() - required - {optional})
        if wrong:
            raise Refusal(self.error(400, f"Invalid Request: missing or unknown {', '.join(sorted(wrong))}"))
        return asked

    def _live(self, request: Request, what: str) -> Subscription:
        found = self.book.live(request.arguments["SubscriptionId"])
        if found is None:
            raise Refusal(refusal([NOT_LIVE.format(what)]))
        return found

    def _day(self, text: str) -> date:
        try:
            found = date.fromisoformat(text)
        except ValueError:
            found = None
        if found is None or found.isoformat() != text:
            raise Refusal(self.error(400, "Invalid Request: a date looks like 2025-03-11"))
        return found

    def _record(self, request: Request, kind: str, key: dict[str, Any], *, id: str, **more: Any) -> None:
        self.world.ledger.record(kind, key, id=id, correlation_id=request.correlation_id, **more)

    def _create(self, request: Request) -> Answer:
        asked = self._asked(request, {"SubscriptionId", "SchemeName", "StartDate"})
        start = self._day(asked["StartDate"])
        if self.book.live(asked["SubscriptionId"]):
            raise Refusal(refusal([LIVE]))
        made = self.book.issue(asked["SubscriptionId"], asked["SchemeName"])
        key = {"subscriptionId": made.id, "scheme": made.scheme, "date": today().isoformat()}
        codes = {"cardCode": made.code("card"), "letterCode": made.code("letter")}
        self._record(request, "vouchers", key, id=codes["cardCode"], startDate=start.isoformat(), **codes)
        return json_answer(200, made.shown())

    def _get(self, request: Request) -> Answer:
        self._asked(request, {"SubscriptionId"})
        return json_answer(200, self._live(request, "get voucher details").shown())

    def _cancel(self, request: Request) -> Answer:
        """At once, or at the end of a day: until then it is live. The same day again changes nothing."""
        last = self._asked(request, {"SubscriptionId"}, "LastActiveDay").get("LastActiveDay")
        day = None if last is None else self._day(last)
        subscription = self._live(request, "cancel vouchers")
        if day is None:
            subscription.end()
        elif subscription.last_active_day == day:
            return DONE
        subscription.last_active_day = day
        key = {"subscriptionId": subscription.id, "lastActiveDay": last}
        self._record(request, "cancellations", key, id=subscription.id)
        return DONE

    def _set_holiday(self, request: Request) -> Answer:
        asked = self._asked(request, {"SubscriptionId", "StartDate", "ReactivationDate"})
        holiday = Holiday(self._day(asked["StartDate"]), self._day(asked["ReactivationDate"]))
        subscription = self._live(request, "create holiday")
        if not today() < holiday.start < holiday.reactivation:
            raise Refusal(refusal([PAST]))
        if any(one.is_running or one.overlaps(holiday) for one in subscription.holidays):
            raise Refusal(refusal([CONFLICT]))
        subscription.holidays.append(holiday)
        days = {"startDate": asked["StartDate"], "reactivationDate": asked["ReactivationDate"]}
        self._record(request, "holidays", {"subscriptionId": subscription.id, **days}, id=subscription.id)
        return DONE

    def _history(self, request: Request) -> Answer:
        """Also of a subscription that is not live any more."""
        asked = self._asked(request, {"SubscriptionId", "MaxLines"})
        if not (asked["MaxLines"].isascii() and asked["MaxLines"].isdigit() and int(asked["MaxLines"]) > 0):
            raise Refusal(self.error(400, "Invalid Request: MaxLines must be a whole number from 1"))
        found = self.book.subscription(asked["SubscriptionId"])
        if found is None:
            raise Refusal(refusal([NOT_LIVE.format("get redemption history")]))
        return _history(found.id, found.history(int(asked["MaxLines"])))


DONE = json_answer(200, {"message": "OK", "successfulRequest": True})


def refusal(texts: list[str], status: int = 200) -> Answer:
    return json_answer(status, {"errorMessages": texts, "successfulRequest": False})


def _history(id: str, lines: list[dict[str, Any]]) -> Answer:
    counted = {"subscriptionId": id, "lines": len(lines), "successfulRequest": True}
    return json_answer(200, counted | {"voucherHistoryItem": lines})
