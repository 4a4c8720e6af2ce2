"""How a verb of a travel claim comes by its Travel Pay client."""

import functools
from collections.abc import Callable
from dataclasses import replace

from app import config, errors
from app.models.claim import Claim
from app.steps import Ended, Outcome, Work
from app.upstreams import travel_pay_answers as answers
from app.upstreams.travel_pay import TravelPay
from app.upstreams.travel_pay_access import Gateway, gateway

Spoken = Callable[[Claim, Work, TravelPay], Outcome]


def settings() -> config.TravelPay:
    """The line's settings; only asked for while the line is on."""
    found = config.settings().travel_pay
    if found is None:
        raise errors.BadSettings("TRAVEL_PAY_URL is not set")
    return found


def gateway_of(claim: Claim) -> Gateway:
    """Through which this claim speaks: the process's own gateway, or the one its caller brought along."""
    through: Gateway = claim.through or gateway(settings())
    return through


def speaks(verb: Spoken) -> Callable[[Claim, Work], Outcome]:
    """Give a verb its Travel Pay client, and store renewed tokens with its outcome."""

    @functools.wraps(verb)
    def run(claim: Claim, work: Work) -> Outcome:
        client = TravelPay(
            gateway_of(claim),
            product=claim.product,
            icn=str(claim.icn),
            work=work,
            btsss_token=claim.btsss_token,
            veis_fingerprint=claim.veis_fingerprint,
        )
        try:
            outcome = verb(claim, work, client)
        except Ended as ended:
            outcome = ended.outcome
        return replace(outcome, values={**client.changed, **outcome.values})

    return run


def noting_a_lost_claim(claim: Claim, ended: Ended) -> Ended:
    """The same ending; where Travel Pay says that it does not know the claim, the row notes that it is gone."""
    if ended.status != 404 or not answers.is_claim_not_found(ended):
        return ended
    values = {**ended.outcome.values, "undo": {**claim.undo, "claim": "gone"}}
    return Ended(replace(ended.outcome, values=values), status=404, message=ended.message, code=ended.code)
