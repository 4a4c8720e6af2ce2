"""The clients' receivers of outcome callbacks (contract 2.9): a signed post to a host of the allow-list.

Nothing that a receiver says is kept but its status: it may well say back what it was sent.
"""

import hashlib
import hmac
import threading
from dataclasses import dataclass, field
from functools import partial

import requests

from app import callback_urls, clock, config, steps
from app.upstreams import addresses, answers, http, outcomes, shared
from app.upstreams.answers import Answer

CONNECT_SECONDS, WHOLE_SECONDS = 5.0, 10.0
_NOT_ALLOWED = outcomes.failure("callback-url-not-allowed", 422, "The host may receive no callbacks any more.")
_upstreams: dict[tuple[str, bool], http.Upstream] = {}
_making = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What is posted: the same id and body on every try."""

    id: str
    body: bytes = field(repr=False)
    secret: str = field(repr=False)


class Receiver:
    """One client's receiver. Cheap to make, for one step; not for several threads."""

    def __init__(self, settings: config.TravelClaims, *, url: str, work: steps.Work) -> None:
        self._settings = settings
        self._url = url
        self._work = work

    def post(self, delivery: Delivery) -> int:
        """Post it, signed as of now; the status of its 2xx answer. Raises Failed: Rejected where it is of no use to
        go on (410, or a host that is not allowed any more), Retry for all else.
        """
        insecure = self._settings.callback_insecure
        place = callback_urls.place(self._url)
        if place is None or callback_urls.refusal(self._url, self._settings.callback_hosts, insecure=insecure):
            raise outcomes.Failed(steps.Rejected(failure=_NOT_ALLOWED), message=_NOT_ALLOWED.message)
        request = http.Request(
            call="deliver", method="POST", template="(callback URL)", connect=CONNECT_SECONDS, whole=WHOLE_SECONDS
        )

        def perform(session: requests.Session) -> None:
            plain = requests.Request("POST", self._url, headers=self._headers(delivery), data=delivery.body)
            prepared = session.prepare_request(plain)
            session.send(prepared, timeout=(request.connect, request.read), allow_redirects=False)

        return upstream(place, insecure=insecure).carry(self._work, request, perform, lambda answer: answer.status)

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        moment = int(clock.now().timestamp())
        return {
            "Content-Type": "application/json",
            "X-Correlation-ID": self._work.correlation_id,
            "X-Throughline-Delivery": delivery.id,
            "X-Throughline-Signature": signature(delivery.secret, moment, delivery.body),
        }


def signature(secret: str, moment: int, body: bytes) -> str:
    """`t=<unix seconds>,v1=<hex>`: HMAC-SHA256 with the client's webhook secret over `<t>.<raw body>`."""
    signed = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256)
    return f"t={moment},v1={signed.hexdigest()}"


def upstream(place: str, *, insecure: bool) -> http.Upstream:
    """A receiver's host as this process sees it: its own connections, breaker and limiter, in step with the others."""
    with _making:
        if (place, insecure) not in _upstreams:
            _upstreams[place, insecure] = http.Upstream(
                f"callback:{place}",
                "",
                pool=config.settings().worker_concurrency,
                shared=shared.of_process(),
                reading=outcomes.Reading(of_status=_of_status, said=_unheard),
                options=http.Options(dial=partial(addresses.connect, private=insecure)),
            )
        return _upstreams[place, insecure]


def _of_status(answer: Answer, message: str, safe: bool) -> steps.Outcome:  # noqa: ARG001 - a reading's signature
    """410 says that nobody is there any more; anything else but 2xx may pass."""
    if answer.status == 410:
        return steps.Rejected(failure=outcomes.failure("rejected", 410, message, retryable=False))
    return steps.Retry(failure=outcomes.failure("refused", 502, message))


def _unheard(answer: Answer) -> tuple[str, str]:
    return answers.phrase(answer.status), ""
