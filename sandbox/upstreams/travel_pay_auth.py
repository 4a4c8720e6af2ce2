"""Travel Pay's authorization host: the VEIS token, by OAuth client credentials."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from sandbox.faults import Kind
from sandbox.messages import Answer, Refusal, Reply, Request, json_answer
from sandbox.tokens import Tokens
from sandbox.turn import Call, Turn
from sandbox.world import World

TOKEN_PATH = re.compile(r"/(?P<tenant>[^/]+)/oauth2/token")
ERRORS = {400: "invalid_request", 401: "invalid_client", 403: "access_denied", 429: "temporarily_unavailable"}


class TravelPayAuth:
    """Speaks `POST /{tenant}/oauth2/token`."""

    name = "travel-pay-auth"
    calls: tuple[str, ...] = ("veis-token",)

    def __init__(self, world: World, tokens: Tokens) -> None:
        self._world = world
        self._tokens = tokens
        self.faults: Mapping[str, Kind] = {
            "expires-in": Kind(self._expires_in, {"seconds": 60, "form": "text"}, calls=("veis-token",)),
        }

    def route(self, request: Request) -> Call | None:
        found = TOKEN_PATH.fullmatch(request.path)
        if request.method != "POST" or found is None:
            return None
        return Call("veis-token", self._token, {"tenant": found["tenant"]})

    def traits(self, _call: Call, _request: Request) -> Mapping[str, Any]:
        return {}

    def error(self, status: int, message: str) -> Answer:
        return json_answer(status, {"error": ERRORS.get(status, "server_error"), "error_description": message})

    def empty(self, _call: str, _request: Request) -> Answer:
        return json_answer(200, {"token_type": "Bearer", "expires_in": "3599"})

    def reset(self) -> None:
        self._tokens.clear()

    def _token(self, request: Request, tenant: str) -> Answer:
        seconds = self._world.settings.veis_lifetime
        return self._mint(request, tenant, seconds=seconds, shown=str(max(0, int(seconds) - 1)))

    def _mint(self, request: Request, tenant: str, *, seconds: float, shown: str | float | None) -> Answer:
        self._check(request, tenant)
        token = self._tokens.mint_veis(seconds)
        key = {"client_id": self._world.credentials.client_id}
        self._world.ledger.record("veis_mints", key, id=token, correlation_id=request.correlation_id)
        expires = {} if shown is None else {"expires_in": shown}
        return json_answer(200, {"token_type": "Bearer", **expires, "access_token": token})

    def _check(self, request: Request, tenant: str) -> None:
        known = self._world.credentials
        if not (request.header("Content-Type") or "").startswith("application/x-www-form-urlencoded"):
            raise Refusal(self.error(400, "The body must be form-encoded."))
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        wanted = {"client_type": "1", "grant_type": "client_credentials", "resource": known.resource}
        for name, value in wanted.items():
            if form.get(name) != value:
                raise Refusal(self.error(400, f"The parameter {name} is missing or wrong."))
        if tenant != known.tenant_id:
            raise Refusal(self.error(400, f"Tenant '{tenant}' not found."))
        if (form.get("client_id"), form.get("client_secret")) != (known.client_id, known.client_secret):
            raise Refusal(self.error(401, "Invalid client secret is provided."))

    def _expires_in(self, turn: Turn, given: Mapping[str, Any]) -> Reply:
        """Mints a token that really lives so long; `form` says whether that is told as text, as a number or not."""
        seconds = given["seconds"]
        shown: Mapping[str, str | float | None] = {"text": str(int(seconds)), "number": seconds, "absent": None}
        mint = partial(self._mint, seconds=seconds, shown=shown[given["form"]])
        return turn.perform(mint)
