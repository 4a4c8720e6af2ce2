"""Notify: text messages, found again by reference, and the delivery receipts it may post back."""

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.faults import Kind
from sandbox.messages import Answer, Refusal, Request, json_answer, timestamp
from sandbox.turn import Call
from sandbox.upstreams.notify_receipts import Poster
from sandbox.upstreams.notify_token import problem_with
from sandbox.world import World

LIST_PATH = "/v2/notifications"
SMS_PATH = "/v2/notifications/sms"
ONE_PATH = re.compile(r"/v2/notifications/(?P<id>[^/]+)")
PHONE = re.compile(r"\+[1-9][0-9]{7,14}")
PERSONALISATION = ("claim_number", "appt_date")
ERRORS = {
    400: "BadRequestError", 401: "AuthError", 403: "AuthError", 404: "NoResultFound", 429: "RateLimitError",
}  # fmt: skip
MAX_LISTED = 250


@dataclass(slots=True)
class Text:
    """One text message taken by Notify."""

    id: str
    reference: str | None
    phone_number: str
    template_id: str
    body: str
    created_at: float
    status: str = "created"
    completed_at: float | None = None

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "reference": self.reference,
            "type": "sms",
            "status": self.status,
            "phone_number": self.phone_number,
            "body": self.body,
            "template": {"id": self.template_id, "version": 1},
            "created_at": timestamp(self.created_at),
            "sent_at": timestamp(self.created_at),
            "completed_at": timestamp(self.completed_at) if self.completed_at else None,
        }


class Notify:
    """Speaks `/v2/notifications`. The same reference twice is two texts, as at the real one."""

    name = "notify"
    calls: tuple[str, ...] = ("send-sms", "find-sms")
    faults: Mapping[str, Kind] = {}

    def __init__(self, world: World) -> None:
        self._world = world
        self._texts: dict[str, Text] = {}
        self._by_reference: dict[str, list[Text]] = {}
        self._poster = Poster(world)

    def route(self, request: Request) -> Call | None:
        asked = (request.method, request.path)
        if asked == ("POST", SMS_PATH):
            return Call("send-sms", self._send)
        if asked == ("GET", LIST_PATH):
            return Call("find-sms", self._list)
        found = ONE_PATH.fullmatch(request.path)
        return Call("find-sms", self._one, found.groupdict()) if request.method == "GET" and found else None

    def traits(self, _call: Call, request: Request) -> Mapping[str, Any]:
        return {"phone": request.members().get("phone_number")}

    def error(self, status: int, message: str, name: str | None = None) -> Answer:
        name = name or ERRORS.get(status, "Exception")
        return json_answer(status, {"status_code": status, "errors": [{"error": name, "message": message}]})

    def empty(self, call: str, _request: Request) -> Answer:
        if call == "send-sms":
            return json_answer(201, {"content": {}, "scheduled_for": None})
        return json_answer(200, {"notifications": [], "links": {"current": LIST_PATH}})

    def reset(self) -> None:
        self._texts = {}
        self._by_reference = {}

    def _authorize(self, request: Request) -> None:
        known = self._world.credentials
        problem = problem_with(request.header("Authorization"), known.notify_service_id, known.notify_secret)
        if problem is not None:
            raise Refusal(self.error(*problem))

    def _send(self, request: Request) -> Answer:
        self._authorize(request)
        body = request.members()
        template = self._checked_template(body)
        given = body["personalisation"]
        said = f"{template}: claim {given['claim_number']}, appointment {given['appt_date']}"
        text = Text(
            str(uuid.uuid4()), body.get("reference"), body["phone_number"], body["template_id"], said, time.time()
        )
        self._texts[text.id] = text
        self._by_reference.setdefault(text.reference or "", []).append(text)
        shown = {name: body.get(name) for name in ("phone_number", "template_id", "sms_sender_id", "personalisation")}
        self._world.ledger.record(
            "texts",
            {"reference": text.reference or text.id},
            id=text.id,
            correlation_id=request.correlation_id,
            template=template,
            **shown,
        )
        answer = self._taken(request, text)
        answer.first = self._poster.receipts(text, request.correlation_id)
        return answer

    def _taken(self, request: Request, text: Text) -> Answer:
        base = f"http://{request.header('Host')}"
        template = f"{base}/services/{self._world.credentials.notify_service_id}/templates/{text.template_id}"
        return json_answer(
            201,
            {
                "id": text.id,
                "reference": text.reference,
                "content": {"body": text.body, "from_number": "VETRIDES"},
                "uri": f"{base}{LIST_PATH}/{text.id}",
                "template": {"id": text.template_id, "version": 1, "uri": template},
                "scheduled_for": None,
            },
        )

    def _checked_template(self, body: Mapping[str, Any]) -> str:
        """The template's name, when the body is one that Notify takes. Raises Refusal 400."""
        for name in ("phone_number", "template_id"):
            if not isinstance(body.get(name), str):
                raise Refusal(self.error(400, f"{name} is a required property", "ValidationError"))
        if not PHONE.fullmatch(body["phone_number"]):
            raise Refusal(self.error(400, "phone_number Not a valid international number", "ValidationError"))
        template = self._world.credentials.template(body["template_id"])
        if template is None:
            raise Refusal(self.error(400, "Template not found"))
        senders = [one.sms_sender_id for one in self._world.credentials.products]
        if body.get("sms_sender_id") not in (None, *senders):
            raise Refusal(self.error(400, f"sms_sender_id {body['sms_sender_id']} does not exist in database"))
        given = body.get("personalisation")
        missing = [name for name in PERSONALISATION if not isinstance(given, dict) or not given.get(name)]
        if missing:
            raise Refusal(self.error(400, f"Missing personalisation: {', '.join(missing)}"))
        return template

    def _list(self, request: Request) -> Answer:
        self._authorize(request)
        reference = request.arguments.get("reference")
        found = list(self._texts.values()) if reference is None else self._by_reference.get(reference, [])
        current = f"http://{request.header('Host')}{LIST_PATH}" + (f"?{request.query}" if request.query else "")
        shown = [one.shown() for one in reversed(found[-MAX_LISTED:])]
        return json_answer(200, {"notifications": shown, "links": {"current": current}})

    def _one(self, request: Request, id: str) -> Answer:
        self._authorize(request)
        if id not in self._texts:
            raise Refusal(self.error(404, "No result found"))
        return json_answer(200, self._texts[id].shown())
