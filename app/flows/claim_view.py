"""A travel claim as its owner sees it at this moment. Source: travel-claims contract, 2.4."""

from typing import Any

from app import states
from app.flows import claim_members
from app.flows.claims import FLOW
from app.store.claims import Shown


def render(shown: Shown) -> dict[str, Any]:
    """The claim as JSON shows it, with the step in progress."""
    state = shown.claim.state
    step = None if FLOW.is_undoing(state) else FLOW.step_in(state)
    return claim_members.render(shown, step=step.name if step else None)


def is_final(state: str) -> bool:
    """Whether a claim in this state has come to its end."""
    return states.CLAIM.is_finished(state)
