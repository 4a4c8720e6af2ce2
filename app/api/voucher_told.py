"""The documented answers of the voucher routes: what is given, and a message for each kind of refusal."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from app.api import openapi, voucher_examples
from app.api.openapi import Good
from app.api.voucher_schema import Accepted, Message

_Messages = Mapping[int, Mapping[str, str]]
_HEADERS = {401: ("WWW-Authenticate",), 503: ("Retry-After",)}
_OF_OPERATION = ("Link", "Preference-Applied")
_PROBLEMS = (
    "invalid-request",
    "unauthorized",
    "forbidden",
    "not-found",
    "feature-disabled",
    "internal-error",
    "unavailable",
)


def change(status: int, model: type[Any], examples: Mapping[str, Any], *, says: str, refused: _Messages) -> Any:
    """Of a route with a body that changes something."""
    refusals = _merged(voucher_examples.OF_ALL, voucher_examples.OF_BODIES, voucher_examples.OF_CHANGES, refused)
    return _change(status, model, examples, says, refusals)


def bare_change(status: int, model: type[Any], examples: Mapping[str, Any], *, says: str) -> Any:
    """Of a route without body that changes something."""
    return _change(status, model, examples, says, _merged(voucher_examples.OF_ALL, voucher_examples.OF_CHANGES))


def _change(status: int, model: type[Any], examples: Mapping[str, Any], says: str, refusals: _Messages) -> Any:
    done = Good(status=status, says=says, model=model, examples=examples, headers=_OF_OPERATION)
    accepted = Good(
        status=202,
        says="Accepted, not finished yet.",
        model=Accepted,
        examples={"calling": voucher_examples.ACCEPTED},
        headers=("Location", "Retry-After", *_OF_OPERATION),
    )
    return openapi.answers(done, accepted, *_messages(refusals), refused=(), instance="")


def read(model: type[Any], example: Any, *, says: str, refused: _Messages, headers: tuple[str, ...] = ()) -> Any:
    """Of a route that is answered by our record or by i-Movo."""
    good = Good(status=200, says=says, model=model, examples={"shown": example}, headers=headers)
    refusals = _messages(_merged(voucher_examples.OF_ALL, refused))
    return openapi.answers(good, *refusals, refused=(), instance="")


def record(model: type[Any], examples: Mapping[str, Any], *, says: str, query: bool, instance: str) -> Any:
    """Of a route that shows what is recorded; it refuses by problems."""
    good = Good(status=200, says=says, model=model, examples=examples, headers=() if query else ("Retry-After",))
    refused = (*_PROBLEMS, "validation-failed") if query else _PROBLEMS
    return openapi.answers(good, refused=refused, instance=instance, line="vouchers")


def _merged(*several: _Messages) -> dict[int, dict[str, str]]:
    merged: dict[int, dict[str, str]] = {}
    for messages in several:
        for status, told in messages.items():
            merged.setdefault(status, {}).update(told)
    return dict(sorted(merged.items()))


def _messages(refusals: _Messages) -> list[Good]:
    return [
        Good(
            status=status,
            says=HTTPStatus(status).phrase + ".",
            model=Message,
            examples={name: {"message": text} for name, text in told.items()},
            headers=_HEADERS.get(status, ()),
        )
        for status, told in refusals.items()
    ]
