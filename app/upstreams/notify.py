"""Notify: sends one text and finds it again, over the public client library (contract 4.7, outcomes of 5.6).

The library's request goes through our session, so what is known about it is what our connection saw: the library
itself shows every network fault as a status 503. A client object of it is not thread-safe and is made for each use.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests
from notifications_python_client.errors import APIError
from notifications_python_client.notifications import NotificationsAPIClient

from app import config, steps
from app.upstreams import http, outcomes, shared
from app.upstreams.answers import Answer

T = TypeVar("T")
Personalisation = Mapping[str, str]
_REFUSED_AFTER, _REFUSED_TRIES = 600.0, 3
# The library warns with the upstream's own text, which may hold a phone number; the timeline has it scrubbed.
logging.getLogger("notifications_python_client").setLevel(logging.ERROR)


def _of_status(answer: Answer, message: str, safe: bool) -> steps.Outcome:
    """As everywhere, but a refused key or a wrong clock (401, 403) is set right by people: try again, a few times."""
    if answer.status in (401, 403):
        what = outcomes.failure("authorization-failed", 502, message)
        return steps.Retry(failure=what, after=_REFUSED_AFTER, limit=_REFUSED_TRIES)
    return outcomes.of_status(answer, message, safe)


_upstreams: dict[str, http.Upstream] = {}
_making = threading.Lock()


def upstream(url: str) -> http.Upstream:
    """Notify as this process sees it, in step with the other processes through Redis."""
    with _making:
        if url not in _upstreams:
            pool = config.settings().worker_concurrency
            reading = outcomes.Reading(of_status=_of_status)
            _upstreams[url] = http.Upstream("notify", url, pool=pool, shared=shared.of_process(), reading=reading)
        return _upstreams[url]


class Notify:
    """Texts for the clients of one product. Cheap to make, for one step; not for several threads."""

    def __init__(self, settings: config.Notify, *, product: str, work: steps.Work) -> None:
        self._settings = settings
        self._product = product
        self._work = work

    def send(self, reference: str, *, phone: str, template: str, personalisation: Personalisation) -> str:
        """Send a text; Notify's id of it. `template` is a template's name, such as `success`. Raises Failed."""
        sender = self._settings.sender(self._product)
        template_id = self._settings.template(self._product, template)
        request = http.Request(call="send-sms", method="POST", template="v2/notifications/sms", effect=0)
        return self._ask(
            request,
            lambda client: client.send_sms_notification(
                phone_number=phone,
                template_id=template_id,
                personalisation=dict(personalisation),
                reference=reference,
                sms_sender_id=sender,
            ),
            _sent,
        )

    def find(self, reference: str) -> str | None:
        """Notify's id of the text with our reference; None when it knows of none. Raises Failed."""
        request = http.Request(call="find-sms", method="GET", template="v2/notifications")
        return self._ask(
            request,
            lambda client: client.get_all_notifications(reference=reference),
            lambda answer: _found(answer, reference),
        )

    def _ask(self, request: http.Request, call: Callable[[Any], object], understand: Callable[[Answer], T]) -> T:
        limits = (self._settings.connect_timeout, self._settings.timeout)

        def perform(session: requests.Session) -> None:
            client = _Client(self._settings, session, self._work.correlation_id, limits)
            with contextlib.suppress(APIError):  # the session has seen the answer, or why there is none
                call(client)

        timed = dataclasses.replace(request, connect=limits[0], read=limits[1])
        return upstream(self._settings.url).carry(self._work, timed, perform, understand)


class _Client(NotificationsAPIClient):
    """The library's client on our session, with the correlation id on its calls."""

    def __init__(
        self, settings: config.Notify, session: requests.Session, correlation_id: str, limits: tuple[float, float]
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            settings.api_key.get_secret_value(), base_url=settings.url, timeout=limits
        )
        self.request_session = session
        self._correlation_id = correlation_id

    def generate_headers(self, api_token: str) -> dict[str, str]:
        headers: dict[str, str] = super().generate_headers(api_token)  # type: ignore[no-untyped-call]
        return {**headers, "X-Correlation-ID": self._correlation_id}


def _sent(answer: Answer) -> str:
    return _id(answer.json)


def _found(answer: Answer, reference: str) -> str | None:
    document = answer.json
    listed = document.get("notifications") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise outcomes.NotUnderstood
    ours = (one for one in listed if isinstance(one, dict) and one.get("reference") == reference)
    return next((_id(one) for one in ours), None)


def _id(record: Any) -> str:
    found = record.get("id") if isinstance(record, dict) else None
    if not isinstance(found, str) or not found:
        raise outcomes.NotUnderstood
    return found
