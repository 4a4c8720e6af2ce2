"""MDG, the customs back end: takes paid declarations (declarations contract, section 4 and 5.2).

Nothing that MDG says about a declaration is logged or shown: it may repeat what the declaration says.
"""

import email.utils
import functools
import random
import ssl
import threading
from datetime import datetime

from app import clock, config, errors, logs, metrics, steps
from app.upstreams import addresses, answers, breaker, causes, http, outcomes, shared, wire
from app.upstreams.answers import Answer

_PATHS = {"des": "/declarations/passengerdeclaration/v1", "cma": "/passengers/declarations/simpledeclaration/v1"}
_REFUSED = frozenset({400, 413, 422})
_NOT_THE_PAYLOAD = frozenset({401, 403, 404, 405, 406, 407, 410, 411, 414, 415, 421, 426, 431, 501, 505})
_LONGEST_OPEN = 300.0
_MOST_READ, _MOST_KEPT = 64 * 1024, 4 * 1024
_PAUSE = 30.0
_BEYOND = 5.0  # of a call: waiting for the limiter, and the intent
_TURN, _LAST_TURN, _JITTER = 0.1, 50, 0.04
_ONE_SWEEP = 1.5  # whoever has had attempts is due after the sweep that takes up those who had none
_log = logs.get(__name__)


class Mdg:
    """MDG for one submission. Cheap to make, for one step; not for several threads.

    `attempts`: how many the submission has had; those with the fewest are the first to probe an open breaker. `by`:
    the way to MDG, else that of this process.
    """

    def __init__(
        self, settings: config.Mdg, *, work: steps.Work, attempts: int, by: http.Upstream | None = None
    ) -> None:
        self._settings = settings
        self._work = work
        self._attempts = attempts
        self._upstream = by or upstream(settings)

    def submit(self, body: bytes, charge_reference: str) -> None:
        """Hand in a declaration, exactly these bytes; returns when MDG took it (any 2xx).

        Raises Failed: Rejected holds MDG's texts in `values["faults"]`, a list of strings to be kept encrypted. Raises
        NotSent, and what `work.intend` raises.
        """
        try:
            self._upstream.send(self._work, self._request(body), functools.partial(_taken, charge_reference))
        except errors.NotSent as stop:
            if stop.reason != "breaker":
                raise
            turn = _ONE_SWEEP + _TURN * min(self._attempts, _LAST_TURN) if self._attempts else 0.0
            raise errors.NotSent("breaker", after=stop.after + turn + random.uniform(0, _JITTER)) from stop
        except outcomes.Failed as failed:
            _alarm(failed, charge_reference)
            raise
        _calm()

    def _request(self, body: bytes) -> http.Request:
        settings = self._settings
        return http.Request(
            call="submit",
            method="POST",
            template=settings.path or _PATHS[settings.variant],
            headers={
                "Authorization": f"Bearer {settings.bearer_token.get_secret_value()}",
                "Accept": "application/json",
                "Content-Type": "application/json",
                "Date": date_of(clock.now(), settings.variant),
                "X-Forwarded-Host": "MDTP",
                "User-Agent": "bc-passengers-declarations",
            },
            body=body,
            effect=0,
            connect=settings.connect_timeout,
            read=settings.read_timeout,
            whole=settings.total_timeout,
        )


def date_of(moment: datetime, variant: str) -> str:
    """The `Date` header of an attempt at this UTC moment, in the form of the variant (contract 4)."""
    if variant == "cma":
        return email.utils.format_datetime(moment, usegmt=True)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


_upstreams: dict[config.Mdg, http.Upstream] = {}
_making = threading.Lock()


def upstream(settings: config.Mdg) -> http.Upstream:
    """MDG as this process sees it, in step with the other processes through Redis."""
    with _making:
        if settings not in _upstreams:
            _upstreams[settings] = make(settings, shared.of_process())
        return _upstreams[settings]


def make(settings: config.Mdg, common: shared.Shared) -> http.Upstream:
    """Connections, breaker and limits of these settings."""
    longest_call = settings.total_timeout + _BEYOND
    rule = breaker.Rule(
        failures=settings.breaker_failures,
        waits=breaker.doubling(settings.breaker_open, _LONGEST_OPEN),
        probe=longest_call,
        spread=0.0,
    )
    return http.Upstream(
        "mdg",
        settings.url,
        pool=settings.max_in_flight,
        shared=common,
        reading=_READING,
        options=http.Options(
            per_second=settings.rate_per_second,
            in_flight=settings.max_in_flight,
            lease=longest_call,
            rule=rule,
            breaker_shown=metrics.mdg_breaker_state.set,
            observe=_observe,
            dial=functools.partial(addresses.connect, private=True),
            authorities=settings.ca_bundle or _of_the_system(),
        ),
    )


