"""Travel Pay's verbs against the sandbox: what is on the wire, and when tokens are renewed (contract 4 and 5.1)."""

import pytest

from app import errors, metrics, steps
from app.upstreams import outcomes, travel_pay, travel_pay_access
from app.upstreams import travel_pay_answers as answers

VISIT = ("2026-03-02T10:00:00", "983GC")
MILEAGE = {"dateIncurred": "2026-03-02", "description": "mileage", "tripType": "RoundTrip"}
PARKING = {"dateIncurred": "2026-03-02", "description": "Garage", "costRequested": 12.5, "expenseType": "parking"}
BASE = "/eis/api/btsss/travelclaim/"


def names(upstreams, after=0):
    return [call["call"] for call in upstreams.calls(after=after)]


def last_number(upstreams):
    return max((call["number"] for call in upstreams.calls()), default=0)


def add(one, claim_id, path="mileage", body=MILEAGE, index=0):
    key, field = ("mileage", "expenseId") if path == "mileage" else ("expenses", "id")
    return one.add_expense(claim_id, path, version_key=key, body=body, id_field=field, index=index)


def claim_of(one):
    return one.create_claim(one.find_or_add(*VISIT)[0].id)


def fail(verb, *args, **more):
    with pytest.raises(outcomes.Failed) as caught:
        verb(*args, **more)
    return caught.value


def renewals(kind, reason):
    return metrics.claims_token_renewals.labels("pci", kind, reason)._value.get()


# The calls.


def test_a_claim_is_filed_in_the_api_s_own_words(client, upstreams, work):
    one = client()
    one.authorize()
    (appointment,) = one.find_or_add(*VISIT)
    claim_id = one.create_claim(appointment.id)
    expense_id = add(one, claim_id)
    parking_id = add(one, claim_id, "parking", PARKING, index=1)
    assert one.submit(claim_id) == "ClaimSubmitted"
    details = one.read_claim(claim_id)
    assert (details.status, details.date_time[:16]) == ("ClaimSubmitted", "2026-03-02T10:00")
    assert {expense.id for expense in details.expenses} == {expense_id, parking_id}
    calls = upstreams.calls()
    assert [(call["method"], call["path"].removeprefix(BASE)) for call in calls] == [
        ("POST", "/5f0e3c1b-tenant/oauth2/token"),
        ("POST", "api/v4/auth/system-access-token"),
        ("POST", "api/v3/appointments/find-or-add"),
        ("POST", "api/v3/claims"),
        ("POST", "api/v3/expenses/mileage"),
        ("POST", "api/v1/expenses/parking"),
        ("PATCH", f"api/v3/claims/{claim_id}/submit"),
        ("GET", f"api/v3/claims/{claim_id}"),
    ]
    assert [call["body"] for call in calls[1:7]] == [
        {"secret": "pci-secret", "icn": "1012667122V019349"},
        {"appointmentDateTime": "2026-03-02T10:00:00Z", "facilityStationNumber": "983GC"},
        {"appointmentId": appointment.id, "claimName": "Travel Reimbursement", "claimantType": "Veteran"},
        {"claimId": claim_id, **MILEAGE},
        {"claimId": claim_id, **PARKING},
        None,
    ]
    assert {call["correlation_id"] for call in calls} == {"correlation-1"}
    assert work.asked == ["renew", "renew", "renew", "renew", 0, 0, 1, 0, "renew"]


def test_optional_parts_of_an_appointment_are_sent_when_there(client, upstreams):
    client().find_or_add(*VISIT, type="Other", complete=False, name="")
    assert upstreams.calls()[-1]["body"] == {
        "appointmentDateTime": "2026-03-02T10:00:00Z",
        "facilityStationNumber": "983GC",
        "appointmentType": "Other",
        "isComplete": False,
    }


def headers(call, *wanted):
    lower = {name.lower(): value for name, value in call["headers"].items()}
    return [lower.get(name.lower()) for name in wanted]


def test_every_call_carries_its_headers_and_no_others(client, upstreams):
    one = client()
    one.find_or_add(*VISIT)
    wanted = (
        "Authorization",
        "BTSSS-Access-Token",
        "BTSSS-API-Client-Number",
        "Ocp-Apim-Subscription-Key",
        "Content-Type",
    )
    veis, system, find = [headers(call, *wanted) for call in upstreams.calls()]
    bearer = system[0]
    assert veis == [None, None, None, None, "application/x-www-form-urlencoded"]
    assert system == [bearer, None, "pci-client-number", "subscription-key", "application/json"]
    assert find == [bearer, one.changed["btsss_token"], None, "subscription-key", "application/json"]
    assert bearer.startswith("Bearer veis-")


