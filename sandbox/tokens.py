"""The tokens Travel Pay has handed out: VEIS tokens that expire, BTSSS tokens bound to the VEIS token of the time."""

import secrets
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BtsssToken:
    veis: str
    icn: str
    product: str


class Tokens:
    """Changed only under the world's lock."""

    def __init__(self) -> None:
        self._veis: dict[str, float] = {}
        self._btsss: dict[str, BtsssToken] = {}

    def mint_veis(self, seconds: float) -> str:
        token = f"veis-{len(self._veis) + 1}-{secrets.token_urlsafe(24)}"
        self._veis[token] = time.monotonic() + seconds
        return token

    def veis_lives(self, token: str) -> bool:
        return time.monotonic() < self._veis.get(token, 0.0)

    def mint_btsss(self, *, veis: str, icn: str, product: str) -> str:
        token = f"btsss-{len(self._btsss) + 1}-{secrets.token_urlsafe(24)}"
        self._btsss[token] = BtsssToken(veis, icn, product)
        return token

    def btsss(self, token: str) -> BtsssToken | None:
        return self._btsss.get(token)

    def clear(self) -> None:
        self._veis.clear()
        self._btsss.clear()
