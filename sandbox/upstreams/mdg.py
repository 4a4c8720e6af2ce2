"""MDG: passenger declarations on the paths of both variants. It knows a repeat by its acknowledgement reference."""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from sandbox.faults import Kind
from sandbox.messages import Answer, Refusal, Request, json_answer
from sandbox.turn import Call
from sandbox.world import World

CHARGE_REFERENCE = re.compile(r"X[A-Z]PR[0-9]{10}")
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "X-Forwarded-Host": "MDTP",
    "User-Agent": "bc-passengers-declarations",
}


def _is_des_date(text: str) -> bool:
    return _is_rendered(text, "%Y-%m-%dT%H:%M:%SZ", lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _is_cma_date(text: str) -> bool:
    return _is_rendered(text, "%a, %d %b %Y %H:%M:%S GMT", lambda at: format_datetime(at, usegmt=True))


def _is_rendered(text: str, form: str, render: Callable[[datetime], str]) -> bool:
    """Whether the text is what `render` makes of the moment it names: no missing zero, no wrong weekday."""
    try:
        return render(datetime.strptime(f"{text}+0000", f"{form}%z")) == text
    except ValueError:
        return False


PATHS: Mapping[str, Callable[[str], bool]] = {
    "/declarations/passengerdeclaration/v1": _is_des_date,
    "/passengers/declarations/simpledeclaration/v1": _is_cma_date,
}


class Mdg:
    """Speaks the one operation there is; nothing can be read back."""

    name = "mdg"
    calls: tuple[str, ...] = ("submit-declaration",)
    faults: Mapping[str, Kind] = {}

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken: dict[str, bytes] = {}

    def route(self, request: Request) -> Call | None:
        known = request.method == "POST" and request.path in PATHS
        return Call("submit-declaration", self._submit) if known else None

    def traits(self, _call: Call, request: Request) -> Mapping[str, Any]:
        acknowledgement, charge = references(request)
        return {"acknowledgementReference": acknowledgement, "chargeReference": charge}

    def error(self, status: int, message: str) -> Answer:
        return _fault(status, [message])

    def empty(self, _call: str, _request: Request) -> Answer:
        return Answer(204, b"")

    def reset(self) -> None:
        self._taken = {}

    def _submit(self, request: Request) -> Answer:
        self._authorize(request)
        if problems := [*_wrong_headers(request), *_wrong_references(request)]:
            raise Refusal(_fault(400, problems))
        acknowledgement, charge = references(request)
        earlier = self._taken.get(acknowledgement)
        if earlier is None:
            self._take(request, acknowledgement, charge)
        elif earlier != request.body:
            raise Refusal(_fault(409, ["Another declaration has this acknowledgementReference"]))
        return Answer(204, b"")

    def _take(self, request: Request, acknowledgement: str, charge: str) -> None:
        self._taken[acknowledgement] = request.body
        self._world.ledger.record(
            "declarations",
            {"acknowledgementReference": acknowledgement},
            id=acknowledgement,
            correlation_id=request.correlation_id,
            chargeReference=charge,
            body_sha256=hashlib.sha256(request.body).hexdigest(),
        )

    def _authorize(self, request: Request) -> None:
        wanted = f"Bearer {self._world.credentials.mdg_bearer_token}"
        if not hmac.compare_digest((request.header("Authorization") or "").encode(), wanted.encode()):
            raise Refusal(_fault(401, ["Invalid bearer token"]))


def references(request: Request) -> tuple[Any, Any]:
    """The acknowledgement reference and the charge reference, whatever they are; None where the body has none."""
    declaration = request.members().get("simpleDeclarationRequest")
    common = _member(declaration, "requestCommon")
    header = _member(_member(declaration, "requestDetail"), "declarationHeader")
    return _member(common, "acknowledgementReference"), _member(header, "chargeReference")


def _member(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _wrong_headers(request: Request) -> list[str]:
    wrong = [name for name, value in HEADERS.items() if request.header(name) != value]
    if not request.correlation_id:
        wrong.append("X-Correlation-ID")
    if not PATHS[request.path](request.header("Date") or ""):
        wrong.append("Date")
    return [f"Invalid header {name}" for name in wrong]


def _wrong_references(request: Request) -> list[str]:
    if request.members().keys() != {"simpleDeclarationRequest"}:
        return ["The body must be an object with simpleDeclarationRequest alone"]
    acknowledgement, charge = references(request)
    if not (isinstance(charge, str) and CHARGE_REFERENCE.fullmatch(charge)):
        return ["Invalid chargeReference"]
    if not (isinstance(acknowledgement, str) and acknowledgement.startswith(charge) and len(acknowledgement) <= 32):
        return ["Invalid acknowledgementReference"]
    return []


def _fault(status: int, details: list[str]) -> Answer:
    return json_answer(status, {"errorDetail": {"sourceFaultDetail": {"detail": details}}})
