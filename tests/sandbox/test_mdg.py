"""MDG: what it takes and refuses on both paths, how it knows a repeat, and what the log keeps of every call."""

import hashlib
import json

import pytest
import requests

DES, CMA = "/declarations/passengerdeclaration/v1", "/passengers/declarations/simpledeclaration/v1"
CHARGE = "XFPR0000000123"


@pytest.fixture
def taken(sandbox):
    return lambda: [one["acknowledgementReference"] for one in sandbox.ledger()["declarations"]]


def details(answer):
    return answer.json()["errorDetail"]["sourceFaultDetail"]["detail"]


@pytest.mark.parametrize(("path", "date"), [(DES, "2026-11-20T18:09:30Z"), (CMA, "Fri, 20 Nov 2026 18:09:30 GMT")])
def test_a_declaration_is_taken_in_either_form(*, sandbox, declarer, path, date):
    answer = declarer.submit(path=path, Date=date)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Content-Length" not in answer.headers
    [entry] = sandbox.ledger()["declarations"]
    assert (entry["acknowledgementReference"], entry["chargeReference"]) == (f"{CHARGE}0", CHARGE)
    assert (entry["count"], entry["correlation_id"]) == (1, "d-7f6b2d1e")
    assert entry["body_sha256"] == hashlib.sha256(declarer.body()).hexdigest()


def test_a_repeat_with_the_same_bytes_is_answered_alike_and_not_taken_again(sandbox, declarer):
    assert [declarer.submit(Date=f"2026-11-20T18:09:3{n}Z").status_code for n in range(3)] == [204] * 3
    assert [one["count"] for one in sandbox.ledger()["declarations"]] == [1]
    assert len(sandbox.calls(call="submit-declaration")) == 3


def test_other_bytes_under_a_known_reference_conflict(declarer, taken):
    declarer.submit()
    answer = declarer.submit(declarer.body(receiptDate="2026-11-20T18:05:00Z"))
    assert (answer.status_code, len(details(answer))) == (409, 1)
    assert taken() == [f"{CHARGE}0"]


def test_an_amendment_has_a_reference_of_its_own(declarer, taken):
    declarer.submit()
    assert declarer.submit(declarer.body(acknowledgement=f"{CHARGE}1")).status_code == 204
    assert taken() == [f"{CHARGE}0", f"{CHARGE}1"]


@pytest.mark.parametrize("authorization", [None, "", "Bearer other", "Basic eDp5"])
def test_a_wrong_token_is_401(declarer, taken, authorization):
    assert declarer.submit(Authorization=authorization).status_code == 401
    assert taken() == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Accept", "*/*"),
        ("Content_Type", "text/plain"),
        ("X_Correlation_ID", None),
        ("X_Forwarded_Host", "example.org"),
        ("User_Agent", "requests"),
        ("Date", None),
        ("Date", "Fri, 20 Nov 2026 18:09:30 GMT"),
        ("Date", "2026-11-20T18:09:30.000Z"),
        ("Date", "2026-11-20T18:09:30+00:00"),
        ("Date", "2026-02-30T18:09:30Z"),
    ],
)
def test_a_wrong_header_is_400_and_named(declarer, taken, header, value):
    answer = declarer.submit(**{header: value})
    assert (answer.status_code, details(answer)) == (400, [f"Invalid header {header.replace('_', '-')}"])
    assert taken() == []


@pytest.mark.parametrize(
    "date",
    ["2026-11-20T18:09:30Z", "Thu, 20 Nov 2026 18:09:30 GMT", "Fri, 6 Nov 2026 18:09:30 GMT", "Fri, 20 Nov 2026"],
)
def test_the_cma_path_has_its_own_form_of_date(declarer, taken, date):
    answer = declarer.submit(path=CMA, Date=date)
    assert (answer.status_code, details(answer)) == (400, ["Invalid header Date"])
    assert taken() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "The body must be an object"),
        (b"[]", "The body must be an object"),
        (b'{"simpleDeclarationRequest": {}, "journeyData": {}}', "The body must be an object"),
        (b'{"simpleDeclarationRequest": {"requestCommon": []}}', "Invalid chargeReference"),
        ({"charge": "XFPR123"}, "Invalid chargeReference"),
        ({"acknowledgement": "XQPR00000000020"}, "Invalid acknowledgementReference"),
        ({"acknowledgement": f"{CHARGE}{'0' * 19}"}, "Invalid acknowledgementReference"),
    ],
)
def test_a_body_without_its_references_is_400(declarer, taken, body, said):
    answer = declarer.submit(body if isinstance(body, bytes) else declarer.body(**body))
    assert answer.status_code == 400
    assert details(answer)[0].startswith(said)
    assert taken() == []


def test_other_paths_and_methods_are_unknown(sandbox, declarer):
    assert declarer.submit(path=f"{DES}/").status_code == 404
    answer = requests.get(sandbox.url("mdg") + DES, timeout=60)
    assert (answer.status_code, len(details(answer))) == (404, 1)


def test_every_call_is_shown_with_its_exact_body_and_its_answer(sandbox, declarer):
    spaced = declarer.body().replace(b", ", b",  ")
    declarer.submit(spaced)
    declarer.submit("ü".encode("latin-1"))
    [good, bad] = sandbox.calls(upstream="mdg")
    assert good["body_text"].encode() == spaced
    assert good["body_sha256"] == hashlib.sha256(spaced).hexdigest()
    assert good["body"] == json.loads(spaced)
    assert (good["headers"]["X-Forwarded-Host"], good["headers"]["Date"]) == ("MDTP", "2026-11-20T18:09:30Z")
    assert (good["status"], good["answer"]) == (204, None)
    assert bad["body_sha256"] == hashlib.sha256(b"\xfc").hexdigest()
    assert (bad["status"], list(bad["answer"])) == (400, ["errorDetail"])


@pytest.mark.parametrize("effect", [True, False])
def test_any_status_may_come_with_or_without_the_declaration_taken(*, sandbox, declarer, taken, effect):
    sandbox.fault("submit-declaration", "status", status=503, headers={"Retry-After": "7"}, body="<p>", effect=effect)
    answer = declarer.submit()
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, "<p>", "7")
    assert taken() == ([f"{CHARGE}0"] if effect else [])
    sandbox.clear_faults()
    assert declarer.submit().status_code == 204
    assert taken() == [f"{CHARGE}0"]


def test_a_refusal_in_the_shape_of_mdg(sandbox, declarer):
    sandbox.fault("submit-declaration", "status", status=400, message="Invalid portOfEntry")
    assert details(declarer.submit()) == ["Invalid portOfEntry"]


def test_another_success_than_204(sandbox, declarer, taken):
    sandbox.fault("submit-declaration", "status", status=202, body="", effect=True)
    assert (declarer.submit().status_code, taken()) == (202, [f"{CHARGE}0"])


def test_a_fault_may_be_for_one_charge_reference(sandbox, declarer):
    sandbox.fault("submit-declaration", "status", status=500, match={"chargeReference": CHARGE})
    assert declarer.submit().status_code == 500
    assert declarer.submit(declarer.body("XQPR0000000002")).status_code == 204


def test_reset_forgets_every_declaration(sandbox, declarer, taken):
    declarer.submit()
    sandbox.reset()
    assert declarer.submit(declarer.body(receiptDate="x")).status_code == 204
    assert taken() == [f"{CHARGE}0"]
