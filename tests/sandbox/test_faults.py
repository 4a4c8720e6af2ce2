"""Every fault, seen from the caller: what is answered, and whether the effect took place."""

import socket
import threading
import time

import pytest
import requests

import sandbox.__main__ as entry
from sandbox.turn import Turn

HTTP = "application/json"


@pytest.fixture
def effects(sandbox):
    """How many claims there are."""
    return lambda: sandbox.ledger()["totals"]["claims"]


def test_delay_only_takes_time(sandbox, veteran, effects):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "delay", seconds=0.1)
    start = time.monotonic()
    assert veteran.create(visit_id).status_code == 200
    assert time.monotonic() - start >= 0.1
    assert effects() == 1


def test_delays_add_up_and_go_before_another_fault(sandbox, veteran, effects):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "status", status=503)
    sandbox.fault("*", "delay", seconds=0.05, max_seconds=0.06, seed=1)
    sandbox.fault("create-claim", "delay", seconds=0.05)
    start = time.monotonic()
    assert veteran.create(visit_id).status_code == 503
    assert time.monotonic() - start >= 0.1
    assert sandbox.calls(call="create-claim")[0]["fault"] == "delay, delay, status"
    assert effects() == 0


def test_a_caller_that_gives_up_does_not_stop_the_effect(sandbox, veteran, effects, until):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "delay", seconds=2)
    with pytest.raises(requests.ReadTimeout):
        veteran.create(visit_id, timeout=0.05)
    assert effects() == 0
    until(lambda: effects() == 1)


@pytest.mark.parametrize(
    ("parameters", "body", "kind"),
    [
        ({"body": "Not today"}, "Not today", "text/plain"),
        ({"body": {"error": {"code": "X", "message": "y"}}}, '{"error": {"code": "X", "message": "y"}}', HTTP),
        ({"body": ""}, "", "text/plain"),
    ],
)
def test_status_answers_what_it_was_told(*, sandbox, veteran, effects, parameters, body, kind):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "status", status=403, headers={"X-Seen": "yes"}, **parameters)
    answer = veteran.create(visit_id)
    assert (answer.status_code, answer.text, answer.headers["X-Seen"]) == (403, body, "yes")
    assert answer.headers["Content-Type"].startswith(kind)
    assert effects() == 0


def test_status_without_a_body_speaks_the_upstreams_shape(sandbox, veteran, texter):
    sandbox.fault("*", "status", status=500, message="Internal server error")
    assert veteran.get_veis().json() == {"error": "server_error", "error_description": "Internal server error"}
    assert veteran.call("GET", "api/v3/claims/1").json()["message"] == "Internal server error"
    assert texter.send("ref").json()["errors"] == [{"error": "Exception", "message": "Internal server error"}]


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize(
    ("fault", "status"), [("status", 500), ("html", 502), ("success-false", 200), ("wrong-shape", 200)]
)
def test_an_error_may_come_with_or_without_the_effect(*, sandbox, veteran, effects, fault, status, effect):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", fault, effect=effect)
    assert veteran.create(visit_id).status_code == status
    assert effects() == int(effect)


def test_html_is_a_gateways_page(sandbox, veteran):
    sandbox.fault("find-or-add", "html", status=503)
    answer = veteran.find()
    assert (answer.status_code, answer.text[:6]) == (503, "<html>")
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(("fault", "count"), [("drop-before", 0), ("drop-after", 1)])
def test_a_dropped_connection_has_no_answer(*, sandbox, veteran, effects, fault, count):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", fault, times=1)
    with pytest.raises(requests.ConnectionError, match="Remote end closed connection"):
        veteran.create(visit_id)
    assert effects() == count
    assert sandbox.calls(call="create-claim")[0]["status"] == "dropped"


@pytest.mark.parametrize("effect", [True, False])
def test_reset_tears_the_connection_down(sandbox, veteran, effects, effect):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "reset", effect=effect)
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        veteran.create(visit_id)
    assert effects() == int(effect)


@pytest.mark.parametrize(("fault", "count"), [("hang-before", 0), ("hang-after", 1)])
def test_a_hanging_call_answers_nothing_until_it_closes(*, sandbox, veteran, effects, until, fault, count):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", fault, seconds=0.2)
    with pytest.raises(requests.ReadTimeout):
        veteran.create(visit_id, timeout=0.05)
    until(lambda: effects() == count)
    with pytest.raises(requests.ConnectionError):
        veteran.create(visit_id)
    assert effects() == count


def test_delay_after_has_its_effect_first(sandbox, veteran, effects, until):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "delay-after", seconds=2)
    with pytest.raises(requests.ReadTimeout):
        veteran.create(visit_id, timeout=0.05)
    until(lambda: effects() == 1)


