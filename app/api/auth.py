"""Who may use a route: the key, the scope, and the switches of a line. A route that declares nothing is not served.

A view declares its access with `needs(...)`, `for_notify` or `open_to_all`; `verify()` refuses to start with a route
that does not.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog
from flask import Flask, Response, g, request

from app import config, db, errors
from app.store import clients
from app.store.clients import Caller

KIB = 1024
MIB = 1024 * KIB
View = TypeVar("View", bound=Callable[..., Any])

Voice = Callable[[errors.Refused], Response]

# The switches of the lines: whether a line is configured at all.
_EXISTS: Mapping[str, Callable[[config.Settings], bool]] = {
    "claims": lambda settings: settings.travel_pay is not None,
    "declarations": lambda settings: settings.mdg is not None,
    "vouchers": lambda settings: settings.imovo is not None,
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a route asks of its caller. `scopes`: any of them will do; none: the route needs no key.

    `line` names the toggle and the line of business, `always` leaves the route open while the client's toggle is off;
    `most_bytes` is the longest body it takes; `body`: an `object`, `bare` (none stands for an empty object), `any`
    JSON value, or `unread`. `voice` puts a refusal into the words of the route's contract, by default a problem; `kept`
    are the refusals that are stored for an Idempotency-Key.
    """

    scopes: frozenset[str] = frozenset()
    line: str = ""
    always: bool = False
    most_bytes: int = 100 * KIB
    body: Literal["object", "bare", "any", "unread"] = "object"
    voice: Voice | None = None
    kept: frozenset[int] = frozenset({409, 422})


OPEN, NOTIFY = Access(), Access(line="claims")


def needs(*scopes: str, **more: Any) -> Callable[[View], View]:
    """Declare that a view needs a key with any of these scopes; `more`: the other fields of `Access`."""
    if not set(scopes) <= set(clients.SCOPES) or not scopes:
        raise ValueError(f"{scopes} are no scopes")
    asked = Access(scopes=frozenset(scopes), **more)
    return lambda view: _declare(view, asked)


def for_notify(view: View) -> View:
    """Declare that a view is for Notify, which shows a token instead of a key."""
    return _declare(view, NOTIFY)


def open_to_all(view: View) -> View:
    """Declare that a view needs no key."""
    return _declare(view, OPEN)


def _declare(view: View, asked: Access) -> View:
    view.__dict__["access"] = asked
    return view


def access_to(app: Flask, endpoint: str | None) -> Access | None:
    """The access that an endpoint's view declares, if it does."""
    asked: Access | None = getattr(app.view_functions.get(endpoint or ""), "access", None)
    return asked


def verify(app: Flask) -> None:
    """Raise LookupError when any route declares no access: what is not allowed to somebody is not served at all."""
    silent = [rule.rule for rule in _rules(app) if access_to(app, rule.endpoint) is None]
    if silent:
        raise LookupError(f"These routes do not say who may use them: {', '.join(silent)}")


def _rules(app: Flask) -> Iterable[Any]:
    return app.url_map.iter_rules()


def access() -> Access:
    """What the route of this request asks of its caller."""
    asked: Access = g.access
    return asked


def caller() -> Caller:
    """Who made this request; only on routes that need a key."""
    found: Caller = g.caller
    return found


def acts_as_operator() -> bool:
    """Whether this route is open to operators and its caller is one."""
    return "operator" in access().scopes & caller().scopes


# The checks, in the order in which a request meets them


def check_key() -> None:
    """401 without a known key."""
    key = request.headers.get("x-api-key", "")
    with db.transaction() as session:
        found = clients.by_key(session, clients.digest(key)) if key else None
    if found is None:
        raise errors.Refused(
            401, "unauthorized", "Send a valid key in x-api-key.", headers={"WWW-Authenticate": "ApiKey"}
        )
    g.caller = found
    structlog.contextvars.bind_contextvars(client=found.name)
    if access().line:
        structlog.contextvars.bind_contextvars(line=access().line)
    if found.product:
        structlog.contextvars.bind_contextvars(product=found.product)


def check_token() -> None:
    """401 without a token of Notify's. Each token is compared to its end, so that time tells nothing about them."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    notify = config.settings().notify
    tokens = notify.callback_token.get_secret_value().split(",") if notify else []
    fits = [hmac.compare_digest(clients.digest(token.strip()), clients.digest(sent.strip())) for token in tokens]
    if scheme.lower() != "bearer" or not any(fits):
        raise errors.Refused(401, "unauthorized", "Send a valid token.", headers={"WWW-Authenticate": "Bearer"})


def check_scope() -> None:
    """403 without the scope, and for a client of travel claims that has no product."""
    scopes = access().scopes
    if not scopes & caller().scopes:
        raise errors.Refused(403, "forbidden", f"This needs scope {' or '.join(sorted(scopes))}.")
    if access().line == "claims" and caller().product is None and not acts_as_operator():
        raise errors.Refused(403, "client-not-set-up", "This client has no product yet.")


def check_toggle() -> None:
    """404 while the line is off, for all or for this client; operators meet the first only."""
    line = access().line
    if not line:
        return
    on = line in caller().toggles or access().always or acts_as_operator()
    if not on or not _EXISTS[line](config.settings()):
        raise errors.Refused(404, "feature-disabled", f"The line {line} is switched off.")
