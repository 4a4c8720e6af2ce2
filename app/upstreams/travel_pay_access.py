"""The two tokens that every Travel Pay call needs: the gateway's, shared by all, and the veteran's (contract 4.2).

This is the replaceable part: another way to authorize is another class that gives `headers()` and forgets what was
refused.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from app import config, logs, metrics, steps
from app.upstreams import http, outcomes, shared, tokens
from app.upstreams import travel_pay_answers as answers
from app.upstreams.answers import Answer

log = logs.get(__name__)
_KEY_HEADER = "Ocp-Apim-Subscription-Key"


class Gateway:
    """What all claims share: connections, limits, breakers and the VEIS token. Safe to use from many threads.

    Without `common` nothing is shared with other processes.
    """

    def __init__(self, settings: config.TravelPay, *, common: shared.Shared | None = None, pool: int = 32) -> None:
        common = common or shared.Shared(None)
        limit = settings.rate_per_minute
        logged = settings.log_upstream_text
        reading = outcomes.Reading(status=answers.status_of, logged=logged)
        self.settings = settings
        self.auth = http.Upstream(
            "travel-pay-auth", settings.auth_url, per_minute=limit, pool=pool, shared=common, reading=reading
        )
        self.api = http.Upstream(
            "travel-pay", settings.url, per_minute=limit, pool=pool, shared=common, reading=reading
        )
        self.veis = tokens.Cache(_identity(settings), settings.client_secret.get_secret_value(), common)


_gateways: dict[int, Gateway] = {}
_making = threading.Lock()


def gateway(settings: config.TravelPay) -> Gateway:
    """The gateway of this process for these settings, in step with the other processes through Redis."""
    with _making:
        if id(settings) not in _gateways:  # the gateway holds on to its settings, so the id stays theirs
            pool = config.settings().worker_concurrency
            _gateways[id(settings)] = Gateway(settings, common=shared.of_process(), pool=pool)
        return _gateways[id(settings)]


def _identity(settings: config.TravelPay) -> str:
    return f"{settings.auth_url}\n{settings.tenant_id}\n{settings.client_id}\n{settings.resource}"


class Veteran(Protocol):
    """On whose behalf, and who asks."""

    product: str
    icn: str
    work: steps.Work


class Access:
    """The two tokens for one veteran. The veteran's is good only together with the VEIS token it came under."""

    def __init__(
        self, through: Gateway, veteran: Veteran, *, btsss_token: str | None = None, veis_fingerprint: str | None = None
    ) -> None:
        self._gateway = through
        self._settings = through.settings
        self._veteran = veteran
        self._veis: tokens.Token | None = None
        self.btsss_token = btsss_token
        self.veis_fingerprint = veis_fingerprint

    def headers(self) -> dict[str, str]:
        """What a resource call carries. Fetches what is missing or no longer fits; raises Failed."""
        veis = self._current_veis()
        if self.btsss_token and self.veis_fingerprint != veis.fingerprint:
            self._renewal("btsss", "veis-changed")
            self.btsss_token = None
        if not self.btsss_token:
            token, veis = self._system_token(veis)
            self.btsss_token, self.veis_fingerprint = token, veis.fingerprint
        return {**self._gateway_headers(veis), "BTSSS-Access-Token": self.btsss_token}

    def renew_all(self, reason: str) -> None:
        """Forget both tokens, the VEIS token everywhere if it is still the one that was refused."""
        self._drop_veis(reason)
        self.renew_own(reason)

    def renew_own(self, reason: str) -> None:
        """Forget the veteran's token."""
        self._renewal("btsss", reason)
        self.btsss_token = None

    def _drop_veis(self, reason: str) -> None:
        self._renewal("veis", reason)
        if self._veis is not None:
            self._gateway.veis.evict(self._veis)
        self._veis = None

    def _renewal(self, kind: str, reason: str) -> None:
        metrics.claims_token_renewals.labels(self._veteran.product, kind, reason).inc()
        log.info(
            "claims.token-renewed",
            line="claims",
            product=self._veteran.product,
            correlation_id=self._veteran.work.correlation_id,
            kind=kind,
            reason=reason,
        )

    def _current_veis(self) -> tokens.Token:
        if self._veis is None or not self._veis.usable:
            waiting = self._veteran.work.renew
            with _authorizing():
                self._veis = self._gateway.veis.get(self._mint, seen=self.veis_fingerprint, waiting=waiting)
        return self._veis

    def _mint(self) -> tuple[str, float]:
        settings = self._settings
        request = http.Request(
            call="veis-token",
            method="POST",
            template="{tenant}/oauth2/token",
            ids={"tenant": settings.tenant_id},
            form={
                "client_id": settings.client_id,
                "client_secret": settings.client_secret.get_secret_value(),
                "client_type": "1",
                "grant_type": "client_credentials",
                "resource": settings.resource,
            },
            connect=settings.connect_timeout,
            read=settings.auth_read_timeout,
        )
        minted = self._gateway.auth.send(self._veteran.work, request, _veis_token)
        metrics.claims_veis_mints.labels(self._veteran.product).inc()
        return minted

    def _system_token(self, veis: tokens.Token) -> tuple[str, tokens.Token]:
        """The veteran's token and the VEIS token it was made under, which may be a new one: a 401 renews it once."""
        with _authorizing():
            try:
                return self._ask_system_token(veis), veis
            except outcomes.Failed as failed:
                if failed.status != 401:
                    raise
            self._drop_veis("401")
            veis = self._current_veis()
            return self._ask_system_token(veis), veis

    def _ask_system_token(self, veis: tokens.Token) -> str:
        settings = self._settings
        secret, number = settings.credentials(self._veteran.product)
        request = http.Request(
            call="system-token",
            method="POST",
            template=f"api/{settings.versions['system-access-token']}/auth/system-access-token",
            headers={**self._gateway_headers(veis), "BTSSS-API-Client-Number": number},
            json={"secret": secret, "icn": self._veteran.icn},
            connect=settings.connect_timeout,
            read=settings.read_timeout,  # Travel Pay itself answers, as slowly as on its other calls
        )
        return self._gateway.api.send(self._veteran.work, request, answers.identified("accessToken"))

    def _gateway_headers(self, veis: tokens.Token) -> dict[str, str]:
        return {"Authorization": f"Bearer {veis.value}", **_subscription(self._settings)}


def _subscription(settings: config.TravelPay) -> dict[str, str]:
    one, east, south = settings.subscription_key, settings.subscription_key_e, settings.subscription_key_s
    if east and south:
        return {f"{_KEY_HEADER}-E": east.get_secret_value(), f"{_KEY_HEADER}-S": south.get_secret_value()}
    return {_KEY_HEADER: one.get_secret_value()} if one else {}


@contextmanager
def _authorizing() -> Iterator[None]:
    """A token endpoint that refuses is one kind of failure; its status is not one of the call the tokens are for."""
    try:
        yield
    except outcomes.Failed as failed:
        if not isinstance(failed.outcome, steps.Rejected):
            raise
        what = outcomes.failure("authorization-failed", 502, failed.message)
        raise failed.instead(steps.Rejected(failure=what), status=None) from failed


def _veis_token(answer: Answer) -> tuple[str, float]:
    document = answer.json
    token = answers.word(document, "access_token") if isinstance(document, dict) else None
    if token is None:
        raise outcomes.NotUnderstood
    try:
        return token, float(document.get("expires_in", 3600))
    except (TypeError, ValueError) as error:
        raise outcomes.NotUnderstood from error
