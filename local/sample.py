"""One sample of a line, sent through the real API, and its timeline as it unfolds."""

import datetime
import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALL_SECONDS = 30.0
FOLLOW_SECONDS = 60.0
AFTERMATH_SECONDS = 4.0


class SampleFailed(RuntimeError):
    """The sample was not accepted or did not end; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What to send, as whom, when its story is over, and how to tell it in one line."""

    title: str
    path: str
    key: str
    body: Mapping[str, Any]
    over: Callable[[Mapping[str, Any]], bool]
    outcome: Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API is, and the command that shows timelines, with the environment that holds the demo keys."""

    url: str
    throughline: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a timeline."""

    at: datetime.datetime | None
    what: str
    detail: str


def travel_claim() -> Sample:
    """A claim for mileage of a made-up veteran for a visit now; over when the text message arrived, too."""
    now = datetime.datetime.now(datetime.UTC).astimezone()  # noqa: TID251 - a visit on somebody's wall clock
    body = {
        "icn": f"{secrets.randbelow(9 * 10**9) + 10**9}V{secrets.randbelow(10**6):06}",
        "appointment": {"dateTime": now.isoformat(timespec="minutes"), "stationNumber": "983GC"},
        "phone": "+12025550143",
    }
    return Sample("travel claim", "/travel-claims", "DEMO_PCI_KEY", body, _claim_is_over, _claim_outcome)


def _claim_is_over(claim: Mapping[str, Any]) -> bool:
    text = claim.get("text") or {}
    return bool(claim.get("final")) and text.get("state") not in {"pending", "sent"}


def _claim_outcome(claim: Mapping[str, Any]) -> str:
    text = claim.get("text") or {}
    number = f" as {claim['claimNumber']}" if claim.get("claimNumber") else ""
    error = f" ({claim['error']})" if claim.get("error") else ""
    return f"{claim.get('state')}{number}{error}; text message: {text.get('state')}"


def send(sample: Sample, api: Api) -> str:
    """Send the sample and return the id it got. Raises SampleFailed."""
    headers = {"Idempotency-Key": f"sample-{uuid.uuid4()}", "Prefer": "respond-async"}
    status, answer = _call(
        api.url + sample.path, api.environment[sample.key], json.dumps(sample.body).encode(), headers
    )
    if status not in {200, 201, 202} or "id" not in answer:
        raise SampleFailed(f"POST {sample.path} was answered {status}: {answer.get('detail') or answer}")
    return str(answer["id"])


def follow(sample: Sample, identity: str, api: Api) -> Iterator[Row]:
    """Yield the timeline's rows as they come, at last the outcome. Raises SampleFailed after a minute."""
    deadline = time.monotonic() + FOLLOW_SECONDS
    shown = 0
    final_since = None
    while time.monotonic() < deadline:
        status, answer = _call(f"{api.url}{sample.path}/{identity}", api.environment[sample.key])
        over = status == 200 and sample.over(answer)
        rows = timeline(identity, api)
        yield from rows[shown:]
        shown = max(shown, len(rows))
        if answer.get("final") and final_since is None:
            final_since = time.monotonic()
        if over or (final_since and time.monotonic() - final_since > AFTERMATH_SECONDS):
            yield Row(None, sample.outcome(answer), "")
            return
        time.sleep(0.1)
    raise SampleFailed(f"{sample.title} {identity} is not over after {FOLLOW_SECONDS:g} s: see `throughline show`")


def timeline(identity: str, api: Api) -> list[Row]:
    """What `throughline show` knows of a workflow; nothing when it cannot say."""
    command: list[str | Path] = [api.throughline, "show", identity, "--json"]
    told = subprocess.run(
        command, env=api.environment, capture_output=True, text=True, timeout=CALL_SECONDS, check=False
    )
    try:
        return [_row(entry) for entry in json.loads(told.stdout)["timeline"]]
    except (ValueError, KeyError, TypeError):
        return []


def _row(entry: Mapping[str, Any]) -> Row:
    detail = entry.get("detail")
    text = detail if isinstance(detail, str) else json.dumps(detail) if detail else ""
    by = f"by {entry['actor']}" if entry.get("actor") else ""
    return Row(_moment(entry.get("at")), str(entry.get("what") or ""), " ".join(filter(None, (text, by))))


def _moment(at: object) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(str(at))
    except ValueError:
        return None


def _call(
    url: str, key: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    sent = {"x-api-key": key, "Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=body, headers=sent)  # noqa: S310 - our own API
    try:
        with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:  # noqa: S310 - the same
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        return refusal.code, _json_or_text(refusal.read())


def _json_or_text(body: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError):
        return {"detail": body.decode(errors="replace")[:500]}
