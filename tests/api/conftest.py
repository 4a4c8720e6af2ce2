"""The API over a real Postgres; what it hands to the engine is noted, and no worker runs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import api, db
from app.flows import dispatch
from app.store import clients

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
