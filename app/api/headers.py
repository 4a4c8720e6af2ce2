"""The headers that mean the same on every route: X-Correlation-ID, Idempotency-Key and Prefer."""

import re
from dataclasses import dataclass
from uuid import uuid4

from flask import g, request

from app import errors

CORRELATION = r"[A-Za-z0-9._-]{1,64}"
IDEMPOTENCY = r"[\x21-\x7e]{1,255}"
LONGEST_WAIT = 25
IDEMPOTENCY_METHODS = frozenset({"POST", "PUT", "DELETE"})


def correlate() -> str:
    """Give the request its correlation id: the one sent, or a new one where there is none or it is not usable."""
    sent = request.headers.get("X-Correlation-ID", "")
    g.correlation_id = sent if re.fullmatch(CORRELATION, sent) else str(uuid4())
    return correlation_id()


def correlation_id() -> str:
    """The correlation id of this request."""
    known: str = g.correlation_id
    return known


def check_correlation_id() -> None:
    """400 for one that cannot be used."""
    _check("X-Correlation-ID", CORRELATION, "Must be 1 to 64 letters, digits, dots, underscores or hyphens.")


def check_idempotency_key() -> None:
    """400 for one that cannot be used."""
    if request.method in IDEMPOTENCY_METHODS:
        _check("Idempotency-Key", IDEMPOTENCY, "Must be 1 to 255 visible ASCII characters.")


def _check(name: str, pattern: str, detail: str) -> None:
    sent = request.headers.get(name)
    if sent is not None and not re.fullmatch(pattern, sent):
        fault = {"pointer": f"header:{name}", "code": "pattern", "detail": detail}
        raise errors.Refused(400, "invalid-request", f"The header {name} is not usable.", faults=[fault])


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What a caller prefers (RFC 7240). `wait`: seconds, at most 25; None: it does not say, or not readably."""

    wait: int | None
    respond_async: bool
    strict: bool


def preferences() -> Preferences:
    """Of a preference that is given more than once the first counts; what is malformed or unknown is ignored."""
    given: dict[str, str] = {}
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        given.setdefault(name.strip().lower(), value.strip().strip('"'))
    return Preferences(
        wait=_seconds(given.get("wait", "")),
        respond_async=given.get("respond-async") == "",
        strict=given.get("handling", "").lower() == "strict",
    )


def wait() -> int | None:
    """How many seconds the caller would wait (`Prefer: wait=N`), at most 25. None: it would not, or is unreadable."""
    return preferences().wait


def _seconds(text: str) -> int | None:
    readable = re.fullmatch(r"0*([0-9]+)", text, re.ASCII)
    return min(int(readable[1][:9]), LONGEST_WAIT) if readable else None
