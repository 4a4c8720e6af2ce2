"""What i-Movo's answers say: shapes, known error texts and what a status means (vouchers contract, sections 4 and 5.1).

An answer is nothing until its flag, its shape and its id were checked; an error comes normally with status 200.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app import steps
from app.upstreams import answers, outcomes
from app.upstreams.answers import Answer

T = TypeVar("T")
_CODE = re.compile(r"[0-9]{1,32}", re.ASCII)
_MANY_DIGITS = re.compile(r"\d{6,}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # what Postgres, or UTF-8, cannot hold
_SHOWN = 500
_HTTP_STATUS = {"already-exists": 409, "not-live": 404, "holiday-conflict": 409, "refused": 502}
# Phrase, code, and whether it is known on reads (get, history) alone.
_KNOWN_TEXTS = (
    ("live subscription vouchers already exist for the supplied subscription id", "already-exists", False),
    ("no live subscription vouchers exist", "not-live", False),
    ("subscription not found", "not-live", True),
    ("no subscription found", "not-live", True),
    ("does not exist", "not-live", True),
    ("conflicting holiday found between entered dates", "holiday-conflict", False),
    ("please enter a reactivation date in the future", "refused", False),
)


@dataclass(frozen=True)
class Pair:
    """The live codes of a subscription, None for a kind that is not listed; `scheme` as i-Movo writes it."""

    scheme: str
    card: str | None = field(repr=False)
    letter: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Redemption:
    """One line of a redemption history, as i-Movo sends it."""

    voucher_code: str = field(repr=False)
    voucher_type: str
    date: str
    activity_type: str
    address: str | None = field(repr=False)
    post_code: str | None = field(repr=False)
    reason: str
    value: float


def code_of(texts: Sequence[str], *, reading: bool) -> str:
    """The code of an error: `already-exists`, `not-live`, `holiday-conflict`, or `refused` for all that is not known.

    `reading`: the call was get or history.
    """
    distinct = {_plain(text) for text in texts}
    if len(distinct) != 1:
        return "refused"
    (said,) = distinct
    known = (code for phrase, code, on_reads in _KNOWN_TEXTS if phrase in said and (reading or not on_reads))
    return next(known, "refused")


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()


def shown(texts: Sequence[str]) -> str:
    """Error texts as they may be shown: joined, without long runs of digits, at most 500 characters."""
    return _MANY_DIGITS.sub("***", "; ".join(texts))[:_SHOWN]


def _errors(document: Any) -> list[str] | None:
    """The texts of an error body; None where it is none."""
    texts = document.get("errorMessages") if _flag(document) is False else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return None
    return [_UNSTORABLE.sub("", text) for text in texts]


def _flag(document: Any) -> bool | None:
    flag = document.get("successfulRequest") if isinstance(document, dict) else None
    return flag if isinstance(flag, bool) else None


def _refusal(texts: Sequence[str], *, reading: bool) -> steps.Rejected:
    code = code_of(texts, reading=reading)
    failure = steps.Failure(code=code, http_status=_HTTP_STATUS[code], message=shown(texts), retryable=False)
    return steps.Rejected(failure=failure)


def understood(read: Callable[[Mapping[str, Any]], T], *, reading: bool) -> Callable[[Answer], T]:
    """What makes of a 2xx answer what `read` finds in it. Raises Failed for an error body, else NotUnderstood."""

    def understand(answer: Answer) -> T:
        document = answer.json
        texts = _errors(document)
        if texts is not None:
            refusal = _refusal(texts, reading=reading)
            raise outcomes.Failed(refusal, status=answer.status, message=refusal.failure.message)
        if _flag(document) is not True:
            raise outcomes.NotUnderstood
        return read(document)

    return understand


def of_status(answer: Answer, message: str, safe: bool) -> steps.Outcome:
    """What a status other than 2xx means; the safe calls are the reads."""
    ending = _of_status(answer, message, safe)
    if isinstance(ending, steps.Retry):
        return dataclasses.replace(ending, after=answers.retry_after(answer.headers))
    return ending


def _of_status(answer: Answer, message: str, safe: bool) -> steps.Outcome:
    status = answer.status
    if status == 429:
        return steps.Retry(failure=outcomes.failure("rate-limited", 429, message))
    if status in (401, 403):
        return steps.Retry(failure=outcomes.failure("credentials", 502, message))
    if status == 408 or 500 <= status < 600:
        return outcomes.of_status(answer, message, safe)
    if 300 <= status < 400 or (400 <= status < 500 and _flag(answer.json) is not True):
        texts = _errors(answer.json) if status >= 400 else None
        return _refusal(texts or [], reading=safe)
    return outcomes.malformed(status, message, safe).outcome


def said(answer: Answer) -> tuple[str, str]:
    """The error texts of an answer, else the name of its status."""
    return shown(_errors(answer.json) or []) or answers.phrase(answer.status), ""


def pause(answer: Answer) -> float:
    """Seconds for which all calls rest: as a 429 says."""
    return answers.retry_after(answer.headers) or 0.0 if answer.status == 429 else 0.0


def pair(subscription_id: str) -> Callable[[Mapping[str, Any]], Pair]:
    """What reads a subscription, which must be the one asked for. The first entry of each live type counts."""

    def read(document: Mapping[str, Any]) -> Pair:
        _same(document, subscription_id)
        entries = _objects(document, "subscriptionVouchers")
        scheme = _text(document, "schemeName")
        return Pair(scheme, _first(entries, "ActiveCard"), _first(entries, "ActiveLetter"))

    return read


def _first(entries: Sequence[Mapping[str, Any]], kind: str) -> str | None:
    """The code of the first entry of a kind. Entries of other types are old vouchers."""
    found = [one for one in entries if _text(one, "subscriptionType") == kind]
    return _code(found[0]) if found else None


def plain(document: Mapping[str, Any]) -> None:
    """Checks the answer that tells nothing but success."""
    _text(document, "message")


def history(subscription_id: str) -> Callable[[Mapping[str, Any]], list[Redemption]]:
    """What reads a redemption history, which must be that of the subscription asked for; order as received."""

    def read(document: Mapping[str, Any]) -> list[Redemption]:
        _same(document, subscription_id)
        _number(document, "lines")
        return [_redemption(one) for one in _objects(document, "voucherHistoryItem")]

    return read


def _redemption(item: Mapping[str, Any]) -> Redemption:
    return Redemption(
        voucher_code=_code(item),
        voucher_type=_text(item, "voucherType"),
        date=_text(item, "date"),
        activity_type=_text(item, "activityType"),
        address=_text_or_null(item, "address"),
        post_code=_text_or_null(item, "postCode"),
        reason=_text(item, "reason"),
        value=_number(item, "value"),
    )


def _same(document: Mapping[str, Any], subscription_id: str) -> None:
    if _text(document, "subscriptionId") != subscription_id:
        raise outcomes.NotUnderstood("The answer is about another subscription.")


def _objects(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise outcomes.NotUnderstood
    return found


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or _UNSTORABLE.search(found):
        raise outcomes.NotUnderstood
    return found


def _text_or_null(document: Mapping[str, Any], name: str) -> str | None:
    if name in document and document[name] is None:
        return None
    return _text(document, name)


def _number(document: Mapping[str, Any], name: str) -> float:
    found = document.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= sys.float_info.max:
        raise outcomes.NotUnderstood
    return found


def _code(document: Mapping[str, Any]) -> str:
    found = _text(document, "voucherCode")
    if not _CODE.fullmatch(found):
        raise outcomes.NotUnderstood
    return found
