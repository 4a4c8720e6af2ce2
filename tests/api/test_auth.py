"""Keys, scopes and switches: who may do what. Contract 2.1."""

import pytest
from flask import Flask

from app import api, db
from app.api import auth
from app.store import clients
from tests.api.factories import claim


def test_every_route_says_who_may_use_it(app):
    for rule in app.url_map.iter_rules():
        assert auth.access_to(app, rule.endpoint) is not None, rule.rule


def test_only_these_routes_need_no_key(app):
    open_routes = {rule.rule for rule in app.url_map.iter_rules() if auth.access_to(app, rule.endpoint) == auth.OPEN}
    words = ("create", "operations", "redemption-history", "reports")
    nothing_there = {f"/DEV/digital-voucher/{word}" for word in words}
    told = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/<path:name>"}
    assert open_routes == told | nothing_there


def test_an_app_with_a_route_that_says_nothing_does_not_start():
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/leak", view_func=lambda: "all")
    with pytest.raises(LookupError, match="/leak"):
        auth.verify(app)


def test_a_route_that_says_nothing_is_not_served_even_if_it_slips_in(database):
    app = api.create_app()
    app.add_url_rule("/leak", view_func=lambda: "all")
    assert app.test_client().get("/leak").status_code == 403


@pytest.mark.parametrize("scopes", [(), ("claim",), ("claims", "root")])
def test_a_scope_that_there_is_not_cannot_be_declared(scopes):
    with pytest.raises(ValueError, match="no scopes"):
        auth.needs(*scopes)


@pytest.mark.parametrize("sent", [None, "", "nonsense", "ä", " "])
def test_without_a_known_key_nothing_is_told(http, key, sent):
    headers = {} if sent is None else {"x-api-key": sent}
    for answer in (
        http.post("/travel-claims", json=claim(), headers=headers),
        http.get("/travel-claims/01920000-0000-7000-8000-000000000000", headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "ApiKey"
        assert answer.json["type"] == "/problems/unauthorized"


@pytest.mark.parametrize("scopes", [["vouchers"], ["declarations"], ["operator"], []])
def test_filing_needs_scope_claims(http, add_client, scopes):
    answer = http.post("/travel-claims", json=claim(), headers={"x-api-key": add_client("other", scopes=scopes)})
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/forbidden")


def test_a_client_without_a_product_is_not_set_up(http, add_client):
    headers = {"x-api-key": add_client("new", product=None)}
    for answer in (
        http.post("/travel-claims", json=claim(), headers=headers),
        http.get("/travel-claims/1", headers=headers),
    ):
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/client-not-set-up")


def test_the_toggle_switches_the_line_off_for_one_client_while_running(http, post, key, add_client):
    place = post(claim()).headers["Location"]
    with db.transaction() as session:
        clients.set_toggle(session, "check-in", "claims", on=False)
    for answer in (post(claim()), post(data=b"{"), http.get(place, headers={"x-api-key": key})):
        assert (answer.status_code, answer.json["type"]) == (404, "/problems/feature-disabled")
    operator = add_client("operator", scopes=["operator"], product=None)
    assert http.get(place, headers={"x-api-key": operator}).status_code == 200
    assert http.post("/travel-claims", json=claim(), headers={"x-api-key": add_client("b")}).status_code == 202
    with db.transaction() as session:
        clients.set_toggle(session, "check-in", "claims", on=True)
    assert post(claim()).status_code == 200


def test_without_its_url_the_line_is_off_for_all(http, post, key, add_client, set_settings):
    set_settings(TRAVEL_PAY_URL="")
    operator = add_client("operator", scopes=["operator"], product=None)
    for answer in (post(claim()), http.get("/travel-claims/1", headers={"x-api-key": operator})):
        assert (answer.status_code, answer.json["type"]) == (404, "/problems/feature-disabled")


# The store of clients


def test_a_key_is_kept_as_a_digest_only_and_has_256_bits(add_client):
    key = add_client("one")
    assert len(key) >= 43
    with db.transaction() as session:
        found = clients.by_key(session, clients.digest(key))
        assert found is not None
        assert (found.name, found.scopes, found.product) == ("one", {"claims"}, "pci")
        assert clients.by_key(session, key.encode()) is None


def test_a_new_client_has_the_toggles_of_its_scopes_on(add_client):
    add_client("one")
    add_client("two", scopes=["operator", "vouchers"])
    with db.transaction() as session:
        toggles = {client.name: shown for client, shown in clients.every(session)}
    assert toggles == {"one": {"claims": True, "claims-texts": True}, "two": {"vouchers": True}}


def test_two_keys_are_active_at_most(http, add_client):
    keys = [add_client("one")]
    for _ in range(3):
        with db.transaction() as session:
            keys.append(clients.rotate(session, "one"))
    works = [http.get("/travel-claims/1", headers={"x-api-key": key}).status_code == 404 for key in keys]
    assert works == [False, False, True, True]


@pytest.mark.parametrize("scopes", [["claims", "root"], ["Claims"]])
def test_a_client_with_an_unknown_scope_is_not_added(database, scopes):
    with db.transaction() as session, pytest.raises(ValueError, match="no scope"):
        clients.add(session, "one", scopes)


def test_names_are_unique_and_unknown_ones_are_told(add_client):
    add_client("one")
    with pytest.raises(ValueError, match="already"):
        add_client("one")
    with db.transaction() as session:
        for action in (
            lambda: clients.rotate(session, "two"),
            lambda: clients.set_toggle(session, "two", "claims", on=True),
        ):
            with pytest.raises(LookupError, match="two"):
                action()
        with pytest.raises(ValueError, match="toggle"):
            clients.set_toggle(session, "one", "texts", on=True)
        client_id = clients.named(session, "one").id
        assert clients.is_on(session, client_id, "claims")
        assert not clients.is_on(session, client_id, "vouchers")
