"""The sandbox itself: the upstreams on their ports, and what a test or a person can ask of them."""

import logging
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from sandbox.control import Control
from sandbox.credentials import Credentials
from sandbox.faults import DELAY, Fault, Faults, Kind
from sandbox.kinds import KINDS
from sandbox.listener import Listener
from sandbox.messages import Drop, Reply, Request
from sandbox.settings import Settings
from sandbox.tokens import Tokens
from sandbox.turn import Turn, Upstream
from sandbox.upstreams.imovo import Imovo
from sandbox.upstreams.mdg import Mdg
from sandbox.upstreams.notify import Notify
from sandbox.upstreams.travel_pay import TravelPay
from sandbox.upstreams.travel_pay_auth import TravelPayAuth
from sandbox.world import Interrupted, World

BASE_PATHS = {"travel-pay": "/eis/api/btsss/travelclaim"}
log = logging.getLogger(__name__)


def upstreams_of(world: World) -> tuple[Upstream, ...]:
    """Every upstream, in the order of the ports. One more upstream is one more line here, and its file."""
    tokens = Tokens()
    return (
        TravelPayAuth(world, tokens),
        TravelPay(world, tokens),
        Notify(world),
        Mdg(world),
        Imovo(world),
    )


class PortTaken(OSError):
    """A port cannot be listened on; the message says which one and why."""


class Sandbox:
    """Upstreams on consecutive ports from `port` on, or on free ones with port 0; control under `/_/` on each of them.

    Safe to use from several threads. As a context manager it is started and stopped.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        credentials: Credentials | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.credentials = credentials or Credentials()
        self.world = World(credentials=self.credentials, settings=settings or Settings())
        self.upstreams = {one.name: one for one in upstreams_of(self.world)}
        kinds = {name: kind for one in self.upstreams.values() for name, kind in one.faults.items()}
        calls = {call: one.name for one in self.upstreams.values() for call in one.calls}
        self._faults = Faults(kinds=KINDS | kinds, calls=calls)
        self._control = Control(self)
        self.listeners = {
            name: Listener(host=host, port=port and port + number, respond=partial(self._respond, upstream))
            for number, (name, upstream) in enumerate(self.upstreams.items())
        }

    def start(self) -> Self:
        """Opens every port. Raises PortTaken, with none open, when one of them cannot be had."""
        for listener in self.listeners.values():
            try:
                listener.open()
            except OSError as error:
                self.stop()
                raise PortTaken(f"cannot listen on port {listener.port}: {error.strerror}") from error
        self.world.scheduler.start()
        return self

    def stop(self) -> None:
        """Closes every port and connection at once; calls under way are dropped."""
        self.world.epoch.end()
        self.world.scheduler.stop()
        for listener in self.listeners.values():
            listener.close(abandon=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def url(self, name: str = "control") -> str:
        """Where an upstream is (by its name, e.g. `travel-pay`), or `control`; no slash at the end."""
        if name == "control":
            return self.url(next(iter(self.listeners))) + "/_"
        listener = self.listeners[name]
        return f"http://{listener.host}:{listener.port}{BASE_PATHS.get(name, '')}"

    def environment(self) -> dict[str, str]:
        """The application's environment that makes it talk to this sandbox: addresses and credentials."""
        return {**self.addresses(), **self.credentials.variables()}

    def addresses(self) -> dict[str, str]:
        """The application's variables that say where each upstream is."""
        return {
            "TRAVEL_PAY_AUTH_URL": self.url("travel-pay-auth"),
            "TRAVEL_PAY_URL": self.url("travel-pay"),
            "NOTIFY_URL": self.url("notify"),
            "MDG_URL": self.url("mdg"),
            "IMOVO_URL": self.url("imovo"),
        }

    def fault(self, call: str, fault: str, **more: Any) -> int:
        """Sets a fault, members as in `POST /_/faults`; gives its id. Raises ValueError saying what is allowed."""
        return self._faults.add({"call": call, "fault": fault, **more}).id

    def faults(self) -> list[dict[str, Any]]:
        return self._faults.shown()

    def clear_faults(self, id: int | None = None) -> int:
        """Takes away all faults, or the one; tells how many there were."""
        return self._faults.clear(id)

    def ledger(self, correlation_id: str | None = None) -> dict[str, Any]:
        """Effects so far, as `GET /_/ledger` shows them."""
        return self.world.ledger.shown(correlation_id)

    def calls(self, *, limit: int | None = None, after: int = 0, **wanted: str) -> list[dict[str, Any]]:
        """Calls so far, as `GET /_/calls` shows them; `wanted`: upstream, call, correlation_id."""
        return self.world.calls.shown(limit=limit, after=after, **wanted)

    def change(self, changes: Mapping[str, Any]) -> Settings:
        """Applies settings as `POST /_/settings` does. Raises ValueError saying what is allowed."""
        return self.world.change(changes)

    def listen(self, name: str, *, open: bool) -> None:
        """Opens or closes an upstream's port: while closed, connecting is refused and idle connections are gone."""
        if open:
            self.listeners[name].open()
        else:
            self.listeners[name].close()

    def reset(self) -> None:
        """Everything back to the start: no effects, calls, faults, tokens; first settings; all ports open."""
        with self.world.lock:
            self.world.reset()
            for upstream in self.upstreams.values():
                upstream.reset()
        self._faults.clear()
        for listener in self.listeners.values():
            listener.open()

    def _respond(self, upstream: Upstream, request: Request) -> Reply:
        if request.path == "/_" or request.path.startswith("/_/"):
            return self._control.answer(request)
        call = upstream.route(request)
        record = self.world.calls.begin(upstream=upstream.name, call=call and call.name, request=request)
        if call is None:
            reply: Reply = upstream.error(404, f"Resource not found: {request.method} {request.path}")
        else:
            turn = Turn(world=self.world, upstream=upstream, call=call, request=request)
            picked = self._faults.pick(turn)
            record.fault = ", ".join(fault.fault for fault, _ in picked) or None
            reply = self._played(turn, picked)
        record.end(reply)
        return reply

    def _played(self, turn: Turn, picked: list[tuple[Fault, Kind]]) -> Reply:
        try:
            for fault, kind in picked:
                if fault.fault == DELAY:
                    turn.rest(fault.seconds)
                else:
                    return kind.play(turn, fault.parameters)
            return turn.perform()
        except Interrupted:
            return Drop()
        except Exception:
            log.exception("sandbox.call-failed")
            return turn.upstream.error(500, "The sandbox itself failed; its log says why.")


def serve(
    port: int = 8900,
    *,
    host: str = "127.0.0.1",
    credentials: Credentials | None = None,
    settings: Settings | None = None,
) -> Sandbox:
    """A started sandbox, to be stopped by `stop` or by leaving a `with`. Raises PortTaken."""
    return Sandbox(port=port, host=host, credentials=credentials, settings=settings).start()
