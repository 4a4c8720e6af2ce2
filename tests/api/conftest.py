"""The API over a real Postgres; what it hands to the engine is noted, and no worker runs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import api, db
from app.flows import dispatch, engine
from app.store import clients
from app.upstreams import imovo as upstream
from local import services
from sandbox import Sandbox
from tests.api.declaration_factories import Passengers
from tests.api.factories import claim, put_into
from tests.api.texts import NOTIFY_ID, SECOND, TOKEN

Post = Callable[..., TestResponse]


@pytest.fixture
def app(database: None) -> Flask:
    return api.create_app()


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(autouse=True)
def dispatched(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The workflows handed to the engine."""
    seen: list[UUID] = []
    monkeypatch.setattr(dispatch, "enqueue", seen.append)
    return seen


@pytest.fixture
def add_client(database: None) -> Callable[..., str]:
    """`add_client("pci", scopes=["claims"], product="pci")` returns the key."""

    def add(name: str, *, scopes: list[str] | None = None, product: str | None = "pci") -> str:
        with db.transaction() as session:
            return clients.add(session, name, scopes if scopes is not None else ["claims"], product)

    return add


@pytest.fixture
def key(add_client: Callable[..., str]) -> str:
    return add_client("check-in")


@pytest.fixture
def post(http: FlaskClient, key: str) -> Post:
    """POST /travel-claims with the client's key; `headers` are added, `data` replaces the JSON."""

    def send(json: Any = None, *, headers: dict[str, str] | None = None, **rest: Any) -> TestResponse:
        if json is not None:
            rest["json"] = json
        return http.post("/travel-claims", headers={"x-api-key": key, **(headers or {})}, **rest)

    return send


# Receipts


@pytest.fixture
def tokens(set_settings: Callable[..., None]) -> None:
    """Two tokens of Notify, as during a rotation."""
    set_settings(NOTIFY_CALLBACK_TOKEN=f"{TOKEN}, {SECOND}")


@pytest.fixture
def ended(post: Post) -> str:
    """The id of a claim that is final, so that a text tells of it."""
    made = str(post(claim(), headers={"X-Correlation-ID": "of-the-claim"}).json["id"])
    put_into(made, "failed")
    return made


@pytest.fixture
def send(http: FlaskClient, tokens: None) -> Post:
    """POST a receipt with the token; `...` as a value takes a member away."""

    def post(status: Any = "delivered", *, token: str = TOKEN, **members: Any) -> TestResponse:
        body = {"id": NOTIFY_ID, "reference": None, "status": status, "notification_type": "sms", **members}
        body = {name: value for name, value in body.items() if value is not ...}
        return http.post("/callbacks/notify", json=body, headers={"Authorization": f"Bearer {token}"})

    return post


# Declarations


@pytest.fixture
def passengers(http: FlaskClient, add_client: Callable[..., str]) -> Passengers:
    """A client of passenger declarations."""
    return Passengers(http, add_client("passengers", scopes=["declarations"], product=None))


# Digital vouchers


@pytest.fixture
def salesforce(add_client: Callable[..., str]) -> str:
    """The key of a client of the vouchers' line."""
    return add_client("salesforce", scopes=["vouchers"], product=None)


@pytest.fixture
def ask(http: FlaskClient, salesforce: str) -> Post:
    """`ask("PUT", "/cancel", {...}, prefer="wait=5")`: a request under the line's prefix, with the client's key."""

    def send(
        method: str, path: str, json: Any = None, *, key: str = salesforce, prefer: str = "", **rest: Any
    ) -> TestResponse:
        headers = {"x-api-key": key, **({"Prefer": prefer} if prefer else {}), **rest.pop("headers", {})}
        body = {} if json is None else {"json": json}
        return http.open(f"/DEV/digital-voucher{path}", method=method, headers=headers, **body, **rest)

    return send


@pytest.fixture
def imovo(upstreams: Sandbox, redis_server: services.Redis) -> Sandbox:
    """An i-Movo with nothing in it, that nobody holds back from."""
    redis.Redis.from_url(redis_server.url).flushall()
    upstream._upstreams.clear()
    return upstreams


@pytest.fixture
def at_work(imovo: Sandbox, dispatched: list[UUID], monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A worker carries out at once, before the request waits, what is handed to the engine."""

    def enqueue(id: UUID) -> None:
        dispatched.append(id)
        engine.run(id)

    monkeypatch.setattr(dispatch, "enqueue", enqueue)
    return imovo
