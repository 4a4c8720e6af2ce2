"""One sample of each line, sent through the real API, and its story as it unfolds."""

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
Answer = Mapping[str, Any]


class SampleFailed(RuntimeError):
    """The sample was not accepted or did not end; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was made: what it was, and what came of it."""

    request: str
    result: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a timeline; without a time, how it ended."""

    at: datetime.datetime | None
    what: str
    detail: str


Story = Iterator[Sent | Row]


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API is, and the command that shows timelines, with the environment that holds the demo keys."""

    url: str
    throughline: Path
    environment: Mapping[str, str]


def travel_claim(api: Api) -> Story:
    """A claim for mileage of a made-up veteran for a visit now; over when the text message arrived, too."""
    now = datetime.datetime.now(datetime.UTC).astimezone()  # noqa: TID251 - a visit on somebody's wall clock
    body = {
        "icn": f"{secrets.randbelow(9 * 10**9) + 10**9}V{secrets.randbelow(10**6):06}",
        "appointment": {"dateTime": now.isoformat(timespec="minutes"), "stationNumber": "983GC"},
        "phone": "+12025550143",
    }
    client = Client(api, "DEMO_PCI_KEY")
    claim = str(client.ask("POST", "/travel-claims", body)["id"])
    yield Sent("POST /travel-claims", claim)
    path = f"/travel-claims/{claim}"
    yield from follow(client, claim, path, final=lambda shown: bool(shown.get("final")), over=_text_arrived)
    yield Row(None, _claim_outcome(client.ask("GET", path)), "")


def _text_arrived(claim: Answer) -> bool:
    text = claim.get("text") or {}
    return bool(claim.get("final")) and text.get("state") not in {"pending", "sent"}


def _claim_outcome(claim: Answer) -> str:
    text = claim.get("text") or {}
    number = f" as {claim['claimNumber']}" if claim.get("claimNumber") else ""
    error = f" ({claim['error']})" if claim.get("error") else ""
    return f"{claim.get('state')}{number}{error}; text message: {text.get('state')}"


def declaration(api: Api) -> Story:
    """A passenger's declaration of cigars, submitted, paid, and sent to MDG."""
    client, place = Client(api, "DEMO_PASSENGERS_KEY"), "/bc-passengers-declarations"
    reference = str(client.ask("POST", f"{place}/submit", CIGARS)["_id"])
    yield Sent(f"POST {place}/submit", reference)
    client.ask("POST", f"{place}/update/{reference}")
    yield Sent(f"POST {place}/update/{reference}", "paid")
    path = f"{place}/{reference}"
    yield from follow(client, reference, path, final=_declaration_is_final, over=_declaration_is_final)
    shown = client.ask("GET", path)
    yield Row(None, f"{shown['state']} as {shown['acknowledgementReference']}", "")


def _declaration_is_final(shown: Answer) -> bool:
    return shown.get("state") in {"submitted", "failed", "expired"}


def voucher(api: Api) -> Story:
    """A voucher for a new subscription, created and replaced; its history."""
    client = Client(api, "DEMO_SALESFORCE_KEY")
    subscription = f"SAMPLE{secrets.token_hex(6)}"
    place = f"/{api.environment['STAGE']}/digital-voucher"
    both: Answer = {"subscriptionId": subscription, "replaceCard": True, "replaceLetter": True}
    requests: tuple[tuple[str, str, Answer], ...] = (
        ("PUT", f"{place}/{subscription}", {"ratePlanName": "Everyday"}),
        ("POST", f"{place}/replace", both),
    )
    for method, path, body in requests:
        codes = client.ask(method, path, body)
        yield Sent(f"{method} {path}", f"card {codes.get('cardCode')}, letter {codes.get('letterCode')}")
    shown = client.ask("GET", f"{place}/{subscription}/operations")
    for operation in reversed(shown["operations"]):
        yield from timeline(str(operation["operationId"]), api)
    history = ", ".join(f"{one['kind']} {one['state']}" for one in reversed(shown["operations"]))
    yield Row(None, f"{shown['state']}: {history}", "")


SAMPLES: Mapping[str, Callable[[Api], Story]] = {
    "travel claim": travel_claim,
    "passenger declaration": declaration,
    "digital voucher": voucher,
}


