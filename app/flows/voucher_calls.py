"""How a verb of a voucher operation speaks with i-Movo: the client, its refusals, and what a pair of codes says."""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import TypeVar

from app import config, errors, vouchers
from app.db import Session
from app.flows.flow import Policy
from app.models.voucher import Voucher, VoucherOperation
from app.steps import Ended, Failure, Outcome, Rejected, Retry, Work
from app.store import vouchers as records
from app.upstreams.imovo import Imovo
from app.upstreams.imovo_answers import Pair
from app.upstreams.outcomes import Failed

T = TypeVar("T")
Verb = Callable[[VoucherOperation, Work, Imovo], Outcome]
Learned = Callable[[Session, Voucher], None]
_TO_BEGIN = 10  # seconds of a lease, above one call: waiting for the limiter, and the intent


class Refused(Exception):
    """i-Movo answered with a definite no."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.code, self.failure = failure.code, failure
        self.texts = failure.message


def policy() -> Policy:
    """Contract 3.3. Attempts end with the deadline alone; a lost call is looked for at once."""
    settings = config.settings()
    line, upstream = settings.vouchers, settings.imovo or config.Imovo.model_construct()
    return Policy(
        attempts=None,
        backoff=line.backoff_first_seconds,
        factor=2,
        backoff_max=line.backoff_max_seconds,
        find_after=0,
        settle=line.settle_seconds,
        lease=upstream.connect_timeout + upstream.timeout + _TO_BEGIN,
    )


def run(verb: Verb, operation: VoucherOperation, work: Work) -> Outcome:
    """Run a verb with its client. What i-Movo asks us to wait is the least that is waited."""
    settings = config.settings()
    if settings.imovo is None:
        raise errors.BadSettings("IMOVO_URL is not set")
    imovo = Imovo(settings.imovo, work=work)
    try:
        outcome = verb(operation, work, imovo)
    except Ended as ended:
        outcome = ended.outcome
    if isinstance(outcome, Retry) and outcome.after is not None and not outcome.free:
        return replace(outcome, after=max(outcome.after, policy().wait(operation.attempt + 1)))
    return outcome


def ask(call: Callable[[], T]) -> T:
    """The answer of a call. Raises Refused for a definite no; any other end of it ends the verb."""
    try:
        return call()
    except Failed as failed:
        if isinstance(failed.outcome, Rejected):
            raise Refused(failed.outcome.failure) from failed
        raise


def again(refused: Refused) -> Retry:
    """A read that was refused tells nothing: look again later."""
    return Retry(failure=refused.failure)


def lost_as(operation: VoucherOperation) -> Failure | None:
    """What is known of the answer to the call in doubt, where there was one."""
    kept = (operation.intent or {}).get("failure")
    return Failure(**kept) if kept else None


# What a pair says


def codes_of(pair: Pair | None) -> dict[str, str]:
    """The live codes by kind."""
    every = {"card": pair.card, "letter": pair.letter} if pair else {}
    return {kind: code for kind, code in every.items() if code is not None}


def missing(pair: Pair | None, kinds: Collection[str] = vouchers.KINDS) -> set[str]:
    """Those of the kinds that are not live."""
    return set(kinds) - set(codes_of(pair))


# What our record learns from it


def learn(operation: VoucherOperation, *learned: Learned) -> None:
    """To be written to the subscription's record with whatever the holder of the operation writes next."""
    operation.learned = (*operation.learned, *learned)


def adopt(operation: VoucherOperation, pair: Pair, *, made: bool = False) -> None:
    """Our record takes the live codes. `made`: this operation made them."""
    learn(
        operation,
        partial(
            records.adopt,
            scheme=pair.scheme,
            codes=codes_of(pair),
            client_id=operation.client_id,
            operation_id=operation.id if made else None,
        ),
    )


def state_today(operation: VoucherOperation) -> str | None:
    """Our record's state as the verb found it."""
    return records.state_on(operation.voucher, operation.suspensions, operation.begun_on)


def is_live(operation: VoucherOperation) -> bool:
    return state_today(operation) in records.LIVE