def test_a_product_uses_its_own_secret_and_number(client, upstreams):
    client(product="oh").authorize()
    call = upstreams.calls()[-1]
    assert (call["body"]["secret"], headers(call, "BTSSS-API-Client-Number")) == ("oh-secret", ["oh-client-number"])


def test_two_subscription_keys_win_over_one(gateway, work, upstreams):
    known = upstreams.credentials
    both = {"subscription_key_e": known.subscription_key_e, "subscription_key_s": known.subscription_key_s}
    settings = type(gateway.settings)(**{**dict(gateway.settings), **both})
    other = travel_pay_access.Gateway(settings)
    travel_pay.TravelPay(other, product="pci", icn="1012667122V019349", work=work).authorize()
    name = "Ocp-Apim-Subscription-Key"
    assert headers(upstreams.calls()[-1], name, f"{name}-E", f"{name}-S") == [
        None,
        known.subscription_key_e,
        known.subscription_key_s,
    ]


def test_deleting_what_is_gone_is_a_success(client):
    one = client()
    claim_id = claim_of(one)
    expense_id = add(one, claim_id)
    one.delete_expense("mileage", "mileage", expense_id)
    one.delete_expense("mileage", "mileage", expense_id)
    assert one.read_claim(claim_id).expenses == ()


def test_a_claim_is_deleted_where_there_is_a_path(gateway, work, upstreams):
    upstreams.change({"claim_delete": True})
    settings = gateway.settings.model_copy(update={"delete_claim_path": "api/v3/claims/{claimId}"})
    one = travel_pay.TravelPay(travel_pay_access.Gateway(settings), product="pci", icn="1012667122V019349", work=work)
    claim_id = claim_of(one)
    one.delete_claim(claim_id)
    one.delete_claim(claim_id)
    assert fail(one.read_claim, claim_id).status == 404


def test_a_refused_delete_is_a_failure(client, upstreams):
    one = client()
    expense_id = add(one, claim_of(one))
    upstreams.fault("delete-expense", "status", status=403)
    assert fail(one.delete_expense, "mileage", "mileage", expense_id).outcome.failure.http_status == 403


def test_search_reads_pages_until_one_is_empty(client, monkeypatch):
    one, asked = client(), []
    pages = {1: ["a", "b"], 2: ["c"], 3: []}

    def page(start, end, number):
        asked.append((start, end, number))
        return [answers.ClaimSummary(id=name) for name in pages[number]]

    monkeypatch.setattr(one, "_search_page", page)
    found = one.search("2026-03-02T00:00:00", "2026-03-02T23:59:59")
    assert [claim.id for claim in found] == ["a", "b", "c"]
    assert asked == [("2026-03-02T00:00:00Z", "2026-03-02T23:59:59Z", number) for number in (1, 2, 3)]


def test_search_ends_where_pages_repeat_and_gives_up_where_they_never_end(client, monkeypatch):
    one = client()
    monkeypatch.setattr(one, "_search_page", lambda *_: [answers.ClaimSummary(id="a")])
    assert len(one.search("2026-03-02T00:00:00", "2026-03-02T23:59:59")) == 1
    monkeypatch.setattr(one, "_search_page", lambda *args: [answers.ClaimSummary(id=str(args[-1]))])
    failed = fail(one.search, "2026-03-02T00:00:00", "2026-03-02T23:59:59")
    assert (type(failed.outcome), failed.outcome.failure.code) == (steps.Retry, "malformed-answer")


def test_search_finds_the_claims_of_the_day(client, upstreams):
    one = client()
    claim_id = claim_of(one)
    assert [claim.id for claim in one.search("2026-03-02T00:00:00", "2026-03-02T23:59:59")] == [claim_id]
    assert names(upstreams)[-2:] == ["search-claims", "search-claims"]
    assert upstreams.calls()[-1]["query"]["pageNumber"] in ("2", ["2"])


# Tokens.


def test_tokens_given_are_used_and_unchanged(client, upstreams):
    first = client()
    first.authorize()
    second = client(**first.changed)
    after = last_number(upstreams)
    second.find_or_add(*VISIT)
    assert names(upstreams, after) == ["find-or-add"]
    assert second.changed == {}


def test_a_step_without_a_usable_token_obtains_one(client, upstreams):
    one = client(btsss_token=None, veis_fingerprint=None)
    one.find_or_add(*VISIT)
    assert names(upstreams) == ["veis-token", "system-token", "find-or-add"]
    assert set(one.changed) == {"btsss_token", "veis_fingerprint"}


def test_authorize_takes_a_new_token_of_the_veteran(client, upstreams):
    first = client()
    first.authorize()
    second = client(**first.changed)
    second.authorize()
    assert names(upstreams) == ["veis-token", "system-token", "system-token"]
    assert second.changed["btsss_token"] != first.changed["btsss_token"]


