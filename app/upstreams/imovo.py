"""i-Movo, which issues vouchers (vouchers contract, sections 4 and 5.1).

Every call is a GET, also one with effects, and none is ever made again by itself.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any, TypeVar

from app import config, logs, metrics, steps, vouchers
from app.upstreams import addresses, breaker, http, outcomes, shared
from app.upstreams import imovo_answers as answers
from app.upstreams.imovo_answers import Pair, Redemption

T = TypeVar("T")
_DAY = timedelta(days=1)
_BEYOND = 5.0  # of a call: waiting for the limiter, and the intent
_log = logs.get(__name__)


class Imovo:
    """i-Movo for one operation or read. Cheap to make, for one step; not for several threads.

    Every verb raises Failed when it has no success to return: a refusal is Rejected with code `already-exists`,
    `not-live`, `holiday-conflict` or `refused`, its `failure.message` i-Movo's texts as they may be shown ("" without).
    A Retry's `after` is what i-Movo asked for: a lower bound. Raises NotSent, and what `work` raises. `by`: the way
    to i-Movo, else that of this process. `most`: seconds for a whole call, connecting included, if less than set.
    """

    def __init__(
        self, settings: config.Imovo, *, work: steps.Work, by: http.Upstream | None = None, most: float = math.inf
    ) -> None:
        self._settings = settings
        self._work = work
        self._most = most
        self._upstream = by or upstream(settings)

    def create(self, subscription_id: str, scheme: str) -> Pair:
        """Issue a voucher that starts tomorrow."""
        start = vouchers.tomorrow().isoformat()
        query = {"SubscriptionId": subscription_id, "SchemeName": scheme, "StartDate": start}
        return self._send("create", "RequestSubscriptionVouchers", query, answers.pair(subscription_id))

    def get(self, subscription_id: str) -> Pair:
        """The live voucher. A read."""
        query = {"SubscriptionId": subscription_id}
        return self._send("get", "GetSubscriptionVoucherDetails", query, answers.pair(subscription_id), effect=None)

    def replace(self, subscription_id: str, *, card: bool, letter: bool) -> Pair:
        """Replace one kind or both; the codes as they then are."""
        kinds = "Both" if card and letter else "ActiveCard" if card else "ActiveLetter"
        query = {"SubscriptionId": subscription_id, "SubscriptionType": kinds}
        return self._send("replace", "ReplaceVoucherBySubscriptionId", query, answers.pair(subscription_id))

    def cancel(self, subscription_id: str, first_day: date | None = None) -> None:
        """Cancel at once, or such that `first_day` is the first one without voucher."""
        last = {"LastActiveDay": last_active_day(first_day).isoformat()} if first_day else {}
        self._send("cancel", "CancelSubscriptionVoucher", {"SubscriptionId": subscription_id, **last}, answers.plain)

    def suspend(self, subscription_id: str, start: date, end: date) -> None:
        """Suspend from `start` on; the voucher works again on `end`."""
        dates = {"StartDate": start.isoformat(), "ReactivationDate": end.isoformat()}
        self._send("suspend", "SetHoliday", {"SubscriptionId": subscription_id, **dates}, answers.plain)

    def history(self, subscription_id: str, limit: int) -> list[Redemption]:
        """The latest redemptions, order as received; there may be more than `limit`. A read."""
        query = {"SubscriptionId": subscription_id, "MaxLines": str(limit)}
        path, read = "SubscriptionRedemptionHistory", answers.history(subscription_id)
        return self._send("history", path, query, read, effect=None)

    def _send(
        self,
        call: str,
        path: str,
        query: Mapping[str, str],
        read: Callable[[Mapping[str, Any]], T],
        effect: int | None = 0,
    ) -> T:
        settings = self._settings
        request = http.Request(
            call=call,
            method="GET",
            template=f"Subscription/{path}",
            query=query,
            headers={"X-API-KEY": settings.api_key.get_secret_value()},
            effect=effect,
            connect=min(settings.connect_timeout, self._most),
            read=settings.timeout,
            whole=min(settings.longest_call, self._most),
        )
        return self._upstream.send(self._work, request, answers.understood(read, reading=request.safe))


def last_active_day(first_day_without: date) -> date:
    """i-Movo counts the other way: the last day on which the voucher works (contract 2.7)."""
    return first_day_without - _DAY


_upstreams: dict[config.Imovo, http.Upstream] = {}
_making = threading.Lock()


def upstream(settings: config.Imovo) -> http.Upstream:
    """i-Movo as this process sees it, in step with the other processes through Redis.

    Its `open_for()` says how long no call can be made.
    """
    with _making:
        if settings not in _upstreams:
            pool = config.settings().worker_concurrency
            _upstreams[settings] = make(settings, shared.of_process(), pool=pool)
        return _upstreams[settings]


def make(settings: config.Imovo, common: shared.Shared, *, pool: int = 32) -> http.Upstream:
    """Connections, breaker and limits of these settings."""
    rule = breaker.Rule(
        failures=settings.breaker_failures,
        waits=(settings.breaker_seconds,),
        probe=settings.longest_call + _BEYOND,
    )
    options = http.Options(
        per_second=settings.rate_per_second,
        rule=rule,
        breaker_shown=lambda state: metrics.imovo_breaker_open.set(state is not breaker.State.CLOSED),
        observe=_observe,
        dial=functools.partial(addresses.connect, private=True),
    )
    reading = outcomes.Reading(of_status=answers.of_status, said=answers.said, pause=answers.pause)
    return http.Upstream("imovo", settings.url, pool=pool, shared=common, reading=reading, options=options)


def _observe(call: steps.Call) -> None:
    metrics.imovo_calls.labels(call.name, call.outcome, call.code).inc()
    metrics.imovo_call_seconds.labels(call.name).observe(call.milliseconds / 1000)
    if call.code == "credentials":
        _log.error("imovo.credentials_refused", call=call.name, upstream_status=call.status)
