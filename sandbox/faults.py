"""Faults as asked for: what one may say, which calls it meets, and which of several wins.

Of the faults that meet a call, every `delay` is slept through, then at most one other is played: first those for a
number of calls, then those by probability, then those for always; within these in the order they were set.
"""

import itertools
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sandbox.messages import Reply
from sandbox.turn import Turn

DELAY = "delay"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how it is played, its parameters with their defaults, the calls it can meet (none = all).

    Every parameter's name stands in PARAMETERS with its check.
    """

    play: Callable[[Turn, Mapping[str, Any]], Reply]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[str, ...] = ()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _headers(value: Any) -> bool:
    return isinstance(value, dict) and _strings(list(value.values()))


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _holidays(value: Any) -> bool:
    return isinstance(value, list) and all(_days(one) for one in value)


def _days(value: Any) -> bool:
    if not (_strings(value) and len(value) == 2):
        return False
    try:
        return date.fromisoformat(value[0]) < date.fromisoformat(value[1])
    except ValueError:
        return False


PARAMETERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seconds": (_number, "a number of seconds"),
    "max_seconds": (lambda value: value is None or _number(value), "a number of seconds or null"),
    "status": (lambda value: value is None or (_whole(value) and 200 <= value <= 599), "200 to 599, or null"),
    "body": (lambda _: True, "text or JSON"),
    "headers": (_headers, "an object of strings"),
    "message": (_text, "a string or null"),
    "effect": (lambda value: isinstance(value, bool), "true or false"),
    "limit": (_whole, "a whole number"),
    "retry_after": (lambda value: value is None or isinstance(value, str | int), "seconds, an HTTP date or null"),
    "form": (lambda value: value in ("text", "number", "absent"), "text, number or absent"),
    "claim_status": (lambda value: isinstance(value, str), "a string"),
    "claim_number": (lambda value: isinstance(value, str), "a string"),
    "location": (_text, "a URL or null"),
    "members": (lambda value: isinstance(value, dict), "an object"),
    "without": (_strings, "a list of strings"),
    "texts": (lambda value: value is None or _strings(value), "a list of strings, or null"),
    "kind": (lambda value: value in ("card", "letter"), "card or letter"),
    "lost": (lambda value: isinstance(value, bool), "true or false"),
    "scheme": (lambda value: isinstance(value, str), "a string"),
    "card_code": (_text, "a string or null"),
    "letter_code": (_text, "a string or null"),
    "holidays": (_holidays, 'a list of ["first day", "day of return"]'),
}
COMMON = ("call", "upstream", "fault", "times", "probability", "seed", "match")


@dataclass(slots=True)
class Fault:
    """One fault as set. `left` None means without end; `used` counts the calls it was played on."""

    id: int
    fault: str
    call: str
    upstream: str | None
    parameters: dict[str, Any]
    match: dict[str, Any]
    left: int | None
    probability: float | None
    dice: random.Random
    used: int = 0

    @property
    def seconds(self) -> float:
        """How long a delay lasts this time."""
        given = self.parameters
        return self.dice.uniform(given["seconds"], given["max_seconds"] or given["seconds"])

    @property
    def rank(self) -> int:
        return 0 if self.left is not None else 1 if self.probability is not None else 2

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "fault": self.fault,
            "call": self.call,
            "upstream": self.upstream,
            "match": self.match,
            "left": self.left,
            "probability": self.probability,
            "used": self.used,
            **self.parameters,
        }


class Faults:
    """The faults that are set. Safe to use from several threads; a fault for n calls meets exactly n."""

    def __init__(self, *, kinds: Mapping[str, Kind], calls: Mapping[str, str]) -> None:
        """`calls` tells the upstream of every call."""
        self._kinds = kinds
        self._calls = calls
        self._lock = threading.Lock()
        self._set: list[Fault] = []
        self._numbers = itertools.count(1)

    def add(self, asked: Mapping[str, Any]) -> Fault:
        """Sets one fault. Raises ValueError saying what is allowed."""
        kind = self._kind(asked)
        call, upstream = self._target(asked, kind)
        times, probability, match = asked.get("times"), asked.get("probability"), asked.get("match", {})
        if times is not None and (not _whole(times) or times == 0):
            raise ValueError("times must be a whole number from 1")
        if probability is not None and not (_number(probability) and probability <= 1):
            raise ValueError("probability must be a number from 0 to 1")
        if not isinstance(asked.get("seed"), int | float | str | None):
            raise ValueError("seed must be a number or a string")
        if not isinstance(match, dict):
            raise ValueError('match must be an object, e.g. {"icn": "1012667122V019349"}')
        fault = Fault(
            id=next(self._numbers),
            fault=asked["fault"],
            call=call,
            upstream=upstream,
            parameters=self._parameters(asked, kind),
            match=match,
            left=times,
            probability=probability,
            dice=random.Random(asked.get("seed")),
        )
        with self._lock:
            self._set = sorted([*self._set, fault], key=lambda one: one.rank)
        return fault

    def _kind(self, asked: Mapping[str, Any]) -> Kind:
        kind = self._kinds.get(asked["fault"]) if isinstance(asked.get("fault"), str) else None
        if kind is None:
            raise ValueError(f"fault must be one of: {', '.join(sorted(self._kinds))}")
        return kind

    def _target(self, asked: Mapping[str, Any], kind: Kind) -> tuple[str, str | None]:
        call, upstream = str(asked.get("call")), asked.get("upstream")
        if call != "*" and call not in self._calls:
            raise ValueError(f"call must be * or one of: {', '.join(self._calls)}")
        if upstream is not None and upstream not in self._calls.values():
            raise ValueError(f"upstream must be one of: {', '.join(dict.fromkeys(self._calls.values()))}")
        if call != "*" and upstream not in (None, self._calls[call]):
            raise ValueError(f"call {call} belongs to upstream {self._calls[call]}")
        if kind.calls and call != "*" and call not in kind.calls:
            raise ValueError(f"fault {asked['fault']} can be set on: *, {', '.join(kind.calls)}")
        return call, upstream

    def _parameters(self, asked: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
        found = dict(kind.parameters)
        for name, value in asked.items():
            if name in COMMON:
                continue
            if name not in kind.parameters:
                allowed = ", ".join([*COMMON, *kind.parameters])
                raise ValueError(f"unknown member {name!r} for {asked['fault']}; allowed: {allowed}")
            check, words = PARAMETERS[name]
            if not check(value):
                raise ValueError(f"{name} must be {words}")
            found[name] = value
        return found

    def pick(self, turn: Turn) -> list[tuple[Fault, Kind]]:
        """The faults to play on this call, delays first; they count as used."""
        if not self._set:
            return []
        aimed = [one for one in self._set if self._aims(one, turn)]
        traits = turn.traits() if any(one.match for one in aimed) else {}
        picked: list[Fault] = []
        with self._lock:
            for fault in aimed:
                taken = fault.fault != DELAY and any(one.fault != DELAY for one in picked)
                if not taken and fault.left != 0 and _matches(fault, traits) and _rolled(fault):
                    fault.used += 1
                    fault.left = None if fault.left is None else fault.left - 1
                    picked.append(fault)
        picked.sort(key=lambda one: one.fault != DELAY)
        return [(one, self._kinds[one.fault]) for one in picked]

    def _aims(self, fault: Fault, turn: Turn) -> bool:
        calls = self._kinds[fault.fault].calls
        return (
            fault.call in ("*", turn.call.name)
            and fault.upstream in (None, turn.upstream.name)
            and (not calls or turn.call.name in calls)
        )

    def shown(self) -> list[dict[str, Any]]:
        """Every fault set, used up or not."""
        with self._lock:
            return [one.shown() for one in sorted(self._set, key=lambda one: one.id)]

    def clear(self, id: int | None = None) -> int:
        """Takes away all faults, or one; tells how many."""
        with self._lock:
            kept = [] if id is None else [one for one in self._set if one.id != id]
            gone, self._set = len(self._set) - len(kept), kept
            return gone


def _matches(fault: Fault, traits: Mapping[str, Any]) -> bool:
    return all(_equal(name, traits.get(name), wanted) for name, wanted in fault.match.items())


def _equal(name: str, seen: Any, wanted: Any) -> bool:
    """Compared as text; a time of an appointment to the minute."""
    length = 16 if name == "appointmentDateTime" else None
    return seen is not None and str(seen)[:length] == str(wanted)[:length]


def _rolled(fault: Fault) -> bool:
    return fault.probability is None or fault.dice.random() < fault.probability