def test_under_another_veis_token_the_veteran_s_token_is_renewed_before_the_call(client, gateway, upstreams):
    first, before = client(), renewals("btsss", "veis-changed")
    claim_id = claim_of(first)
    gateway.veis.evict(first._access._veis)
    second = client(**first.changed)
    after = last_number(upstreams)
    add(second, claim_id)
    assert names(upstreams, after) == ["veis-token", "system-token", "add-expense"]
    assert renewals("btsss", "veis-changed") == before + 1
    assert second.changed["veis_fingerprint"] != first.changed["veis_fingerprint"]


def test_a_401_renews_both_tokens_and_the_call_is_made_once_more(client, upstreams, work):
    one, before = client(), renewals("veis", "401")
    claim_id = claim_of(one)
    upstreams.fault("add-expense", "refuse-401", times=1)
    after, given = last_number(upstreams), dict(one.changed)
    work.asked.clear()
    add(one, claim_id, index=4)
    assert names(upstreams, after) == ["add-expense", "veis-token", "system-token", "add-expense"]
    assert work.asked == [4, "renew", "renew", "renew", 4]
    assert renewals("veis", "401") == before + 1
    assert one.changed["btsss_token"] != given["btsss_token"]
    assert [call.outcome for call in work.calls[-4:]] == ["rejected", "ok", "ok", "ok"]


def test_a_409_about_the_contact_renews_the_veteran_s_token_only(client, upstreams):
    one, before = client(), renewals("btsss", "409")
    claim_id = claim_of(one)
    upstreams.fault("submit-claim", "contact-409", times=1)
    add(one, claim_id)
    after = last_number(upstreams)
    one.submit(claim_id)
    assert names(upstreams, after) == ["submit-claim", "system-token", "submit-claim"]
    assert renewals("btsss", "409") == before + 1


@pytest.mark.parametrize(("fault", "status", "calls"), [("refuse-401", 401, 4), ("contact-409", 409, 3)])
def test_a_second_refusal_of_tokens_is_final(*, client, upstreams, fault, status, calls):
    one = client()
    one.authorize()
    upstreams.fault("find-or-add", fault)
    after = last_number(upstreams)
    failed = fail(one.find_or_add, *VISIT)
    failure = failed.outcome.failure
    assert isinstance(failed.outcome, steps.Rejected)
    assert (failure.code, failure.http_status, failure.retryable) == ("token-refused", status, True)
    assert len(names(upstreams, after)) == calls


def test_renewals_are_counted_per_call_not_per_claim(client, upstreams):
    one = client()
    for _ in range(4):
        upstreams.fault("find-or-add", "refuse-401", times=1)
        one.find_or_add(*VISIT)


def test_a_409_that_speaks_of_a_duplicate_renews_nothing(client, upstreams):
    one = client()
    (appointment,) = one.find_or_add(*VISIT)
    upstreams.fault("create-claim", "duplicate", status=409)
    after = last_number(upstreams)
    failed = fail(one.create_claim, appointment.id)
    assert answers.is_duplicate(failed)
    assert (failed.outcome.failure.code, failed.outcome.failure.http_status) == ("rejected", 409)
    assert names(upstreams, after) == ["create-claim"]


def test_a_second_submit_is_told_apart(client):
    one = client()
    claim_id = claim_of(one)
    add(one, claim_id)
    one.submit(claim_id)
    assert answers.is_already_submitted(fail(one.submit, claim_id))


# Authorization that fails.


