"""The faults every upstream can have, by name, and how each is played. An upstream's own ones are in its own file."""

import json
from collections.abc import Mapping
from typing import Any

from sandbox.faults import DELAY, Kind
from sandbox.messages import HTML_TYPE, TEXT_TYPE, Answer, Drop, Reply, json_answer, text_answer
from sandbox.turn import Turn

Parameters = Mapping[str, Any]
ID_FIELDS = {"id", "claimId", "expenseId", "accessToken", "access_token"}
GATEWAY_PAGE = "<html><head><title>{status}</title></head><body><h1>{status}</h1><p>{message}</p></body></html>"


def status(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    return _told(turn, given, default=500)


def html(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    page = GATEWAY_PAGE.format(status=given["status"], message=given["message"])
    return text_answer(given["status"], given["body"] or page, HTML_TYPE)


def drop_before(_turn: Turn, _given: Parameters) -> Reply:
    return Drop()


def drop_after(turn: Turn, _given: Parameters) -> Reply:
    turn.perform()
    return Drop()


def hang_before(turn: Turn, given: Parameters) -> Reply:
    turn.rest(given["seconds"])
    return Drop()


def hang_after(turn: Turn, given: Parameters) -> Reply:
    turn.perform()
    turn.rest(given["seconds"])
    return Drop()


def reset(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    return Drop(reset=True)


def late(turn: Turn, given: Parameters) -> Reply:
    turn.perform_later(given["seconds"])
    return Drop() if given["status"] is None else _told(turn, given, default=500)


def refuse_401(turn: Turn, given: Parameters) -> Reply:
    return turn.upstream.error(401, given["message"])


def rate_limit(turn: Turn, given: Parameters) -> Reply:
    answer = turn.upstream.error(429, given["message"])
    headers = _limits(given)
    if given["retry_after"] is not None:
        headers += (("Retry-After", str(given["retry_after"])),)
    return _with_headers(answer, headers)


def remaining_zero(turn: Turn, given: Parameters) -> Reply:
    return _with_headers(turn.perform(), _limits(given))


def malformed_json(turn: Turn, given: Parameters) -> Reply:
    answer = turn.perform() if given["effect"] else turn.upstream.empty(turn.call.name)
    return Answer(200, answer.body[: max(1, len(answer.body) - 2)])


def missing_field(turn: Turn, given: Parameters) -> Reply:
    if not given["effect"]:
        return turn.upstream.empty(turn.call.name)
    answer = turn.perform()
    return json_answer(answer.status, _without_ids(json.loads(answer.body)), answer.headers)


def wrong_shape(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    return json_answer(200, given["body"])


def empty(turn: Turn, _given: Parameters) -> Reply:
    return turn.upstream.empty(turn.call.name)


def _effect(turn: Turn, given: Parameters) -> None:
    if given["effect"]:
        turn.perform()


def _told(turn: Turn, given: Parameters, *, default: int) -> Answer:
    """The answer that the parameters describe: a body as given, or the message in the upstream's own shape."""
    code, body = given["status"] or default, given.get("body")
    if body is None:
        answer = turn.upstream.error(code, given["message"] or "An internal error occurred.")
    elif isinstance(body, str):
        answer = text_answer(code, body, TEXT_TYPE)
    else:
        answer = json_answer(code, body)
    return _with_headers(answer, tuple(given.get("headers", {}).items()))


def _limits(given: Parameters) -> tuple[tuple[str, str], ...]:
    return (
        ("X-Ratelimit-Limit-Minute", str(given["limit"])),
        ("X-Ratelimit-Remaining-Minute", "0"),
        ("Ratelimit-Reset", f"{given['seconds']:g}"),
    )


def _with_headers(answer: Answer, headers: tuple[tuple[str, str], ...]) -> Answer:
    return Answer(answer.status, answer.body, answer.content_type, answer.headers + headers)


def _without_ids(content: Any) -> Any:
    if isinstance(content, list):
        return [_without_ids(one) for one in content]
    if isinstance(content, dict):
        return {name: _without_ids(value) for name, value in content.items() if name not in ID_FIELDS}
    return content


EFFECT = {"effect": True}
NO_EFFECT = {"effect": False}

KINDS: dict[str, Kind] = {
    DELAY: Kind(Turn.perform_as_is, {"seconds": 1, "max_seconds": None}),
    "status": Kind(status, {"status": 500, "body": None, "headers": {}, "message": None, **NO_EFFECT}),
    "html": Kind(html, {"status": 502, "body": None, "message": "Bad Gateway", **NO_EFFECT}),
    "drop-before": Kind(drop_before),
    "drop-after": Kind(drop_after),
    "hang-before": Kind(hang_before, {"seconds": 120}),
    "hang-after": Kind(hang_after, {"seconds": 120}),
    "reset": Kind(reset, NO_EFFECT),
    "late": Kind(late, {"seconds": 1, "status": None, "body": None, "headers": {}, "message": None}),
    "refuse-401": Kind(refuse_401, {"message": "Unauthorized"}),
    "rate-limit": Kind(
        rate_limit, {"seconds": 60, "limit": 60, "retry_after": None, "message": "Rate limit is exceeded."}
    ),
    "remaining-zero": Kind(remaining_zero, {"seconds": 60, "limit": 60}),
    "malformed-json": Kind(malformed_json, EFFECT),
    "missing-field": Kind(missing_field, EFFECT),
    "wrong-shape": Kind(wrong_shape, {"body": {"result": "ok"}, **EFFECT}),
    "token-absent": Kind(empty, calls=("veis-token", "system-token")),
    "empty-list": Kind(empty, calls=("find-or-add", "search-claims", "find-sms")),
}