def _of_the_system() -> str:
    """The file or folder of the system's certificate authorities; nothing where it has none."""
    found = ssl.get_default_verify_paths()
    return found.cafile or found.capath or ""


def _taken(charge_reference: str, answer: Answer) -> None:
    if answer.status != 204:
        metrics.declarations_mdg_odd_success.labels(answer.status).inc()
        _log.warning("mdg.odd_success", chargeReference=charge_reference, status=answer.status)


def _of_status(answer: Answer, message: str, safe: bool) -> steps.Outcome:  # noqa: ARG001 - a reading's signature
    """Contract 5.2, the answers that are no success."""
    status = answer.status
    what = _failure(f"mdg-{status}", message, retryable=status not in _REFUSED)
    if status in _REFUSED:
        return steps.Rejected(failure=what, values={"faults": faults(answer)})
    if status == 429:
        return steps.Retry(failure=what, free=True, after=_pause(answer))
    if status in _NOT_THE_PAYLOAD or status == 409 or 300 <= status < 400:
        return steps.Retry(failure=what)
    return steps.Unknown(failure=what)


def _said(answer: Answer) -> tuple[str, str]:
    """A sentence of our own."""
    verb = "refused the declaration" if answer.status in _REFUSED else "did not take the declaration"
    return f"MDG {verb} ({answer.status}).", ""


def _lost(flight: wire.Flight, safe: bool) -> outcomes.Failed:  # noqa: ARG001 - a reading's signature
    code = f"mdg-{causes.of(flight)}"
    what = _failure(code, f"MDG gave no answer ({code}).")
    return outcomes.Failed(outcomes.unless(not flight.sent, what), message=what.message)


def _failure(code: str, message: str, *, retryable: bool = True) -> steps.Failure:
    return outcomes.failure(code, 502, message, retryable=retryable)


def _pause(answer: Answer) -> float:
    """Seconds for which all calls rest: after a 429, and a 503 that says for how long."""
    if answer.status == 429 or (answer.status == 503 and "Retry-After" in answer.headers):
        told = answers.retry_after(answer.headers)
        return _PAUSE if told is None else told
    return 0.0


def _is_failure(failed: outcomes.Failed) -> bool:
    """For the breaker: every end but a definite no."""
    return not isinstance(failed.outcome, steps.Rejected)


_READING = outcomes.Reading(
    of_status=_of_status,
    said=_said,
    lost=_lost,
    pause=_pause,
    in_trouble=_is_failure,
    most=_MOST_READ,
    part=True,
)


def faults(answer: Answer) -> list[str]:
    """MDG's texts of a refusal, 4 KiB of them: `detail` of the CMA shape, else the body as one text."""
    texts = _detail(answer.json)
    kept, room = [], _MOST_KEPT
    for text in [answer.text.strip()] if texts is None else texts:
        cut = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
        room -= len(cut.encode())
        if cut:
            kept.append(cut)
    return kept


def _detail(document: object) -> list[str] | None:
    for key in ("errorDetail", "sourceFaultDetail", "detail"):
        document = document.get(key) if isinstance(document, dict) else None
    return [text for text in document if isinstance(text, str)] if isinstance(document, list) else None


def _observe(call: steps.Call) -> None:
    metrics.mdg_request_seconds.labels(call.status or "none").observe(call.milliseconds / 1000)


def _alarm(failed: outcomes.Failed, charge_reference: str) -> None:
    """Raise the alarm that an answer calls for; a definite no ends them all."""
    if isinstance(failed.outcome, steps.Rejected):
        _calm()
        return
    kind = _alarm_of(failed)
    if kind:
        metrics.mdg_alarm.labels(kind).set(1)
        fields = {"chargeReference": charge_reference, "status": failed.status, "error": failed.reason}
        _log.error("mdg.alarm", alarm=kind, **fields)


def _alarm_of(failed: outcomes.Failed) -> str:
    if failed.status == 409:
        return "conflict"
    redirect = failed.status is not None and 300 <= failed.status < 400
    if redirect or failed.status in _NOT_THE_PAYLOAD or failed.reason == "mdg-tls":
        return "configuration"
    return ""


def _calm() -> None:
    for kind in ("configuration", "conflict"):
        metrics.mdg_alarm.labels(kind).set(0)