@dataclass(frozen=True, slots=True)
class Client:
    """A demo client, by the variable that holds its key."""

    api: Api
    key: str

    def ask(self, method: str, path: str, body: Answer | None = None) -> Answer:
        """The answer's JSON, or nothing where it has no body. Raises SampleFailed for anything but 2xx."""
        status, answer = self.call(method, path, body)
        if not 200 <= status < 300:
            raise SampleFailed(f"{method} {path} was answered {status}: {answer.get('detail') or answer}")
        return answer

    def call(self, method: str, path: str, body: Answer | None = None) -> tuple[int, Answer]:
        sent = {"x-api-key": self.api.environment[self.key]}
        if method != "GET":
            sent |= {"Idempotency-Key": f"sample-{uuid.uuid4()}"}
        if body is not None:
            sent |= {"Content-Type": "application/json"}
        data = None if method == "GET" else json.dumps(body).encode() if body is not None else b""
        request = urllib.request.Request(self.api.url + path, data=data, headers=sent, method=method)  # noqa: S310 - our own API
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:  # noqa: S310 - the same
                return response.status, _json_or_text(response.read())
        except urllib.error.HTTPError as refusal:
            return refusal.code, _json_or_text(refusal.read())


def follow(
    client: Client, identity: str, path: str, *, final: Callable[[Answer], bool], over: Callable[[Answer], bool]
) -> Iterator[Row]:
    """Yield the timeline's rows as they come, until it is over, or was final a while ago. Raises SampleFailed."""
    deadline, final_since, shown = time.monotonic() + FOLLOW_SECONDS, None, 0
    while time.monotonic() < deadline:
        status, answer = client.call("GET", path)
        ended = status == 200 and over(answer)
        rows = timeline(identity, client.api)
        yield from rows[shown:]
        shown = max(shown, len(rows))
        if final(answer) and final_since is None:
            final_since = time.monotonic()
        if ended or (final_since and time.monotonic() - final_since > AFTERMATH_SECONDS):
            return
        time.sleep(0.1)
    raise SampleFailed(f"{identity} is not over after {FOLLOW_SECONDS:g} s: see `throughline show {identity}`")


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


def _row(entry: Answer) -> Row:
    detail = entry.get("detail")
    text = detail if isinstance(detail, str) else json.dumps(detail) if detail else ""
    by = f"by {entry['actor']}" if entry.get("actor") else ""
    return Row(_moment(entry.get("at")), str(entry.get("what") or ""), " ".join(filter(None, (text, by))))


def _moment(at: object) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(str(at))
    except ValueError:
        return None


def _json_or_text(body: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(body)) if body else {}
    except (ValueError, TypeError):
        return {"detail": body.decode(errors="replace")[:500]}


def _amounts(kind: str, excise: str, customs: str, vat: str) -> dict[str, str]:
    return {f"totalExcise{kind}": excise, f"totalCustoms{kind}": customs, f"totalVAT{kind}": vat}


CIGARS: Answer = {
    "simpleDeclarationRequest": {
        "requestCommon": {
            "receiptDate": "2026-11-20T18:05:00Z",
            "requestParameters": [{"paramName": "REGIME", "paramValue": "PNGR"}],
        },
        "requestDetail": {
            "customerReference": {"idType": "passport", "idValue": "SAMPLE0001", "ukResident": True},
            "personalDetails": {"firstName": "Sample", "lastName": "Traveller"},
            "contactDetails": {"emailAddress": "traveller@example.org"},
            "declarationHeader": {
                "messageTypes": {"messageType": "DeclarationCreate"},
                "portOfEntry": "LHR",
                "portOfEntryName": "Heathrow Airport",
                "expectedDateOfArrival": "2026-11-21",
                "timeOfEntry": "09:40",
                "travellingFrom": "NON_EU Only",
                "onwardTravelGBNI": "GB",
                "uccRelief": False,
                "ukVATPaid": False,
                "ukExcisePaid": False,
            },
            "declarationTobacco": {
                **_amounts("Tobacco", "62.30", "12.00", "24.86"),
                "declarationItemTobacco": [
                    {
                        "commodityDescription": "Cigars",
                        "quantity": "40",
                        "weight": "150.00",
                        "goodsValue": "64.40",
                        "valueCurrency": "USD",
                        "originCountry": "US",
                        "exchangeRate": "1.2880",
                        "exchangeRateDate": "2026-11-01",
                        "goodsValueGBP": "50.00",
                        "exciseGBP": "62.30",
                        "customsGBP": "12.00",
                        "vatGBP": "24.86",
                    }
                ],
            },
            "liabilityDetails": {
                "totalExciseGBP": "62.30",
                "totalCustomsGBP": "12.00",
                "totalVATGBP": "24.86",
                "grandTotalGBP": "99.16",
            },
        },
    }
}