@pytest.mark.parametrize("fault", ["delay-after", "drip", "broken-off"])
@pytest.mark.parametrize("effect", [True, False])
def test_a_slow_or_broken_answer_may_be_another_one(*, sandbox, veteran, effects, fault, effect):
    visit_id = veteran.appointment_id()
    slow = {} if fault == "broken-off" else {"seconds": 0}
    sandbox.fault("create-claim", fault, status=503, body="", headers={"X-Seen": "yes"}, effect=effect, **slow)
    with veteran.create(visit_id, stream=True) as answer:
        assert (answer.status_code, answer.headers["X-Seen"]) == (503, "yes")
    assert effects() == int(effect)


def test_a_dripping_answer_comes_byte_by_byte_and_then_ends(sandbox):
    sandbox.fault("find-sms", "drip", seconds=0.01)
    listener = sandbox.listeners["notify"]
    with socket.create_connection((listener.host, listener.port), timeout=60) as sock:
        sock.sendall(b"GET /v2/notifications HTTP/1.1\r\n\r\n")
        pieces = list(iter(lambda: sock.recv(65536), b""))
    assert b"".join(pieces).startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert len(pieces) > 50


def test_a_dripping_answer_may_end_in_time(sandbox, veteran):
    sandbox.fault("find-or-add", "drip", seconds=0.02, max_seconds=0.1)
    start = time.monotonic()
    assert len(veteran.find().json()["data"]) == 1
    assert time.monotonic() - start >= 0.1
    assert sandbox.calls(call="find-or-add")[0]["status"] == 200


def test_a_reset_ends_a_dripping_answer(sandbox, veteran, until):
    veteran.appointment_id()
    sandbox.fault("find-or-add", "drip", seconds=30)
    ends = []

    def find():
        try:
            veteran.find()
        except requests.ConnectionError:
            ends.append("dropped")

    caller = threading.Thread(target=find)
    caller.start()
    until(lambda: sandbox.calls(call="find-or-add")[-1]["fault"] == "drip")
    sandbox.reset()
    caller.join(timeout=60)
    assert ends == ["dropped"]


def test_a_body_breaks_off_after_status_and_headers(sandbox, veteran, effects):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "broken-off")
    with veteran.create(visit_id, stream=True) as answer:
        assert answer.status_code == 200
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
            _ = answer.content
    assert effects() == 1


@pytest.mark.parametrize("effect", [True, False])
def test_garbage_is_no_http(*, sandbox, veteran, effects, effect):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "garbage", effect=effect)
    with pytest.raises(requests.ConnectionError, match="BadStatusLine"):
        veteran.create(visit_id)
    assert effects() == int(effect)
    assert sandbox.calls(call="create-claim")[0]["status"] == "garbage"


@pytest.mark.parametrize("effect", [True, False])
def test_a_redirect_leads_to_the_very_same_call_unless_told(*, sandbox, veteran, effects, effect):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "redirect", effect=effect, times=1)
    answer = veteran.create(visit_id, allow_redirects=False)
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["Location"] == "/eis/api/btsss/travelclaim/api/v3/claims"
    assert effects() == int(effect)
    sandbox.fault("find-or-add", "redirect", status=302, location="http://127.0.0.1:9/")
    assert veteran.find(allow_redirects=False).headers["Location"] == "http://127.0.0.1:9/"


def test_a_late_effect_happens_after_its_answer_was_lost(sandbox, veteran, effects, until):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "late", seconds=2, times=1)
    with pytest.raises(requests.ConnectionError):
        veteran.create(visit_id)
    assert effects() == 0
    until(lambda: effects() == 1)


def test_a_late_effect_may_be_answered_with_an_error_first(sandbox, veteran, effects, until):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "late", seconds=2, status=504)
    assert veteran.create(visit_id).status_code == 504
    assert effects() == 0
    until(lambda: effects() == 1)


def test_a_late_create_that_comes_second_is_refused_like_any_other(sandbox, veteran, effects, until, monkeypatch):
    visit_id = veteran.appointment_id()
    performed, perform = [], Turn.perform
    monkeypatch.setattr(Turn, "perform", lambda turn, *given: performed.append(perform(turn, *given)) or performed[-1])
    sandbox.fault("create-claim", "late", seconds=2, status=504, times=1)
    veteran.create(visit_id)
    assert veteran.create(visit_id).status_code == 200
    until(lambda: len(performed) == 2)
    assert effects() == 1


def test_refuse_401_and_contact_409_are_for_the_next_calls_only(sandbox, veteran, texter):
    veteran.appointment_id()
    sandbox.fault("find-or-add", "refuse-401", times=1)
    sandbox.fault("find-or-add", "contact-409", times=1)
    assert [veteran.find().status_code for _ in range(3)] == [401, 409, 200]
    sandbox.fault("send-sms", "refuse-401", times=1)
    assert texter.send("ref").json()["errors"][0]["error"] == "AuthError"


