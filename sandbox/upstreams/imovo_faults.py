"""The faults only i-Movo has: refusals told with HTTP 200, missing, old and half changed codes, foreign vouchers."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from sandbox.faults import Kind
from sandbox.messages import Answer, Drop, Reply, json_answer
from sandbox.turn import Turn

if TYPE_CHECKING:
    from sandbox.upstreams.imovo import Imovo

Parameters = Mapping[str, Any]
Vouchers = list[dict[str, str]]
SHOWING_CODES = ("create-voucher", "get-voucher", "replace-voucher")
CALLS = (*SHOWING_CODES, "cancel-voucher", "set-holiday", "redemption-history")


def refused(turn: Turn, given: Parameters) -> Reply:
    if given["effect"]:
        turn.perform()
    return json_answer(given["status"] or 200, _refusal(given))


def inactive_only(imovo: "Imovo", turn: Turn, given: Parameters) -> Reply:
    return _showing(imovo, turn, given, _inactive)


def kind_missing(imovo: "Imovo", turn: Turn, given: Parameters) -> Reply:
    gone = f"Active{given['kind'].capitalize()}"
    return _showing(imovo, turn, given, lambda vouchers: [one for one in vouchers if one["subscriptionType"] != gone])


def same_codes(imovo: "Imovo", turn: Turn, given: Parameters) -> Reply:
    """A success that shows the codes from before; a refusal as it is."""
    before = json.loads(_as_it_is(imovo, turn).body)["subscriptionVouchers"]
    return _showing(imovo, turn, given, lambda _: before)


def half_replaced(imovo: "Imovo", turn: Turn, given: Parameters) -> Reply:
    """One kind is replaced whatever was asked for; answered by a success, a refusal, or not at all."""
    answer = turn.perform(partial(imovo.replace, only=given["kind"]))
    if given["lost"]:
        return Drop()
    return answer if given["texts"] is None else json_answer(200, _refusal(given))


def foreign_voucher(imovo: "Imovo", turn: Turn, given: Parameters) -> Reply:
    """The subscription has a live voucher that nobody here asked for: it stays, and is in no ledger."""
    subscription_id = turn.request.arguments.get("SubscriptionId", "")
    with imovo.world.lock:
        if imovo.book.live(subscription_id) is None:
            codes = {kind: given[f"{kind}_code"] for kind in ("card", "letter")}
            holidays = [(date.fromisoformat(start), date.fromisoformat(end)) for start, end in given["holidays"]]
            imovo.plant(subscription_id, scheme=given["scheme"], codes=codes, holidays=holidays)
    return turn.perform()


def _as_it_is(imovo: "Imovo", turn: Turn) -> Answer:
    """What a get would show now: of a subscription without live voucher the success without codes."""
    with imovo.world.lock:
        found = imovo.book.live(turn.request.arguments.get("SubscriptionId", ""))
        return json_answer(200, found.shown()) if found else imovo.empty(turn.call.name, turn.request)


def _showing(imovo: "Imovo", turn: Turn, given: Parameters, change: Callable[[Vouchers], Vouchers]) -> Reply:
    """The success with other vouchers in it; a refusal as it is."""
    answer = turn.perform() if given["effect"] else _as_it_is(imovo, turn)
    told = json.loads(answer.body)
    if told["successfulRequest"]:
        told["subscriptionVouchers"] = change(told["subscriptionVouchers"])
    return json_answer(answer.status, told)


def _inactive(vouchers: Vouchers) -> Vouchers:
    return [one | {"subscriptionType": one["subscriptionType"].replace("Active", "Inactive")} for one in vouchers]


def _refusal(given: Parameters) -> dict[str, Any]:
    return {"errorMessages": given["texts"] or [], "successfulRequest": False}


def kinds(imovo: "Imovo") -> dict[str, Kind]:
    effect = {"effect": True}
    half: Parameters = {"kind": "card", "texts": None, "lost": False}
    planted: Parameters = {"scheme": "Guardian7Day", "card_code": None, "letter_code": None, "holidays": []}
    return {
        "refused": Kind(refused, {"texts": ["An error has occurred"], "status": 200, "effect": False}, calls=CALLS),
        "inactive-only": Kind(partial(inactive_only, imovo), effect, calls=SHOWING_CODES),
        "kind-missing": Kind(partial(kind_missing, imovo), {"kind": "letter", **effect}, calls=SHOWING_CODES),
        "same-codes": Kind(partial(same_codes, imovo), effect, calls=("replace-voucher",)),
        "half-replaced": Kind(partial(half_replaced, imovo), half, calls=("replace-voucher",)),
        "foreign-voucher": Kind(partial(foreign_voucher, imovo), planted, calls=CALLS),
    }