@pytest.mark.parametrize("call", ["veis-token", "system-token"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_token_endpoint_that_refuses_ends_it(*, client, upstreams, call, status):
    upstreams.fault(call, "status", status=status, message="Not you")
    for verb in (client().authorize, lambda: client().find_or_add(*VISIT)):
        failed = fail(verb)
        failure = failed.outcome.failure
        assert isinstance(failed.outcome, steps.Rejected)
        assert (failure.code, failure.http_status, failure.retryable) == ("authorization-failed", 502, True)
        assert failed.status is None
    assert upstreams.ledger()["totals"]["appointments"] == 0


def test_a_401_of_the_system_token_evicts_and_mints_the_veis_token_once(client, upstreams):
    one = client()
    one.authorize()
    upstreams.fault("system-token", "refuse-401", times=1)
    after = last_number(upstreams)
    client().authorize()
    assert names(upstreams, after) == ["system-token", "veis-token", "system-token"]
    upstreams.fault("system-token", "refuse-401")
    after = last_number(upstreams)
    fail(client().authorize)
    assert names(upstreams, after) == ["system-token", "veis-token", "system-token"]


@pytest.mark.parametrize("call", ["veis-token", "system-token"])
@pytest.mark.parametrize(
    ("fault", "more", "code"),
    [
        ("token-absent", {}, "malformed-answer"),
        ("malformed-json", {}, "malformed-answer"),
        ("status", {"status": 503}, "upstream-unavailable"),
        ("status", {"status": 408}, "upstream-timeout"),
        ("rate-limit", {"seconds": 5}, "rate-limited"),
        ("drop-after", {}, "upstream-unavailable"),
    ],
)
def test_a_token_endpoint_in_trouble_is_tried_again(*, client, upstreams, call, fault, more, code):
    upstreams.fault(call, fault, **more)
    failed = fail(client().authorize)
    assert isinstance(failed.outcome, steps.Retry)
    assert failed.outcome.failure.code == code


@pytest.mark.parametrize("form", ["text", "number", "absent"])
def test_the_life_of_a_token_may_be_text_a_number_or_absent(client, upstreams, form):
    upstreams.fault("veis-token", "expires-in", seconds=3000, form=form)
    one = client()
    one.authorize()
    assert one._access._veis.life == (3600 if form == "absent" else 3000)


def test_a_veis_token_too_short_to_keep_serves_one_step(client, upstreams):
    upstreams.change({"veis_lifetime": 100})
    one = client()
    one.find_or_add(*VISIT)
    one.find_or_add(*VISIT)
    assert names(upstreams) == ["veis-token", "system-token", "find-or-add", "find-or-add"]
    client(**one.changed).find_or_add(*VISIT)
    assert names(upstreams)[4:] == ["veis-token", "system-token", "find-or-add"]


# Odd answers.


@pytest.mark.parametrize(
    ("status", "kind", "http_status"),
    [(422, steps.Rejected, 422), (500, steps.Unknown, 502), (None, steps.Unknown, 502)],
)
def test_the_status_inside_a_success_counts(*, client, upstreams, status, kind, http_status):
    one = client()
    (appointment,) = one.find_or_add(*VISIT)
    upstreams.fault("create-claim", "success-false", status=status)
    failed = fail(one.create_claim, appointment.id)
    assert (type(failed.outcome), failed.outcome.failure.http_status) == (kind, http_status)


@pytest.mark.parametrize("fault", ["wrong-shape", "missing-field", "malformed-json"])
def test_a_success_without_what_it_must_hold_is_unknown(client, upstreams, fault):
    one = client()
    (appointment,) = one.find_or_add(*VISIT)
    upstreams.fault("create-claim", fault)
    failed = fail(one.create_claim, appointment.id)
    assert (type(failed.outcome), failed.outcome.failure.code) == (steps.Unknown, "malformed-answer")
    upstreams.fault("find-or-add", fault)
    assert isinstance(fail(one.find_or_add, *VISIT).outcome, steps.Retry)


@pytest.mark.parametrize("status", ["Incomplete", "Saved"])
def test_a_submit_that_leaves_the_claim_unfinished_is_unknown(client, upstreams, status):
    one = client()
    claim_id = claim_of(one)
    add(one, claim_id)
    upstreams.fault("submit-claim", "claim-status", claim_status=status)
    assert isinstance(fail(one.submit, claim_id).outcome, steps.Unknown)


@pytest.mark.parametrize("fault", ["drop-after", "drop-before", "reset"])
def test_a_lost_create_is_unknown_and_a_lost_read_a_retry(client, upstreams, fault):
    one = client()
    (appointment,) = one.find_or_add(*VISIT)
    upstreams.fault("create-claim", fault)
    upstreams.fault("find-or-add", fault)
    assert isinstance(fail(one.create_claim, appointment.id).outcome, steps.Unknown)
    assert isinstance(fail(one.find_or_add, *VISIT).outcome, steps.Retry)


def test_too_many_calls_stop_those_of_every_claim(client, upstreams):
    one = client()
    one.authorize()
    upstreams.fault("find-or-add", "rate-limit", seconds=30, times=1)
    failed = fail(one.find_or_add, *VISIT)
    assert (failed.outcome.free, failed.outcome.after) == (True, 30)
    with pytest.raises(errors.NotSent):
        client(**one.changed).find_or_add(*VISIT)


def test_what_stops_a_call_passes_and_tokens_are_remembered(client, upstreams, work, monkeypatch):
    one = client()
    one.authorize()

    def stop(index=0):
        raise errors.StopAsked

    monkeypatch.setattr(work, "intend", stop)
    with pytest.raises(errors.StopAsked):
        one.create_claim("appointment")
    assert upstreams.ledger()["totals"]["claims"] == 0
    assert one.changed["btsss_token"]


def test_a_process_has_one_gateway_for_its_settings(configured):
    first = travel_pay_access.gateway(configured.travel_pay)
    assert travel_pay_access.gateway(configured.travel_pay) is first
