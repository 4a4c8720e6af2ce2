"""The calls with effects that MDG and i-Movo received, counted by declaration and subscription.

Read while they come in: the sandbox keeps the last 100,000 calls only, each with its body.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

DECLARING = "submit-declaration"
CHANGING = ("create-voucher", "replace-voucher", "cancel-voucher", "set-holiday")
_OVERLAP = 200  # calls are listed in nearly, not wholly, the order of their numbers


class Sent:
    """`declarations` by acknowledgement reference, `vouchers` by subscription: how many calls there were."""

    def __init__(self, get: Callable[[str], Mapping[str, Any]]) -> None:
        """`get` reads a path of the sandbox's control."""
        self._get = get
        self._numbers: set[int] = set()
        self._last: dict[str, int] = {}
        self.declarations: Counter[str] = Counter()
        self.vouchers: Counter[str] = Counter()

    def read(self) -> None:
        """Count what came in since. Raises OSError when the sandbox does not answer in time."""
        for name in (DECLARING, *CHANGING):
            after = max(self._last.get(name, 0) - _OVERLAP, 0)
            for call in self._get(f"calls?call={name}&after={after}")["calls"]:
                if call["number"] not in self._numbers:
                    self._count(name, call)

    def _count(self, name: str, call: Mapping[str, Any]) -> None:
        self._numbers.add(call["number"])
        self._last[name] = max(self._last.get(name, 0), call["number"])
        if name == DECLARING:
            common = call["body"]["simpleDeclarationRequest"]["requestCommon"]
            self.declarations[str(common["acknowledgementReference"])] += 1
        else:
            self.vouchers[call["query"]["SubscriptionId"]] += 1
