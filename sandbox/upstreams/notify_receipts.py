"""Delivery receipts: what Notify posts to the callback URL once a text has been taken, or a little before."""

import http.client
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sandbox.messages import timestamp
from sandbox.world import World

if TYPE_CHECKING:
    from sandbox.upstreams.notify import Text

TIMEOUT = 5


class Poster:
    """Posts receipts as the settings say; a refused or lost one is not repeated."""

    def __init__(self, world: World) -> None:
        self._world = world

    def receipts(self, text: "Text", correlation_id: str | None) -> Callable[[], None] | None:
        """Plans the receipts of a text; what it gives back is to be run before the send is answered."""
        wanted = self._world.settings.receipts
        if wanted.callback_url is None:
            return None
        planned = [status for status in wanted.statuses for _ in range(wanted.repeat)]
        posts = [self._post(text, status, correlation_id) for status in planned]
        first = posts.pop(0) if wanted.early else None
        for number, post in enumerate(posts, 1):
            self._world.scheduler.later(number * wanted.delay, post)
        return first

    def _post(self, text: "Text", status: str, correlation_id: str | None) -> Callable[[], None]:
        wanted, epoch = self._world.settings.receipts, self._world.epoch
        url = wanted.callback_url or ""
        token = wanted.token or self._world.credentials.notify_callback_token

        def post() -> None:
            if epoch.over:
                return
            with self._world.lock:
                text.status, text.completed_at = status, time.time()
            try:
                answered: int | str = _posted(url, token, _receipt(text, status))
            except (OSError, http.client.HTTPException) as error:
                answered = type(error).__name__
            if not epoch.over:
                key = {"notification_id": text.id, "status": status}
                more = {"reference": text.reference, "answered": answered}
                self._world.ledger.record("receipts", key, id=text.id, correlation_id=correlation_id, **more)

        return post


def _receipt(text: "Text", status: str) -> dict[str, object]:
    return {
        "id": text.id,
        "reference": text.reference,
        "to": text.phone_number,
        "status": status,
        "status_reason": None if status == "delivered" else "The phone did not answer.",
        "created_at": timestamp(text.created_at),
        "sent_at": timestamp(text.created_at),
        "completed_at": timestamp(),
        "notification_type": "sms",
        "template_id": text.template_id,
        "template_version": 1,
    }


def _posted(url: str, token: str, receipt: dict[str, object]) -> int:
    """The status the receiver answered. Raises OSError or HTTPException when it did not."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", parts.path or "/", json.dumps(receipt), headers)
        return connection.getresponse().status
    finally:
        connection.close()