def test_rate_limit_tells_when_to_come_back(sandbox, veteran, effects):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "rate-limit", seconds=7, retry_after=9, times=1)
    answer = veteran.create(visit_id)
    assert answer.status_code == 429
    told = ("X-Ratelimit-Limit-Minute", "X-Ratelimit-Remaining-Minute", "Ratelimit-Reset", "Retry-After")
    assert [answer.headers[name] for name in told] == ["60", "0", "7", "9"]
    sandbox.fault("create-claim", "rate-limit", times=1)
    assert "Retry-After" not in veteran.create(visit_id).headers
    assert effects() == 0


def test_remaining_zero_is_a_success_with_a_warning(sandbox, veteran):
    sandbox.fault("find-or-add", "remaining-zero", seconds=3)
    answer = veteran.find()
    assert (answer.status_code, len(answer.json()["data"])) == (200, 1)
    assert (answer.headers["X-Ratelimit-Remaining-Minute"], answer.headers["Ratelimit-Reset"]) == ("0", "3")


@pytest.mark.parametrize("effect", [True, False])
def test_malformed_json_cannot_be_read(sandbox, veteran, effects, effect):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "malformed-json", effect=effect)
    answer = veteran.create(visit_id)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, HTTP)
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert effects() == int(effect)


@pytest.mark.parametrize("effect", [True, False])
def test_missing_field_is_an_envelope_without_the_id(sandbox, veteran, effects, effect):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "missing-field", effect=effect)
    answer = veteran.create(visit_id).json()
    assert (answer["success"], answer["data"]) == (True, {})
    assert effects() == int(effect)


def test_missing_field_takes_the_id_out_of_texts_and_expenses(sandbox, veteran, texter):
    sandbox.fault("*", "missing-field", match={"reference": "ref"})
    sandbox.fault("add-expense", "missing-field")
    assert "id" not in texter.send("ref").json()
    claim_id = veteran.claim_id()
    assert veteran.add(claim_id).json()["data"] == veteran.add_parking(claim_id).json()["data"] == {}


def test_success_false_tells_its_status_inside_or_not_at_all(sandbox, veteran):
    sandbox.fault("find-or-add", "success-false", status=422, message="No.", times=1)
    sandbox.fault("find-or-add", "success-false", status=None, times=1)
    told = veteran.find().json()
    assert (told["success"], told["statusCode"], told["message"], told["data"]) == (False, 422, "No.", None)
    assert "statusCode" not in veteran.find().json()


def test_token_absent_is_a_success_without_token(sandbox, veteran):
    sandbox.fault("*", "token-absent")
    assert "access_token" not in veteran.get_veis().json()
    assert veteran.get_btsss().json()["data"] == {}
    assert sandbox.ledger()["totals"]["veis_mints"] == sandbox.ledger()["totals"]["btsss_mints"] == 0


@pytest.mark.parametrize(("form", "shown"), [("text", "100"), ("number", 100), ("absent", None)])
def test_expires_in_gives_a_token_that_lives_so_long(sandbox, veteran, form, shown):
    sandbox.fault("veis-token", "expires-in", seconds=100, form=form)
    assert veteran.get_veis().json().get("expires_in") == shown
    assert veteran.get_btsss().status_code == 200


def test_expires_in_zero_is_a_token_that_is_dead_at_once(sandbox, veteran):
    sandbox.fault("veis-token", "expires-in", seconds=0)
    veteran.get_veis()
    assert veteran.get_btsss().status_code == 401


def test_empty_list_lists_nothing(sandbox, veteran, texter):
    sandbox.fault("*", "empty-list")
    assert veteran.find().json()["data"] == veteran.search().json()["data"] == []
    assert texter.send("ref").status_code == 201
    assert texter.find("ref").json()["notifications"] == []
    assert sandbox.ledger()["totals"]["appointments"] == 0


def test_cancelled_first_lists_the_right_appointment_second(sandbox, veteran):
    sandbox.fault("find-or-add", "cancelled-first", times=1)
    first, second = veteran.find().json()["data"]
    assert "cancel" in first["appointmentStatus"].lower()
    assert first["appointmentDateTime"] == second["appointmentDateTime"]
    assert [one["id"] for one in veteran.find().json()["data"]] == [second["id"]]
    assert veteran.create(first["id"]).status_code == 400


def test_foreign_claim_is_one_that_nobody_here_made(sandbox, veteran, effects):
    sandbox.fault("find-or-add", "foreign-claim", times=1)
    [appointment] = veteran.find().json()["data"]
    assert appointment["associatedClaimNumber"] == "TC202602000099121"
    assert veteran.find().json()["data"] == [appointment]
    assert veteran.read(appointment["associatedClaimId"]).json()["data"]["claimStatus"] == "ClaimSubmitted"
    assert veteran.create(appointment["id"]).status_code == 400
    assert effects() == 0


