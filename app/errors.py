"""Every error that Throughline raises itself.

Throughline
├── BadSettings          the environment is missing something or holds nonsense; the process does not start
├── BrokerAway           Redis did not take a message; the sweep delivers instead
├── IllegalMove          a move that the state table does not allow: a bug
├── Interrupted          a step must stop now, without an outcome of its own
│   ├── LeaseLost        somebody else may write this workflow now
│   ├── StopAsked        a cancel or withdrawal was asked for before the call was sent
│   └── NotSent          the call was not sent: too late, limiter, breaker; nothing happened upstream
└── Refused              an HTTP request is answered with a problem
"""

from collections.abc import Mapping, Sequence


class Throughline(Exception):
    """The root of the tree."""


class BadSettings(Throughline):
    """The environment is not usable; the text names every variable at fault."""


class BrokerAway(Throughline):
    """The broker did not take a message in time."""


class IllegalMove(Throughline):
    """A move that is not in the table of `app.states`."""


class Interrupted(Throughline):
    """A step stops without an outcome of its own; only the engine catches this."""


class LeaseLost(Interrupted):
    """The fence has moved on: this worker's writes hit nothing any more."""


class StopAsked(Interrupted):
    """A cancel or withdrawal was asked for; no further call with effects is made."""


class NotSent(Interrupted):
    """A call that was certainly not sent. `after` is the number of seconds until it is worth another try.

    `reason`: `breaker`, `limiter` (our own), `rate-limited` (the upstream said so), or why it was too late.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Refused(Throughline):
    """An HTTP request that is answered with `application/problem+json`.

    `kind` is the last segment of the problem's type; `faults` are `{pointer, code, detail}` objects.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        faults: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.faults = list(faults)
        self.headers = dict(headers or {})
