"""Where outcome callbacks may go: the rules for a URL, and the allow-list. Source: travel-claims contract 2.2 and 6.

Stricter than a URL has to be: what two parsers could read differently is refused, for one checks and another connects.
"""

import re
from typing import Literal
from urllib.parse import urlsplit

Refusal = Literal["not-https", "callback-url-not-allowed"]
_NAME = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?|\[[0-9a-f:.]+\]"
_PLACE = re.compile(rf"(?P<host>{_NAME})(?::(?P<port>[1-9][0-9]{{0,4}}))?")
_URL = re.compile(rf"(?P<scheme>(?i:https?))://(?P<place>(?i:{_NAME})(?::[0-9]{{1,5}})?)(?:[/?][!-~]*)?")
_NOT_IN_URLS = re.compile(r'[\\"<>^`{|}#]')
_DEFAULT_PORTS = {"https": 443, "http": 80}


def hosts(text: object) -> object:
    """The allow-list from its variable: a comma list of `host` or `host:port`. Raises ValueError."""
    if not isinstance(text, str):
        return text
    given = [part.strip().lower() for part in text.split(",") if part.strip()]
    for one in given:
        parts = _PLACE.fullmatch(one)
        if not parts or int(parts["port"] or 1) > 65_535:
            raise ValueError("must be a comma list of host or host:port")
    return frozenset(one.removesuffix(":443") for one in given)


def refusal(url: str, allowed: frozenset[str], *, insecure: bool) -> Refusal | None:
    """Why this URL may not be called, by the code of the fault; None: it may. `insecure` lets `http` pass (tests)."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme != "https" and not (insecure and scheme == "http"):
        return "not-https"
    return None if place(url) in allowed else "callback-url-not-allowed"


def place(url: str) -> str | None:
    """Host and port as the allow-list names them, without the scheme's own port; None for what is no plain URL."""
    parts = _URL.fullmatch(url)
    if not parts or _NOT_IN_URLS.search(url):
        return None
    return parts["place"].lower().removesuffix(f":{_DEFAULT_PORTS[parts['scheme'].lower()]}")
