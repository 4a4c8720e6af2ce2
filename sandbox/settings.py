"""Behaviour that is not a fault: whether claims can be deleted, how long tokens live, which receipts Notify posts."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

RECEIPT_STATUSES = ("delivered", "permanent-failure", "temporary-failure", "technical-failure", "sent", "pending")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _statuses(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str) for one in value)


def _url(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.startswith(("http://", "https://")))


@dataclass(frozen=True, slots=True)
class Receipts:
    """Delivery receipts that Notify posts. Off while `callback_url` is None.

    Each of `statuses` is posted in turn, `repeat` times each, `delay` seconds apart; with `early` the first one is
    posted and answered before the send itself is answered.
    """

    callback_url: str | None = None
    token: str | None = None
    statuses: tuple[str, ...] = ("delivered",)
    delay: float = 0.5
    repeat: int = 1
    early: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """`receipts.token` None means the callback token of the credentials."""

    claim_delete: bool = False
    veis_lifetime: float = 3600
    receipts: Receipts = field(default_factory=Receipts)

    def shown(self) -> dict[str, Any]:
        return asdict(self)


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "claim_delete": (lambda value: isinstance(value, bool), "true or false"),
    "veis_lifetime": (_number, "a number of seconds"),
    "receipts": (lambda value: isinstance(value, Mapping), "an object"),
    "callback_url": (_url, "an http or https URL, or null"),
    "token": (lambda value: value is None or isinstance(value, str), "a string or null"),
    "statuses": (_statuses, f"a list of statuses, e.g. {', '.join(RECEIPT_STATUSES)}"),
    "delay": (_number, "a number of seconds"),
    "repeat": (lambda value: _number(value) and isinstance(value, int) and value > 0, "a whole number from 1"),
    "early": (lambda value: isinstance(value, bool), "true or false"),
}


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with `changes` applied, `receipts` member by member. Raises ValueError saying what is allowed."""
    _check(changes, Settings)
    rest = {name: value for name, value in changes.items() if name != "receipts"}
    receipts: Mapping[str, Any] = changes.get("receipts") or {}
    _check(receipts, Receipts)
    typed: dict[str, Any] = {name: tuple(value) if name == "statuses" else value for name, value in receipts.items()}
    return replace(settings, receipts=replace(settings.receipts, **typed), **rest)


def _check(changes: Mapping[str, Any], shape: type[Settings] | type[Receipts]) -> None:
    allowed = [one.name for one in fields(shape)]
    for name, value in changes.items():
        if name not in allowed:
            raise ValueError(f"unknown setting {name!r}; allowed: {', '.join(allowed)}")
        check, words = CHECKS[name]
        if not check(value):
            raise ValueError(f"{name} must be {words}")
