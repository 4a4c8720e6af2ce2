"""Operations on vouchers: several on one subscription, joined, withdrawn and replayed."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from sqlalchemy import text

from app import db, states, vouchers
from app.flows import voucher_replay, voucher_requests
from app.flows.voucher_changes import Change
from app.flows.voucher_requests import Asked
from app.store import vouchers as records
from tests.flows.voucher_play import client_id
from tests.machines.machine import SOME, LineMachine, Run
from tests.machines.world import World

S = states.VoucherOperation
SUBSCRIPTIONS = ("S1", "S2")
A_DAY = 90_000
_ROWS = text("SELECT * FROM workflows JOIN voucher_operations USING (id) ORDER BY subscription_id, sequence")
_AT_WORK = {S.RUNNING, S.CALLING, S.CHECKING}
Effect = tuple[str, ...]
pytestmark = pytest.mark.timeout(900)  # shrinking what failed takes its time


def changes() -> list[tuple[str, Mapping[str, Any]]]:
    """What may be asked for."""
    first, last, again, end, later = (str(vouchers.today() + timedelta(days=days)) for days in (2, 9, 12, 15, 30))
    return [
        ("create", {"scheme": "Guardian7Day"}),
        ("replace", {"replaceCard": True, "replaceLetter": False}),
        ("replace", {"replaceCard": False, "replaceLetter": True}),
        ("replace", {"replaceCard": True, "replaceLetter": True}),
        ("suspend", {"startDate": first, "endDateExclusive": last}),
        ("suspend", {"startDate": again, "endDateExclusive": end}),
        ("cancel", {"cancellationDate": later}),
        ("cancel", {"cancellationDate": None}),
    ]


class VoucherMachine(LineMachine):
    """The vouchers of one client."""

    effects: ClassVar[Sequence[str]] = ("create-voucher", "replace-voucher", "cancel-voucher", "set-holiday")
    reads: ClassVar[Sequence[str]] = ("get-voucher",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.client = client_id()
        self.ended: set[str] = set()

    @initialize(number=SOME)
    def vouchers_are_created(self, number: int) -> None:
        for subscription in SUBSCRIPTIONS[: 1 + number % 2]:
            self.ask(subscription, 0)

    @rule(number=SOME, change=st.integers(0, 7), strict=st.booleans())
    def a_change_is_asked_for(self, number: int, change: int, *, strict: bool) -> None:
        self.ask(SUBSCRIPTIONS[number % 2], change, strict=strict)

    def ask(self, subscription: str, number: int, *, strict: bool = False) -> None:
        """No create follows a cancel: one voucher per subscription is enough to count."""
        operation, parameters = changes()[number]
        if operation == "cancel":
            self.ended.add(subscription)
        if operation == "create" and subscription in self.ended:
            return
        change = Change(operation=operation, subscription_id=subscription, parameters=parameters)
        voucher_requests.submit(self.asked(strict=strict), change)

    def asked(self, *, strict: bool) -> Asked:
        return Asked(
            client_id=self.client, correlation_id="crm", urgent=strict, strict=strict, tie=lambda session, one: None
        )

    def operations(self) -> Sequence[Any]:
        with db.transaction() as session:
            return session.execute(_ROWS).all()

    @rule(number=SOME)
    def its_caller_waits_no_longer(self, number: int) -> None:
        for row in self.operations()[number:][:1]:
            voucher_requests.withdraw(row.id)

    @rule(number=SOME, strict=st.booleans())
    def its_request_is_repeated(self, number: int, *, strict: bool) -> None:
        for row in self.operations()[number:][:1]:
            voucher_requests.resume(self.asked(strict=strict), row.id)

    @rule(number=SOME)
    def an_operator_replays(self, number: int) -> None:
        for row in self.operations()[number:][:1]:
            self.replay(row.id)

    def replay(self, operation_id: UUID) -> None:
        """What cannot be replayed is refused."""
        with contextlib.suppress(ValueError):
            voucher_replay.replay(operation_id, by="ada", reason="again", dry_run=False)

    @rule()
    def a_day_passes(self) -> None:
        """What was not sent until now is given up."""
        self.world.pass_time(A_DAY)

    def nothing_twice(self) -> None:
        """One voucher, one replacement a day and kind, each holiday and each end once; one operation at a time."""
        found = self.found()
        assert all(count == 1 for count in found.values()), found
        rows = self.operations()
        for subscription in SUBSCRIPTIONS:
            assert sum(row.state in _AT_WORK for row in rows if row.subscription_id == subscription) <= 1
        sends = Counter(row.subscription_id for row in rows for _ in range(row.sends))
        for call in self.effects:
            for made in self.world.upstreams.calls(call=call):
                sends[made["query"]["SubscriptionId"]] -= 1
        assert all(left >= 0 for left in sends.values()), "a call that no row knows of"

    def found(self) -> Counter[Effect]:
        """The effects at i-Movo, by subscription."""
        ledger, found = self.world.upstreams.ledger(), Counter[Effect]()
        for kind, names in _NAMED.items():
            for entry in ledger[kind]:
                found[(entry["subscriptionId"], kind, *(entry[name] for name in names))] += entry["count"]
        return found

    def everything_once(self) -> None:
        for row in self.operations():
            self.replay(row.id)
            self.world.come_to_rest()
        rows, found = self.operations(), set(self.found())
        assert all(row.finished_at for row in rows)
        assert all(row.state == S.UNRESOLVED for row in rows if row.in_doubt)
        done = {effect for row in rows if row.state == S.SUCCEEDED for effect in _effects(row)}
        open_ones = {effect for row in rows if row.state == S.UNRESOLVED for effect in _effects(row)}
        assert found - done <= open_ones, f"nobody accounts for {found - done - open_ones}"
        gone = {
            subscription  # to cancel what is not there, or not any more, succeeds as well
            for subscription in SUBSCRIPTIONS
            if (subscription, "cancellations", None) in found or (subscription, "vouchers") not in found
        }
        missing = {effect for effect in done - found if effect[1] != "cancellations" or effect[0] not in gone}
        assert not missing, f"i-Movo does not show {missing}"
        for subscription in SUBSCRIPTIONS:
            if not any(row.subscription_id == subscription for row in rows if row.state == S.UNRESOLVED):
                self.our_record_is_right(subscription)

    def our_record_is_right(self, subscription: str) -> None:
        """It shows the codes that are live at i-Movo, and none where there are none."""
        live = self.world.upstreams.upstreams["imovo"].book.live(subscription)  # type: ignore[attr-defined]
        with db.transaction() as session:
            voucher = records.load(session, subscription)
            shown = voucher is not None and records.is_live(voucher)
        assert shown == (live is not None)
        if voucher and live:
            assert (voucher.card_code, voucher.letter_code) == (live.code("card"), live.code("letter"))


_NAMED: Mapping[str, Sequence[str]] = {
    "vouchers": (),
    "replacements": ("kind", "date"),
    "holidays": ("startDate", "reactivationDate"),
    "cancellations": ("lastActiveDay",),
}


def _effects(row: Any) -> set[Effect]:
    """What this operation leaves at i-Movo."""
    asked, of = row.parameters, row.subscription_id
    match row.operation:
        case "create":
            return {(of, "vouchers")}
        case "replace":
            day = str(row.counted_on)
            return {(of, "replacements", kind, day) for kind in vouchers.asked_kinds(asked)}
        case "suspend":
            return {(of, "holidays", asked["startDate"], asked["endDateExclusive"])}
    day = asked["cancellationDate"]
    last = str(date.fromisoformat(day) - timedelta(days=1)) if day else None
    return {(of, "cancellations", last)}  # type: ignore[arg-type]


def test_every_effect_of_an_operation_is_there_once_and_our_record_shows_it(run: Run) -> None:
    run(VoucherMachine)
