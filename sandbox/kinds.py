"""The faults every upstream can have, by name, and how each is played. An upstream's own ones are in its own file."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sandbox.faults import DELAY, Kind
from sandbox.messages import HTML_TYPE, TEXT_TYPE, Answer, Drop, Reply, Stream, json_answer, text_answer
from sandbox.turn import Turn
from sandbox.world import Interrupted

Parameters = Mapping[str, Any]
ID_FIELDS = {"id", "claimId", "expenseId", "accessToken", "access_token", "voucherCode"}
LOST_BYTES = 100
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


def delay_after(turn: Turn, given: Parameters) -> Reply:
    answer = _answer(turn, given)
    turn.rest(given["seconds"])
    return answer


def drip(turn: Turn, given: Parameters) -> Reply:
    answer = _answer(turn, given)
    sent = answer.rendered(close=True)
    return Stream(answer.status, _dripped(turn, sent, pause=given["seconds"], most=given["max_seconds"]))


def _dripped(turn: Turn, content: bytes, *, pause: float, most: float | None) -> Iterator[bytes]:
    """One byte, a pause, the next; the rest at once after `most` seconds. Ends with a reset of the sandbox."""
    with contextlib.suppress(Interrupted):
        spent, at = 0.0, 0
        while at < len(content) and (most is None or spent < most):
            yield content[at : at + 1]
            turn.rest(pause)
            spent, at = spent + pause, at + 1
        yield content[at:]


def broken_off(turn: Turn, given: Parameters) -> Reply:
    answer = _answer(turn, given)
    whole = replace(answer, body=answer.body or b" " * LOST_BYTES)
    return Stream(
        answer.status, iter([whole.rendered(close=True, without_body=True), answer.body[: len(answer.body) // 2]])
    )


def garbage(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    return Stream("garbage", iter([str(given["body"]).encode()]))


def redirect(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    request = turn.request
    here = f"{request.path}?{request.query}" if request.query else request.path
    return Answer(given["status"], b"", headers=(("Location", given["location"] or here),))


def altered(turn: Turn, given: Parameters) -> Reply:
    """The success with other members; a refusal as it is."""
    answer = _success(turn, given)
    told = json.loads(answer.body or b"null")
    if answer.status >= 300 or not isinstance(told, dict):
        return answer
    kept = {name: value for name, value in told.items() if name not in given["without"]}
    return json_answer(answer.status, kept | given["members"], answer.headers)


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
    answer = _success(turn, given)
    return Answer(200, answer.body[: max(1, len(answer.body) - 2)])


def missing_field(turn: Turn, given: Parameters) -> Reply:
    answer = _success(turn, given)
    return json_answer(answer.status, _without_ids(json.loads(answer.body or b"null")), answer.headers)


def wrong_shape(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    return json_answer(200, given["body"])


def empty(turn: Turn, given: Parameters) -> Reply:
    _effect(turn, given)
    return turn.upstream.empty(turn.call.name, turn.request)


def _effect(turn: Turn, given: Parameters) -> None:
    if given["effect"]:
        turn.perform()


def _success(turn: Turn, given: Parameters) -> Answer:
    """The call's own answer, or without effect a success with nothing in it."""
    return turn.perform() if given["effect"] else turn.upstream.empty(turn.call.name, turn.request)


def _answer(turn: Turn, given: Parameters) -> Answer:
    """The call's own answer, or when a status is given the one that the parameters describe."""
    if given["status"] is None:
        return turn.perform()
    _effect(turn, given)
    return _told(turn, given, default=500)


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


LISTING = (
    "find-or-add", "search-claims", "find-sms",
    "create-voucher", "get-voucher", "replace-voucher", "redemption-history",
)  # fmt: skip
EFFECT = {"effect": True}
NO_EFFECT = {"effect": False}

OWN_ANSWER: Parameters = {"status": None, "body": None, "headers": {}, "message": None, **EFFECT}

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
    "delay-after": Kind(delay_after, {"seconds": 1, **OWN_ANSWER}),
    "drip": Kind(drip, {"seconds": 1, "max_seconds": None, **OWN_ANSWER}),
    "broken-off": Kind(broken_off, OWN_ANSWER),
    "garbage": Kind(garbage, {"body": "These bytes are no HTTP.\r\n\r\n", **NO_EFFECT}),
    "redirect": Kind(redirect, {"status": 307, "location": None, **NO_EFFECT}),
    "altered": Kind(altered, {"members": {}, "without": [], **EFFECT}),
    "refuse-401": Kind(refuse_401, {"message": "Unauthorized"}),
    "rate-limit": Kind(
        rate_limit, {"seconds": 60, "limit": 60, "retry_after": None, "message": "Rate limit is exceeded."}
    ),
    "remaining-zero": Kind(remaining_zero, {"seconds": 60, "limit": 60}),
    "malformed-json": Kind(malformed_json, EFFECT),
    "missing-field": Kind(missing_field, EFFECT),
    "wrong-shape": Kind(wrong_shape, {"body": {"result": "ok"}, **EFFECT}),
    "token-absent": Kind(empty, NO_EFFECT, calls=("veis-token", "system-token")),
    "empty-list": Kind(empty, NO_EFFECT, calls=LISTING),
}
