"""Where a client wants its outcome told: contract 2.2 and 2.4."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import select

from app import db
from app.models.claim import Claim
from tests.api.conftest import Post
from tests.api.factories import claim

URL = "https://hooks.checkin.example/travel?sig=keep-me"


@pytest.fixture(autouse=True)
def allowed(set_settings: Callable[..., None]) -> None:
    set_settings(TRAVEL_CLAIMS_CALLBACK_HOSTS="hooks.checkin.example,other.example:8443")


def stored(id: str) -> Claim:
    with db.transaction() as session:
        return session.execute(select(Claim).where(Claim.id == UUID(id))).scalar_one()


def test_an_allowed_url_is_taken_kept_sealed_and_not_shown(post: Post) -> None:
    answer = post(claim(callbackUrl=URL))
    assert answer.status_code == 202
    assert answer.json
    assert answer.json["callback"] == {"state": "none", "attempts": 0, "lastStatus": None}
    assert "keep-me" not in answer.text
    assert stored(answer.json["id"]).callback_url == URL
    with db.transaction() as session:
        raw = session.connection().exec_driver_sql("SELECT callback_url FROM claims").scalar_one()
    assert b"keep-me" not in bytes(raw)


@pytest.mark.parametrize("body", [claim(), claim(callbackUrl=None)])
def test_without_a_url_there_is_no_callback(post: Post, body: dict[str, object]) -> None:
    answer = post(body)
    assert answer.json
    assert (answer.status_code, answer.json["callback"]) == (202, None)
    assert stored(answer.json["id"]).callback_url is None


def test_a_port_of_the_list_is_taken_and_a_repeat_changes_nothing(post: Post) -> None:
    first = post(claim(callbackUrl="https://other.example:8443/a"))
    again = post(claim(callbackUrl=URL))
    assert first.json
    assert again.json
    assert (first.status_code, again.status_code, again.json["id"]) == (202, 200, first.json["id"])
    assert stored(first.json["id"]).callback_url == "https://other.example:8443/a"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://hooks.checkin.example/travel", "not-https"),
        ("https://foreign.example/travel", "callback-url-not-allowed"),
        ("https://hooks.checkin.example:8443/", "callback-url-not-allowed"),
        ("https://other.example/", "callback-url-not-allowed"),
        ("https://user@hooks.checkin.example/", "callback-url-not-allowed"),
        ("https://hooks.checkin.example/#part", "callback-url-not-allowed"),
        ("https://hooks.checkin.example/" + "x" * 2019, "too-long"),
        (7, "type"),
    ],
)
def test_any_other_is_refused_by_its_code_and_stores_nothing(post: Post, url: object, code: str) -> None:
    answer = post(claim(callbackUrl=url))
    assert answer.status_code == 422
    assert answer.json
    (fault,) = answer.json["errors"]
    assert (fault["pointer"], fault["code"]) == ("/callbackUrl", code)
    with db.transaction() as session:
        assert session.scalar(select(Claim.id)) is None


def test_the_longest_url_is_taken(post: Post) -> None:
    url = "https://hooks.checkin.example/"
    assert post(claim(callbackUrl=url + "x" * (2048 - len(url)))).status_code == 202


def test_a_client_without_a_webhook_secret_may_ask_for_callbacks(post: Post) -> None:
    """The contract names no such fault; the secret may be made until the last try, a day after the outcome."""
    assert post(claim(callbackUrl=URL)).status_code == 202
