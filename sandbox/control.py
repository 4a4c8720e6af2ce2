"""The control API under `/_/`: read the ledger and the calls, set faults and settings, open and close ports, reset."""

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sandbox import page
from sandbox.messages import HTML_TYPE, Answer, Request, json_answer, text_answer

if TYPE_CHECKING:
    from sandbox.sandbox import Sandbox

FAULT_PATH = re.compile(r"/_/faults/(?P<id>[0-9]+)")
CALL_FILTERS = ("upstream", "call", "correlation_id")


class Control:
    """Answers every control request; a malformed one is 400 and says what is allowed."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._routes: dict[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "/_/"): self._page,
            ("GET", "/_/ledger"): self._ledger,
            ("GET", "/_/calls"): self._calls,
            ("GET", "/_/faults"): lambda _: json_answer(200, {"faults": sandbox.faults()}),
            ("POST", "/_/faults"): self._add_fault,
            ("DELETE", "/_/faults"): lambda _: json_answer(200, {"removed": sandbox.clear_faults()}),
            ("GET", "/_/listeners"): lambda _: json_answer(200, self._listeners()),
            ("POST", "/_/listeners"): self._listen,
            ("GET", "/_/settings"): lambda _: json_answer(200, sandbox.world.settings.shown()),
            ("POST", "/_/settings"): self._change,
            ("POST", "/_/reset"): self._reset,
        }

    def answer(self, request: Request) -> Answer:
        """Never raises; what cannot be done is told."""
        method = "GET" if request.method == "HEAD" else request.method
        path = request.path.rstrip("/") if request.path not in ("/_", "/_/") else "/_/"
        try:
            if (perform := self._routes.get((method, path))) is not None:
                return perform(request)
            if method == "DELETE" and (found := FAULT_PATH.fullmatch(path)):
                return json_answer(200, {"removed": self._sandbox.clear_faults(int(found["id"]))})
        except ValueError as error:
            return json_answer(400, {"error": str(error)})
        allowed = [f"{known} {at}" for known, at in self._routes]
        return json_answer(404, {"error": f"no such control route; there are: {', '.join(allowed)}"})

    def _page(self, _: Request) -> Answer:
        return text_answer(200, page.rendered(self._sandbox), HTML_TYPE)

    def _ledger(self, request: Request) -> Answer:
        return json_answer(200, self._sandbox.ledger(_asked(request, ("correlation_id",)).get("correlation_id")))

    def _calls(self, request: Request) -> Answer:
        asked = _asked(request, (*CALL_FILTERS, "limit", "after"))
        wanted = {name: asked[name] for name in CALL_FILTERS if name in asked}
        limit, after = _whole(asked, "limit"), _whole(asked, "after") or 0
        return json_answer(200, {"calls": self._sandbox.calls(limit=limit, after=after, **wanted)})

    def _add_fault(self, request: Request) -> Answer:
        asked = _object(request)
        if asked.keys() & {"call", "fault"} != {"call", "fault"}:
            raise ValueError('a fault needs call and fault, e.g. {"call": "create-claim", "fault": "drop-after"}')
        number = self._sandbox.fault(**asked)
        return json_answer(201, next(one for one in self._sandbox.faults() if one["id"] == number))

    def _listeners(self) -> dict[str, Any]:
        listeners = self._sandbox.listeners.items()
        shown = {name: {"url": self._sandbox.url(name), "open": one.is_open} for name, one in listeners}
        return {"listeners": shown}

    def _listen(self, request: Request) -> Answer:
        asked, listeners = _object(request), self._sandbox.listeners
        name, wanted = asked.get("upstream"), asked.get("open")
        if (
            not isinstance(name, str)
            or name not in listeners
            or not isinstance(wanted, bool)
            or asked.keys() - {"upstream", "open"}
        ):
            raise ValueError(f'give {{"upstream": one of {", ".join(listeners)}, "open": true or false}}')
        if not wanted and not any(one.is_open for other, one in listeners.items() if other != name):
            raise ValueError("the last open port stays open, or nobody could open the others again")
        self._sandbox.listen(name, open=wanted)
        return json_answer(200, self._listeners())

    def _change(self, request: Request) -> Answer:
        return json_answer(200, self._sandbox.change(_object(request)).shown())

    def _reset(self, _: Request) -> Answer:
        self._sandbox.reset()
        return json_answer(200, {"reset": True})


def _object(request: Request) -> Mapping[str, Any]:
    try:
        found = request.json()
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("the body must be a JSON object")
    return found


def _asked(request: Request, allowed: tuple[str, ...]) -> dict[str, str]:
    found = request.arguments
    if unknown := found.keys() - set(allowed):
        raise ValueError(f"unknown parameters {', '.join(sorted(unknown))}; allowed: {', '.join(allowed)}")
    return found


def _whole(asked: Mapping[str, str], name: str) -> int | None:
    value = asked.get(name)
    if value is not None and not value.isdigit():
        raise ValueError(f"{name} must be a whole number")
    return None if value is None else int(value)
