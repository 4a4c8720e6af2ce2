"""The ledger of effects: what really happened at the upstreams, and how often the very same thing happened."""

import threading
import time
from typing import Any

from sandbox.messages import timestamp

KINDS = (
    "appointments", "claims", "expenses", "submissions", "deletions", "texts", "veis_mints", "btsss_mints", "receipts",
    "declarations", "vouchers", "replacements", "cancellations", "holidays",
)  # fmt: skip


class Entry:
    """One effect, identified by kind and key. `count` is above 1 when it happened again."""

    __slots__ = ("at", "correlation_ids", "count", "ids", "key", "last_at", "more")

    def __init__(self, key: dict[str, Any]) -> None:
        self.key = key
        self.more: dict[str, Any] = {}
        self.count = 0
        self.ids: list[str] = []
        self.correlation_ids: list[str | None] = []
        self.at = self.last_at = time.time()

    def shown(self) -> dict[str, Any]:
        return {
            **self.key,
            **self.more,
            "id": self.ids[-1],
            "ids": list(self.ids),
            "count": self.count,
            "correlation_id": self.correlation_ids[0],
            "correlation_ids": list(self.correlation_ids),
            "at": timestamp(self.at),
            "last_at": timestamp(self.last_at),
        }


class Ledger:
    """Entries by kind and key, in the order they first happened. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, dict[tuple[Any, ...], Entry]] = {kind: {} for kind in KINDS}
        self._totals = dict.fromkeys(KINDS, 0)

    def record(self, kind: str, key: dict[str, Any], *, id: str, correlation_id: str | None, **more: Any) -> None:
        """Counts one effect. Two effects are the same when kind and key are equal; `more` is only shown."""
        with self._lock:
            entry = self._entries[kind].setdefault(tuple(key.values()), Entry(key))
            entry.count += 1
            entry.last_at = time.time()
            entry.more.update(more)
            entry.ids.append(id)
            if correlation_id not in entry.correlation_ids:
                entry.correlation_ids.append(correlation_id)
            self._totals[kind] += 1

    def totals(self) -> dict[str, int]:
        """Number of effects of each kind, repeats included."""
        with self._lock:
            return dict(self._totals)

    def duplicates(self) -> dict[str, int]:
        """Number of effects of each kind beyond the first of its key."""
        with self._lock:
            return {kind: self._totals[kind] - len(self._entries[kind]) for kind in KINDS}

    def shown(self, correlation_id: str | None = None) -> dict[str, Any]:
        """Totals, duplicates and the entries of every kind; of one correlation id when told."""
        with self._lock:
            entries = {kind: list(found.values()) for kind, found in self._entries.items()}
        listed = {
            kind: [one.shown() for one in found if correlation_id is None or correlation_id in one.correlation_ids]
            for kind, found in entries.items()
        }
        return {"totals": self.totals(), "duplicates": self.duplicates(), **listed}

    def clear(self) -> None:
        with self._lock:
            self._entries = {kind: {} for kind in KINDS}
            self._totals = dict.fromkeys(KINDS, 0)
