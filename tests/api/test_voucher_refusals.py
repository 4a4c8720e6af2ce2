"""What bad input gets: contract 2.1 and section 8. Nothing of it makes an operation or calls i-Movo."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app import api, config, db, errors, vouchers
from app.models.workflow import Workflow
from app.store import vouchers as records

SUB = "a2F5I000003KvWxUAK"
FLAGS = {"replaceCard": True, "replaceLetter": False}
DECODE = "Failed to decode request body: "
PLAN = {"ratePlanName": "Sunday"}
TOMORROW = {"startDate": "2098-01-01", "endDateExclusive": "2098-01-02"}
WORDS = ["create", "replace", "cancel", "suspend", "redemption-history", "operations", "reports"]


@pytest.fixture(autouse=True)
def nothing_happened(ask, imovo):
    yield
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Workflow)) == 0
    assert imovo.calls(upstream="imovo") == []


def said(answer, status: int, text: str) -> None:
    assert (answer.status_code, answer.json) == (status, {"message": text})
    assert answer.content_type == "application/json"


ROUTES = [
    ("GET", f"/{SUB}"),
    ("PUT", f"/create/{SUB}"),
    ("PUT", f"/{SUB}"),
    ("POST", "/replace"),
    ("DELETE", f"/{SUB}"),
    ("POST", "/cancel"),
    ("PUT", "/suspend"),
    ("GET", f"/redemption-history/{SUB}"),
]
WITH_BODY = [route for route in ROUTES if route[0] in {"PUT", "POST"}]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_keys_scopes_and_toggles_on_the_old_routes(ask, add_client, set_settings, method, path):
    nobody = ask(method, path, {}, key="nobody's")
    said(nobody, 401, "Unauthorized")
    assert nobody.headers["WWW-Authenticate"] == "ApiKey"
    said(ask(method, path, {}, key=add_client("pci")), 403, "Forbidden")
    said(ask(method, path, headers={"X-Correlation-ID": "?"}), 400, "The header X-Correlation-ID is not usable.")
    set_settings(IMOVO_URL="")
    said(ask(method, path, {}), 404, "Digital vouchers are switched off")


@pytest.mark.parametrize("path", [f"/operations/{SUB}", f"/{SUB}/operations"])
def test_the_new_routes_answer_problems(ask, add_client, path):
    for answer, status, kind in (
        (ask("GET", path, key=""), 401, "unauthorized"),
        (ask("GET", path, key=add_client("pci")), 403, "forbidden"),
        (ask("GET", path), 404, "not-found"),
        (ask("POST", path), 405, "method-not-allowed"),
    ):
        assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{kind}")
        assert answer.content_type == "application/problem+json"


def test_a_bad_query_of_the_list_is_a_problem(ask):
    for query in ("limit=0", "limit=101", "limit=x", "limit=", "cursor=x"):
        answer = ask("GET", f"/{SUB}/operations?{query}")
        assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "?" + query.partition("=")[0])


def test_an_unknown_path_is_not_found(ask):
    for path in ("", "/", f"/{SUB}/", f"/{SUB}/x", f"//{SUB}", f"/create/{SUB}/", "/operations/x/y"):
        said(ask("GET", path, key=""), 404, "Not found")
    for path in ("/redemption-history", "/operations", "/reports"):
        said(ask("GET", path, key=""), 404, "Not found")
    said(ask("PUT", "/create", key=""), 404, "Not found")


def test_another_stage_is_not_found(http, salesforce):
    assert http.get(f"/PROD/digital-voucher/{SUB}", headers={"x-api-key": salesforce}).status_code == 404


def test_the_stage_is_the_one_that_is_set(salesforce, set_settings):
    set_settings(STAGE="CODE")
    http = api.create_app().test_client()
    assert http.get(f"/CODE/digital-voucher/{SUB}?refresh=x", headers={"x-api-key": salesforce}).status_code == 422
    assert http.get(f"/DEV/digital-voucher/{SUB}", headers={"x-api-key": salesforce}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/cancel", {"POST"}),
        ("GET", "/replace", {"POST"}),
        ("DELETE", "/suspend", {"PUT"}),
        ("PATCH", "/cancel", {"POST"}),
        ("POST", f"/{SUB}", {"GET", "HEAD", "PUT", "DELETE"}),
        ("GET", f"/create/{SUB}", {"PUT"}),
        ("PUT", f"/redemption-history/{SUB}", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(ask, method, path, allowed):
    answer = ask(method, path, {}, key="")
    said(answer, 405, "Method not allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("word", WORDS)
def test_reserved_words_are_no_subscriptions_in_any_letter_case(ask, word):
    text = " is a reserved word and cannot be a subscription id"
    shouted = word.upper()
    said(ask("GET", f"/{shouted}"), 422, shouted + text)
    said(ask("PUT", f"/{shouted}", PLAN), 422, shouted + text)
    said(ask("PUT", f"/create/{word}", PLAN), 422, word + text)
    said(ask("DELETE", f"/{shouted}"), 422, shouted + text)
    said(ask("GET", f"/redemption-history/{word}"), 422, word + text)
    said(ask("POST", "/cancel", {"subscriptionId": word}), 422, word + text)
    said(ask("POST", "/replace", {"subscriptionId": word, **FLAGS}), 422, word + text)
    said(ask("PUT", "/suspend", {"subscriptionId": word, **TOMORROW}), 422, word + text)
    assert ask("GET", f"/{shouted}/operations").status_code == 422


@pytest.mark.parametrize("word", ["redemption-history", "operations", "reports"])
def test_a_word_is_refused_where_its_method_is_another_one(ask, word):
    said(ask("PUT", f"/{word}", PLAN), 422, vouchers.reserved(word))


def test_an_id_must_have_the_form_of_one(ask):
    for subject in ("-x", "_x", "x" * 65, "a b", "ä", "x.y"):
        assert ask("GET", f"/{subject}").status_code == 422
        assert ask("POST", "/cancel", {"subscriptionId": subject}).status_code == 422


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_what_is_no_json_object_cannot_be_decoded(ask, method, path):
    for data in (b"", b"{", b'{"a": 1, "a": 2}', b"[]", b'"text"', b"null"):
        answer = ask(method, path, data=data)
        assert answer.status_code == 400
        fault = "the body must be a JSON object" if data[-1:] in b']"l' and data else "The body cannot be read as JSON"
        assert answer.json["message"].startswith(DECODE + fault)
        assert list(answer.json) == ["message"]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_a_long_body_and_another_type(ask, method, path):
    assert ask(method, path, data=b" " * (100 * 1024 + 1)).status_code == 413
    typed = ask(method, path, data=b"<a/>", headers={"Content-Type": "application/xml"})
    assert (typed.status_code, list(typed.json)) == (415, ["message"])


BODIES = [
    ("PUT", f"/{SUB}", {}, 400, DECODE + "ratePlanName is required"),
    ("PUT", f"/{SUB}", {"ratePlanName": None}, 400, DECODE + "ratePlanName is required"),
    ("PUT", f"/{SUB}", {"ratePlanName": 7}, 400, DECODE + "ratePlanName must be a string"),
    ("PUT", f"/{SUB}", {"ratePlanName": "everyday"}, 422, "Rate plan name has no matching scheme name: everyday"),
    ("PUT", f"/{SUB}", {"ratePlanName": ""}, 422, "ratePlanName must have 1 to 100 characters"),
    ("PUT", "/-", {"ratePlanName": 7}, 400, DECODE + "ratePlanName must be a string"),
    ("POST", "/replace", {}, 422, "subscriptionId is required"),
    ("POST", "/replace", FLAGS, 422, "subscriptionId is required"),
    ("POST", "/replace", {"subscriptionId": 7}, 400, DECODE + "subscriptionId must be a string"),
    ("POST", "/replace", {"subscriptionId": SUB}, 422, "replaceCard flag is required when asking for a replacement"),
    (
        "POST",
        "/replace",
        {"subscriptionId": SUB, "replaceCard": True, "cardCode": 1},
        422,
        "replaceLetter flag is required when asking for a replacement",
    ),
    (
        "POST",
        "/replace",
        {"subscriptionId": SUB, "replaceCard": False, "replaceLetter": False},
        422,
        "Both replacement flags are set to false - nothing to replace",
    ),
    (
        "POST",
        "/replace",
        {"subscriptionId": SUB, "replaceCard": "yes", "replaceLetter": True},
        400,
        DECODE + "replaceCard must be true or false",
    ),
    ("POST", "/replace", {"cardCode": "1"}, 422, "cardCode and letterCode are both required"),
    ("POST", "/replace", {"cardCode": 1, "letterCode": "1"}, 400, DECODE + "cardCode must be a string"),
    ("POST", "/replace", {"cardCode": "60", "letterCode": "94"}, 404, "No voucher has these codes"),
    ("POST", "/cancel", {}, 400, DECODE + "subscriptionId is required"),
    (
        "POST",
        "/cancel",
        {"subscriptionId": SUB, "cancellationDate": "2025-02-29"},
        400,
        DECODE + "cancellationDate must be a date of the calendar, e.g. 2025-03-10",
    ),
    (
        "POST",
        "/cancel",
        {"subscriptionId": SUB, "cancellationDate": "1999-12-31"},
        422,
        "cancellationDate must lie in 2000-01-01..2099-12-31",
    ),
    ("PUT", "/suspend", TOMORROW, 422, "subscriptionId is required"),
    ("PUT", "/suspend", {"subscriptionId": SUB}, 422, "startDate is required"),
    ("PUT", "/suspend", {"subscriptionId": SUB, "startDate": "2098-01-01"}, 422, "endDateExclusive is required"),
    (
        "PUT",
        "/suspend",
        {"subscriptionId": SUB, "startDate": "2098-01-01", "endDateExclusive": "2098-01-01"},
        422,
        "endDateExclusive must be after startDate",
    ),
    (
        "PUT",
        "/suspend",
        {"subscriptionId": SUB, "startDate": "20980101", "endDateExclusive": "2098-01-02"},
        400,
        DECODE + "startDate must be a date of the calendar, e.g. 2025-03-10",
    ),
    (
        "PUT",
        "/suspend",
        {"subscriptionId": SUB, **TOMORROW, "endDateExclusive": "2100-01-01"},
        422,
        "endDateExclusive must lie in 2000-01-01..2099-12-31",
    ),
]


def test_fields_at_fault(ask):
    for method, path, body, status, text in BODIES:
        said(ask(method, path, body), status, text)


def test_a_suspension_starts_tomorrow_at_the_earliest(ask):
    today = vouchers.today()
    days = {"startDate": today.isoformat(), "endDateExclusive": (today + timedelta(days=3)).isoformat()}
    said(ask("PUT", "/suspend", {"subscriptionId": SUB, **days}), 422, "startDate must be tomorrow or later")


def test_a_bad_query(ask):
    for limit in ("0", "101", "1.5", "%D9%A1", ""):
        said(ask("GET", f"/redemption-history/{SUB}?limit={limit}"), 422, "limit must be a whole number from 1 to 100")
    for refresh in ("", "yes", "TRUE", "1"):
        said(ask("GET", f"/{SUB}?refresh={refresh}"), 422, "refresh must be true or false")


def test_a_fault_of_our_own_tells_nothing_of_itself(ask, monkeypatch):
    monkeypatch.setattr(records, "lock", lambda *args: 1 / 0)
    said(ask("DELETE", f"/{SUB}"), 500, "The error is logged under the correlation id.")


def test_without_a_database_the_old_routes_say_so(ask, monkeypatch):
    def away(*args):
        raise db.PoolTimeout("6027181854")

    monkeypatch.setattr(records, "lock", away)
    answer = ask("DELETE", f"/{SUB}")
    said(answer, 503, "Try again in a few seconds.")
    assert answer.headers["Retry-After"] == "5"


def test_who_waits_must_leave_threads_to_others(set_settings):
    set_settings(VOUCHER_MAX_WAITING=64)
    with pytest.raises(errors.BadSettings, match="WEB_THREADS must be above VOUCHER_MAX_WAITING"):
        config.settings()
