"""Which failed submissions a filter means, and which releases are served."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app import db
from app.models.orm import new_id
from app.store import replays, workers
from app.store.replays import Filter
from tests.flows.declared import S, declared, failed, got, known

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty(database: None) -> Iterator[None]:
    return


def at(moment: datetime, **more: Any) -> str:
    """The reference of one that failed at this moment."""
    one = failed(**more)
    with db.transaction() as session:
        session.execute(text("UPDATE workflows SET finished_at = :at WHERE id = :id"), {"at": moment, "id": one})
    return got(one).charge_reference


def meant(**parts: Any) -> list[str]:
    with db.transaction() as session:
        matched, sample = replays.preview(session, Filter(**parts), sample=10)
    assert matched == len(sample)
    return sample


def test_without_any_part_every_failed_submission_is_meant_and_nothing_else() -> None:
    for state in set(S) - {S.FAILED}:
        declared(state)
    late, early = at(NOON), at(NOON - timedelta(days=1))
    assert meant() == [early, late]


@pytest.mark.parametrize(
    "part", [{"release": "2026.11.2"}, {"error": "mdg-413"}, {"client": "other"}], ids=lambda part: next(iter(part))
)
def test_a_part_leaves_out_what_does_not_fit(part: dict[str, str]) -> None:
    at(NOON)
    fits = at(NOON, release="2026.11.2", error="mdg-413", of="other")
    assert meant(**part) == [fits]


def test_the_time_of_the_last_failure_counts_from_inclusive_to_exclusive() -> None:
    at(NOON - timedelta(microseconds=1))
    first = at(NOON)
    last = at(NOON + timedelta(hours=1) - timedelta(microseconds=1))
    at(NOON + timedelta(hours=1))
    assert meant(failed_from=NOON, failed_to=NOON + timedelta(hours=1)) == [first, last]


def test_references_name_submissions() -> None:
    one, _ = at(NOON), at(NOON)
    assert meant(references=[one, "XFPR0000000123"]) == [one]


def test_all_parts_must_hold() -> None:
    fits = at(NOON, error="mdg-413")
    assert meant(error="mdg-413", references=[fits]) == [fits]
    assert meant(error="mdg-422", references=[fits]) == []


def test_a_client_that_there_is_not_means_nothing() -> None:
    at(NOON)
    assert meant(client="nobody") == []


def test_the_sample_is_short_and_the_count_whole() -> None:
    for _ in range(4):
        failed()
    with db.transaction() as session:
        matched, sample = replays.preview(session, Filter(), sample=3)
    assert (matched, len(sample)) == (4, 3)


def served() -> str | None:
    with db.transaction() as session:
        return replays.served(session, dead=40)


def test_the_newest_release_is_served_while_one_of_its_workers_lives() -> None:
    known("2026.11.1")
    known("2026.11.2")
    assert served() is None
    worker = new_id()
    with db.transaction() as session:
        workers.beat(session, worker, host="host", pid=1, release="2026.11.2")
    assert served() == "2026.11.2"
    with db.transaction() as session:
        session.execute(text("UPDATE workers SET beat_at = beat_at - interval '50 s'"))
    assert served() is None


def test_nothing_is_served_before_any_worker_has_started() -> None:
    with db.transaction() as session:
        session.execute(text("TRUNCATE releases"))
    assert served() is None