def test_foreign_claim_may_come_between_look_up_and_create(sandbox, veteran, effects):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "foreign-claim", claim_number="TC202602000099122", claim_status="Saved")
    assert "already been created" in veteran.create(visit_id).json()["message"]
    [found] = veteran.search().json()["data"]
    assert (found["claimNumber"], found["claimStatus"]) == ("TC202602000099122", "Saved")
    assert effects() == 0


def test_duplicate_is_only_said(sandbox, veteran, effects):
    visit_id = veteran.appointment_id()
    sandbox.fault("create-claim", "duplicate", status=409, message="CLM_002_CLAIM_EXISTS", times=1)
    answer = veteran.create(visit_id)
    assert (answer.status_code, answer.json()["message"]) == (409, "CLM_002_CLAIM_EXISTS")
    assert effects() == 0
    assert veteran.create(visit_id).status_code == 200


def test_claim_status_shows_another_word(sandbox, veteran):
    claim_id = veteran.claim_id()
    veteran.add(claim_id)
    sandbox.fault("submit-claim", "claim-status", claim_status="Saved")
    sandbox.fault("*", "claim-status", claim_status="Denied")
    assert veteran.submit(claim_id).json()["data"]["status"] == "Saved"
    assert veteran.read(claim_id).json()["data"]["claimStatus"] == "Denied"
    assert veteran.search().json()["data"][0]["claimStatus"] == "Denied"


def test_a_fault_for_n_calls_meets_exactly_n_even_at_once(sandbox, veteran):
    veteran.appointment_id()
    sandbox.fault("find-or-add", "status", status=503, times=7)
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(veteran.find().status_code)) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(statuses) == [200] * 13 + [503] * 7


def test_probability_with_a_seed_repeats_itself(sandbox, veteran):
    def drawn():
        sandbox.clear_faults()
        sandbox.fault("find-or-add", "status", probability=0.5, seed=7)
        return [veteran.find().status_code for _ in range(20)]

    first = drawn()
    assert drawn() == first
    assert set(first) == {200, 500}


def test_counted_faults_go_before_chance_and_chance_before_always(sandbox, veteran):
    sandbox.fault("find-or-add", "status", status=500)
    sandbox.fault("find-or-add", "status", status=502, probability=1)
    sandbox.fault("find-or-add", "status", status=503, times=1)
    assert [veteran.find().status_code for _ in range(2)] == [503, 502]


@pytest.mark.parametrize(
    "match",
    [
        {"icn": "1012667122V019349"},
        {"appointmentDateTime": "2026-03-02T10:00"},
        {"station": "983GC"},
        {"product": "pci"},
        {"claimantType": "Veteran", "icn": "1012667122V019349"},
    ],
)
def test_a_match_meets_one_visit_only(sandbox, veteran, other, match):
    visit = {"appointmentDateTime": "2026-03-03T10:00:00Z", "facilityStationNumber": "984"}
    sandbox.fault("create-claim", "status", status=503, match=match)
    mine, theirs = veteran.create(veteran.appointment_id()), other.create(other.appointment_id(visit))
    assert (mine.status_code, theirs.status_code) == (503, 200)


def test_a_match_may_name_claim_type_correlation_or_phone(sandbox, veteran, texter):
    claim_id = veteran.claim_id()
    sandbox.fault("add-expense", "status", status=422, match={"type": "parking"})
    sandbox.fault("submit-claim", "status", status=403, match={"claimId": claim_id})
    sandbox.fault("read-claim", "status", status=404, match={"correlation_id": veteran.correlation_id})
    sandbox.fault("send-sms", "status", status=500, match={"phone": "+12025550143"})
    assert veteran.add_parking(claim_id).status_code == 422
    assert veteran.add(claim_id).status_code == 200
    assert veteran.submit(claim_id).status_code == 403
    assert veteran.read(claim_id).status_code == 404
    assert texter.send("ref").status_code == 500
    assert texter.send("ref", phone_number="+12025550144").status_code == 201


def test_a_fault_may_be_for_one_upstream(sandbox, veteran):
    sandbox.fault("*", "status", status=503, upstream="travel-pay")
    assert veteran.get_veis().status_code == 200
    assert veteran.get_btsss().status_code == 503


def test_the_module_says_what_every_fault_and_setting_is(sandbox):
    for name, kind in sandbox._faults._kinds.items():
        assert f"    {name} " in entry.__doc__
        assert all(parameter in entry.__doc__ for parameter in kind.parameters)
    for name in (*sandbox._faults._calls, *sandbox.world.settings.shown()):
        assert name in entry.__doc__
