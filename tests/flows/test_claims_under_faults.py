"""Three hundred claims of both products while every fifth call goes wrong: all end, nothing twice, all adds up."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import redis
import structlog
from prometheus_client import REGISTRY
from sqlalchemy import select, text

from app import api, config, db, states
from app.flows import claim_requests, claim_steps, dispatch, engine
from app.models.claim import Claim
from app.models.notification import Notification
from app.models.workflow import Workflow
from app.store import clients
from sandbox import Sandbox

PRODUCTS = ("pci", "oh")
EACH = 150
OUTCOMES = ("success", "duplicate", "error", "timeout", "claim_failure", "cancelled")
FAULTS: dict[str, dict[str, Any]] = {
    "status": {"status": 500, "probability": 0.046},
    "drop-before": {"probability": 0.03},
    "drop-after": {"probability": 0.04},
    "malformed-json": {"probability": 0.03},
    "rate-limit": {"seconds": 1, "probability": 0.004},
    "refuse-401": {"probability": 0.03},
    "delay": {"seconds": 0.05, "probability": 0.02},
}
SHIFT = text("""
    UPDATE workflows SET
        deadline_at = deadline_at - (due_at - clock_timestamp()),
        intent = CASE WHEN intent ? 'at' THEN jsonb_set(intent, '{at}',
            to_jsonb((intent ->> 'at')::timestamptz - (due_at - clock_timestamp()))) ELSE intent END,
        due_at = clock_timestamp(), wake_at = clock_timestamp()
    WHERE due_at > clock_timestamp() AND worker IS NULL
""")


@pytest.fixture
def quiet() -> Iterator[None]:
    """Thousands of records take longer to print than the claims take."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def icn(product: str, number: int) -> str:
    """The product can be told from the veteran: the ledger then adds up per product."""
    return f"{PRODUCTS.index(product) + 1}{number:09}V{number:06}"


def post_all() -> None:
    http = api.create_app().test_client()
    for product in PRODUCTS:
        with db.transaction() as session:
            key = clients.add(session, product, ["claims"], product)
        for number in range(EACH):
            body = {
                "icn": icn(product, number),
                "appointment": {"dateTime": "2026-03-02T10:00:00", "stationNumber": "983GC"},
                "expenses": [{"type": "mileage"}, {"type": "parking", "costRequested": 12.5}][: 1 + number % 2],
                "phone": f"+1202555{number:04}",
            }
            headers = {"x-api-key": key, "X-Correlation-ID": f"{product}-{number}"}
            assert http.post("/travel-claims", json=body, headers=headers).status_code == 202


def unfinished() -> list[UUID]:
    with db.transaction() as session:
        return list(session.scalars(select(Workflow.id).where(Workflow.due_at.is_not(None))))


def run_to_the_end() -> None:
    """Run all that is unfinished, round by round; what a row waits for comes at once."""
    broker = redis.Redis.from_url(config.settings().redis_url)
    with ThreadPoolExecutor(12) as pool:
        for _ in range(100):
            left = unfinished()
            if not left:
                return
            with db.transaction() as session:
                session.execute(SHIFT)
            for key in broker.scan_iter("throughline:[cb][lr]*"):  # closed limiters and open breakers
                broker.delete(key)
            list(pool.map(engine.run, left))
    raise AssertionError(f"{len(unfinished())} workflows are still under way")


def rows() -> tuple[list[Any], list[Any]]:
    """Claims and texts."""
    with db.transaction() as session:
        found = session.scalars(select(Claim)).all(), session.scalars(select(Notification)).all()
        return list(found[0]), list(found[1])


def at_the_upstream(ledger: dict[str, Any], product: str) -> dict[str, int]:
    """How many effects stand there for the veterans of one product."""
    first = icn(product, 0)[0]
    found = {
        kind: sum(one["icn"][0] == first for one in ledger[kind]) for kind in ("claims", "expenses", "submissions")
    }
    return found | {"texts": sum(one["template"].startswith(f"{product} ") for one in ledger["texts"])}


def counted(product: str) -> dict[str, float]:
    """What the metrics say of the same."""

    def made(step: str) -> float:
        done = sample("claims_step_total", product=product, step=step, outcome="ok")
        return done + sample("claims_in_doubt_total", product=product, step=step, result="adopted")

    matched = sample("claims_in_doubt_total", product=product, step="create_claim", result="adopted")
    told = ("success", "duplicate", "error", "failure", "timeout")
    return {
        "claims": made("create_claim"),
        "expenses": made("add_expenses") - matched,  # matching those of an adopted claim went well too
        "submissions": made("submit_claim"),
        "texts": sum(sample("claims_notify_total", product=product, template=one, result="success") for one in told),
        "accepted": sample("claims_accepted_total", product=product),
        **{one: sample("claims_outcome_total", product=product, outcome=one) for one in OUTCOMES},
    }


def test_of_300_claims_under_faults_every_effect_stands_once_and_everything_adds_up(
    *, quick: None, quiet: None, upstreams: Sandbox, set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_settings(
        TRAVEL_PAY_READ_TIMEOUT=20, TRAVEL_PAY_AUTH_READ_TIMEOUT=20, TRAVEL_PAY_CONNECT_TIMEOUT=5, NOTIFY_TIMEOUT=20
    )
    monkeypatch.setattr(dispatch, "enqueue", lambda workflow_id: None)  # this test alone carries them
    monkeypatch.setattr(claim_steps, "_READ_AGAIN_SECONDS", 0.01)
    for seed, (fault, more) in enumerate(FAULTS.items()):
        upstreams.fault("*", fault, seed=seed, **more)
    before = {product: counted(product) for product in PRODUCTS}
    post_all()
    run_to_the_end()

    found, texts = rows()
    assert all(states.CLAIM.is_finished(claim.state) for claim in found)
    assert Counter(one.claim_id for one in texts) == Counter(claim.id for claim in found)
    assert sum(claim.state == "submitted" for claim in found) > 2 * EACH * 0.9
    assert sum(call["fault"] is not None for call in upstreams.calls()) > 300
    nothing_stands_twice(upstreams)

    upstreams.clear_faults()
    failed = [claim for claim in found if claim.state == "failed"]
    for claim in failed:
        assert claim_requests.retry(claim.id, notify=False, actor="operator") == "done"
    run_to_the_end()

    found, texts = rows()
    assert {claim.state for claim in found} == {"submitted"}
    assert Counter(one.claim_id for one in texts) == Counter(claim.id for claim in found)
    nothing_stands_twice(upstreams)
    for product in PRODUCTS:
        own = [claim for claim in found if claim.product == product]
        counts = {name: value - before[product][name] for name, value in counted(product).items()}
        standing = at_the_upstream(upstreams.ledger(), product)
        assert {name: counts[name] for name in standing} == standing
        assert standing["submissions"] == counts["accepted"] == counts["success"] == len(own) == EACH
        assert standing["texts"] == sum(one.product == product and one.state == "sent" for one in texts)
        again = sum(claim.product == product for claim in failed)
        assert sum(counts[name] for name in OUTCOMES) == EACH + again


def nothing_stands_twice(upstreams: Sandbox) -> None:
    """One claim, one submission and one text of each visit, and each expense as often as it was asked for."""
    kinds = ("appointments", "claims", "expenses", "submissions", "texts")
    doubled = upstreams.ledger()["duplicates"]
    assert {kind: doubled[kind] for kind in kinds} == dict.fromkeys(kinds, 0)
