"""i-Movo: what each verb asks, what each answer means, and that no call is ever made twice by itself."""

import datetime
import json
import socket

import pytest
import time_machine
from pydantic import SecretStr

from app import clock, config, errors, metrics, steps, vouchers
from app.upstreams import breaker, imovo, imovo_answers, outcomes
from app.upstreams.imovo_answers import Pair
from app.upstreams.shared import Shared

ID = "a2F5I000003KvWxUAK"
CARD, LETTER = "6027181854", "0410023375"
ENTRIES = [
    {"subscriptionType": "InactiveCard", "voucherCode": "not a number"},
    {"subscriptionType": "ActiveCard", "voucherCode": CARD},
    {"subscriptionType": "ActiveLetter", "voucherCode": LETTER},
    {"subscriptionType": "ActiveCard", "voucherCode": "1"},
    {"subscriptionType": "activeletter", "voucherCode": "2"},
]
SUBSCRIPTION = {
    "schemeName": "Guardian7Day",
    "subscriptionId": ID,
    "successfulRequest": True,
    "subscriptionVouchers": ENTRIES,
    "other": None,
}
PLAIN = {"message": "OK", "successfulRequest": True}
ITEM = {
    "voucherCode": CARD,
    "voucherType": "Card",
    "date": "2025-02-17T10:45:20.787",
    "activityType": "Redemption",
    "address": None,
    "postCode": "CB2 1TN",
    "reason": "Redemption rejected - the voucher cannot be used today",
    "value": 1.5,
}
HISTORY = {"subscriptionId": ID, "lines": 1, "successfulRequest": True, "voucherHistoryItem": [ITEM]}

VERBS = {
    "create": lambda one: one.create(ID, "Guardian7Day"),
    "get": lambda one: one.get(ID),
    "replace": lambda one: one.replace(ID, card=True, letter=True),
    "cancel": lambda one: one.cancel(ID),
    "suspend": lambda one: one.suspend(ID, datetime.date(2025, 4, 1), datetime.date(2025, 4, 8)),
    "history": lambda one: one.history(ID, 20),
}
READS = ("get", "history")
BODIES = dict.fromkeys(("create", "get", "replace"), SUBSCRIPTION) | {
    "cancel": PLAIN,
    "suspend": PLAIN,
    "history": HISTORY,
}


def raw(body, status=200, *lines):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    rows = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(data)}", *lines, "", ""]
    return "\r\n".join(rows).encode() + data


def refusal(*texts):
    return {"errorMessages": list(texts), "successfulRequest": False}


@pytest.fixture
def client(server, work, configured):
    ways = []

    def make(**more):
        given = {"url": f"http://127.0.0.1:{server.port}/", "api_key": SecretStr("key-1"), "breaker_failures": 1000}
        found = config.Imovo(**{**given, "rate_per_second": 1000, **more})
        ways.append(imovo.make(found, Shared(None)))
        return imovo.Imovo(found, work=work, by=ways[-1])

    yield make
    for way in ways:
        way.session.close()


@pytest.fixture(params=VERBS)
def verb(request):
    return request.param


def fail(one, verb):
    with pytest.raises(steps.Ended) as caught:
        VERBS[verb](one)
    return caught.value


def lost(verb):
    return steps.Retry if verb in READS else steps.Unknown


# What is asked, and what a success gives.


@pytest.mark.parametrize(
    ("verb", "target"),
    [
        ("create", f"RequestSubscriptionVouchers?SubscriptionId={ID}&SchemeName=Guardian7Day&StartDate=2025-03-31"),
        ("get", f"GetSubscriptionVoucherDetails?SubscriptionId={ID}"),
        ("replace", f"ReplaceVoucherBySubscriptionId?SubscriptionId={ID}&SubscriptionType=Both"),
        ("cancel", f"CancelSubscriptionVoucher?SubscriptionId={ID}"),
        ("suspend", f"SetHoliday?SubscriptionId={ID}&StartDate=2025-04-01&ReactivationDate=2025-04-08"),
        ("history", f"SubscriptionRedemptionHistory?SubscriptionId={ID}&MaxLines=20"),
    ],
)
def test_every_call_is_one_get_with_its_parameters(*, client, server, work, monkeypatch, verb, target):
    monkeypatch.setattr(clock, "now", lambda: datetime.datetime(2025, 3, 29, 23, 59, 59, tzinfo=datetime.UTC))
    if verb == "create":  # half past eleven in UTC is the next day in London, once summer time has come
        monkeypatch.setattr(clock, "now", lambda: datetime.datetime(2025, 3, 30, 22, 59, 59, tzinfo=datetime.UTC))
    server.acts = [raw(BODIES[verb])]
    VERBS[verb](client())
    head = server.requests[0].decode()
    assert head.startswith(f"GET /Subscription/{target} HTTP/1.1\r\n")
    assert head.endswith("\r\n\r\n")
    for line in ("X-API-KEY: key-1", "X-Correlation-ID: correlation-1", "Accept: application/json"):
        assert f"\r\n{line}\r\n" in head
    assert work.asked == (["renew"] if verb in READS else [0])
    (call,) = work.calls
    assert (call.name, call.path, call.outcome) == (verb, f"Subscription/{target.partition('?')[0]}", "ok")


@pytest.mark.parametrize(("card", "letter", "kinds"), [(True, False, "ActiveCard"), (False, True, "ActiveLetter")])
def test_one_kind_is_replaced_alone(*, client, server, card, letter, kinds):
    server.acts = [raw(SUBSCRIPTION)]
    client().replace(ID, card=card, letter=letter)
    assert f"&SubscriptionType={kinds} ".encode() in server.requests[0]


@pytest.mark.parametrize(("first", "last"), [((2024, 3, 1), "2024-02-29"), ((2025, 1, 1), "2024-12-31")])
def test_a_cancellation_date_is_the_day_after_the_last_one(client, server, first, last):
    server.acts = [raw(PLAIN)]
    client().cancel(ID, datetime.date(*first))
    assert f"?SubscriptionId={ID}&LastActiveDay={last} ".encode() in server.requests[0]


@pytest.mark.parametrize("verb", ["create", "get", "replace"])
def test_a_subscription_gives_the_first_live_code_of_each_kind(client, server, verb):
    server.acts = [raw(SUBSCRIPTION, 201)]
    assert VERBS[verb](client()) == Pair("Guardian7Day", CARD, LETTER)


@pytest.mark.parametrize(
    ("entries", "card", "letter"),
    [([], None, None), (ENTRIES[:1], None, None), (ENTRIES[:2], CARD, None), (ENTRIES[2:3], None, LETTER)],
)
def test_a_kind_that_is_not_listed_is_none(*, client, server, entries, card, letter):
    server.acts = [raw({**SUBSCRIPTION, "subscriptionVouchers": entries})]
    assert client().get(ID) == Pair("Guardian7Day", card, letter)


def test_a_history_is_given_as_received(client, server):
    server.acts = [raw({**HISTORY, "voucherHistoryItem": [ITEM, {**ITEM, "address": "12 High Street", "value": 1}]})]
    first, second = client().history(ID, 20)
    assert (first.voucher_code, first.address, first.post_code, first.value) == (CARD, None, "CB2 1TN", 1.5)
    assert (second.address, second.value, first.reason) == ("12 High Street", 1, ITEM["reason"])


def test_codes_and_addresses_do_not_show(client, server):
    server.acts = [raw(SUBSCRIPTION), raw(HISTORY)]
    said = repr((client().get(ID), client().history(ID, 20)))
    assert not any(text in said for text in (CARD, LETTER, "CB2"))


# Refusals: known texts.

EXISTS = "Unable to create vouchers: live subscription vouchers already exist for the supplied subscription ID"
NOT_LIVE = "Unable to replace voucher(s): no live subscription vouchers exist for the supplied subscription id"
NOT_LIVE_2 = "Unable to cancel vouchers: no live subscription vouchers exist for the supplied subscription id"
HOLIDAY = "Unable to create holiday, conflicting holiday found between entered dates"
PAST = "Invalid Request: Please enter a reactivation date in the future"

TEXTS = [
    ([EXISTS], "already-exists"),
    ([NOT_LIVE], "not-live"),
    ([NOT_LIVE_2], "not-live"),
    ([HOLIDAY], "holiday-conflict"),
    ([PAST], "refused"),
    ([f"  {NOT_LIVE.upper()} . "], "not-live"),
    ([HOLIDAY.replace(" ", "  \t")], "holiday-conflict"),
    ([HOLIDAY, f"{HOLIDAY}. "], "holiday-conflict"),
    ([HOLIDAY, "And another thing"], "refused"),
    ([HOLIDAY, NOT_LIVE], "refused"),
    ([HOLIDAY, ""], "refused"),
    (["Something else"], "refused"),
    ([""], "refused"),
    ([], "refused"),
]
ON_READS = ["Subscription not found.", "There was no subscription found", f"The subscription {ID} does not exist"]


@pytest.mark.parametrize("status", [200, 202, 400, 404, 422])
@pytest.mark.parametrize(("texts", "code"), TEXTS)
def test_a_refusal_has_the_code_of_its_text(*, client, server, work, texts, code, status):
    server.acts = [raw(refusal(*texts), status)] * 2
    for verb in ("suspend", "get"):
        ended = fail(client(), verb)
        assert isinstance(ended.outcome, steps.Rejected)
        assert (ended.outcome.failure.code, ended.outcome.failure.message) == (code, "; ".join(texts))
        assert (work.calls[-1].outcome, work.calls[-1].code, work.calls[-1].status) == ("rejected", code, status)


@pytest.mark.parametrize("text", ON_READS)
def test_some_texts_are_known_on_reads_alone(*, client, server, verb, text):
    server.acts = [raw(refusal(text))]
    assert fail(client(), verb).outcome.failure.code == ("not-live" if verb in READS else "refused")


def test_texts_are_shown_without_codes_and_cut(client, server):
    server.acts = [raw(refusal(f"Voucher {CARD} is used", "12345 is not", "x" * 600))]
    said = fail(client(), "replace").outcome.failure.message
    assert said.startswith("Voucher *** is used; 12345 is not; xxx")
    assert len(said) == 500
    assert imovo_answers.shown(["x" * 497 + "123456789"]) == "x" * 497 + "***"


def test_what_no_column_can_hold_is_left_out_of_texts(client, server):
    server.acts = [raw(refusal(f"No \x00live\ud800 {NOT_LIVE}\udfff \U0001f4f0"))]
    ended = fail(client(), "cancel")
    assert (ended.outcome.failure.code, ended.outcome.failure.message) == ("not-live", f"No live {NOT_LIVE} \U0001f4f0")
    assert ended.message == ended.outcome.failure.message


@pytest.mark.parametrize(
    "answer",
    [
        *(raw(b"", status, "Location: /elsewhere") for status in (301, 302, 304, 307)),
        raw(refusal(NOT_LIVE), 302),
        raw(b"", 404),
        raw(b"<html>", 400),
        raw({"message": "no"}, 405),
        raw({"successfulRequest": False, "errorMessages": None}, 409),
    ],
)
def test_a_redirect_and_a_bare_client_error_are_refusals_without_a_text(*, client, server, verb, answer):
    server.acts = [answer, raw(BODIES[verb])]
    ended = fail(client(), verb)
    assert isinstance(ended.outcome, steps.Rejected)
    assert (ended.outcome.failure.code, ended.outcome.failure.message) == ("refused", "")
    assert len(server.requests) == 1


# What may pass, and what is not known.


@pytest.mark.parametrize(("status", "code"), [(429, "rate-limited"), (401, "credentials"), (403, "credentials")])
def test_too_many_calls_and_a_refused_key_are_retries(*, client, server, verb, caplog, status, code):
    server.acts = [raw(refusal(NOT_LIVE), status)]
    ending = fail(client(), verb).outcome
    assert isinstance(ending, steps.Retry)
    assert (ending.failure.code, ending.after, ending.free) == (code, None, False)
    alerts = [record.msg["event"] for record in caplog.records if record.levelname == "ERROR"]
    assert alerts == (["imovo.credentials_refused"] if code == "credentials" else [])


def test_what_i_movo_asks_to_wait_is_passed_on_and_keeps_to_all(client, server):
    server.acts = [raw(b"", 503, "Retry-After: 7"), raw(b"", 429, "Retry-After: 9")]
    one = client()
    assert [fail(one, "get").outcome.after for _ in range(2)] == [7, 9]
    with pytest.raises(errors.NotSent) as stop:
        one.cancel(ID)
    assert 7.5 < stop.value.after < 10  # not the 7 of the first answer


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", [b"<html>", refusal(NOT_LIVE), "the success"])
def test_a_server_error_says_nothing_whatever_its_body(*, client, server, verb, status, body):
    server.acts = [raw(BODIES[verb] if body == "the success" else body, status), raw(BODIES[verb])]
    assert type(fail(client(), verb).outcome) is lost(verb)
    assert len(server.requests) == 1


def without(body, key):
    return {name: value for name, value in body.items() if name != key}


BAD_CODES = (6027181854, "", "12a", "1" * 33, "\u0661", "1\n")
BAD_ENTRIES = (None, {}, [None], [{}], [{"subscriptionType": "ActiveCard"}], [{"subscriptionType": 1}])
BAD_VALUES = (
    ("value", "1"),
    ("value", True),
    ("value", float("nan")),
    ("address", 1),
    ("voucherCode", "x"),
    ("value", 10**400),
    ("date", None),
    *((name, odd) for name in ("reason", "address", "voucherType") for odd in ("a\x00", "\ud83d", "\udcf0 b")),
)
FAULTY = [
    *((body, verb) for verb in VERBS for body in ({}, b"", b"<html>OK</html>", [BODIES[verb]])),
    *((without(BODIES[verb], key), verb) for verb in VERBS for key in BODIES[verb] if key != "other"),
    *(({**BODIES[verb], "successfulRequest": flag}, verb) for verb in VERBS for flag in ("true", 1, None, False)),
    *(({**refusal(), "errorMessages": texts}, verb) for verb in VERBS for texts in (None, "no", [1])),
    *(({**BODIES[verb], "subscriptionId": ID.lower()}, verb) for verb in (*READS, "create", "replace")),
    *((json.dumps(BODIES[verb]).encode().ljust(1024 * 1024 + 1), verb) for verb in VERBS),
    *(({**SUBSCRIPTION, "subscriptionVouchers": entries}, "create") for entries in BAD_ENTRIES),
    *(
        ({**SUBSCRIPTION, "subscriptionVouchers": [{"subscriptionType": "ActiveCard", "voucherCode": code}]}, "create")
        for code in BAD_CODES
    ),
    *(({**SUBSCRIPTION, "schemeName": name}, "get") for name in (None, "Guardian\x00", "Guardian\udfff")),
    ({**PLAIN, "message": None}, "cancel"),
    ({**HISTORY, "lines": "1"}, "history"),
    *((without(ITEM, key), "item") for key in ITEM),
    *(({**ITEM, key: value}, "item") for key, value in BAD_VALUES),
]


@pytest.mark.parametrize(("body", "verb"), FAULTY)
def test_a_success_of_the_wrong_shape_is_none(*, client, server, work, body, verb):
    if verb == "item":
        body, verb = {**HISTORY, "voucherHistoryItem": [ITEM, body]}, "history"
    server.acts = [raw(body), raw(BODIES[verb])]
    ended = fail(client(), verb)
    assert (type(ended.outcome), ended.outcome.failure.code) == (lost(verb), "malformed-answer")
    assert (len(server.requests), work.calls[0].code) == (1, "malformed-answer")


@pytest.mark.parametrize("status", [103, 400, 404, 600])
def test_a_success_with_another_status_is_none(client, server, verb, status):
    server.acts = [raw(BODIES[verb], status)]
    assert type(fail(client(), verb).outcome) is lost(verb)


# The network. A GET with effects is never sent again.


def test_a_refused_connection_is_a_retry_and_no_intent(client, work, verb):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert isinstance(fail(client(url=f"http://127.0.0.1:{port}"), verb).outcome, steps.Retry)
    assert work.asked == []


def test_a_name_without_address_is_a_retry(client, monkeypatch, verb):
    def unknown(*_args, **_more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert isinstance(fail(client(url="http://no-such-host.invalid"), verb).outcome, steps.Retry)


def test_no_tls_is_a_retry(client, server, verb):
    server.wrap = lambda conn: (conn.recv(65536), conn.sendall(b"I speak no TLS\r\n"), conn)[2]
    assert isinstance(fail(client(url=f"https://127.0.0.1:{server.port}"), verb).outcome, steps.Retry)


@pytest.mark.parametrize("act", ["drop", "reset"])
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_a_broken_connection_is_not_tried_again(*, client, server, verb, act, kept):
    one = client()
    if kept:
        server.acts = [raw(SUBSCRIPTION)]
        one.get(ID)
    server.acts += [getattr(server, act), raw(BODIES[verb])]
    assert type(fail(one, verb).outcome) is lost(verb)
    assert (len(server.requests), server.connections) == (1 + kept, 1)


def test_half_an_answer_is_a_lost_one(client, server, verb):
    server.acts = [lambda conn: conn.sendall(raw(BODIES[verb])[:-1])]
    assert type(fail(client(), verb).outcome) is lost(verb)


@pytest.mark.parametrize("how", ["silent", "drip"])
def test_the_whole_answer_has_to_be_there_in_time(*, client, server, verb, how):
    server.acts = [server.hang if how == "silent" else server.drip(raw(BODIES[verb]), 0.02)]
    ended = fail(client(timeout=0.15), verb)
    assert (type(ended.outcome), ended.outcome.failure.code) == (lost(verb), "upstream-timeout")
    assert len(server.requests) == 1


# Breaker and metrics.


def test_trouble_opens_the_breaker_and_refusals_close_it(client, server):
    server.acts = [raw(b"", 500), server.drop, raw(b"", 403), raw(b"", 408), raw(b"", 429), raw(b"", 503), server.drop]
    one = client(breaker_failures=3)
    for _ in range(7):
        fail(one, "get")
    with pytest.raises(errors.NotSent) as stop:
        one.create(ID, "Guardian7Day")
    assert stop.value.reason == "breaker"
    assert 10 < stop.value.after < 30.6
    assert 10 < one._upstream.open_for() <= 30
    assert metrics.imovo_breaker_open._value.get() == 1


def test_the_breaker_does_not_stay_open_longer_after_a_failed_probe(client, server, work):
    server.acts = [raw(b"", 500), raw(b"", 500), raw(SUBSCRIPTION)]
    one = client(breaker_failures=1, breaker_seconds=0.05)
    for _ in range(2):
        fail(one, "get")
        work.pause(0.06)
    one.get(ID)
    assert one._upstream.open_for() == metrics.imovo_breaker_open._value.get() == breaker.State.CLOSED


@pytest.mark.parametrize(
    ("answer", "word", "code"),
    [
        (raw(PLAIN), "ok", ""),
        (raw(refusal(NOT_LIVE)), "rejected", "not-live"),
        (raw(b"", 401), "retry", "credentials"),
        (raw(b"", 500), "unknown", "upstream-unavailable"),
    ],
)
def test_calls_are_counted_by_class_and_code(*, client, server, answer, word, code):
    counted = metrics.imovo_calls.labels("cancel", word, code)._value
    before = counted.get()
    server.acts = [answer]
    if word == "ok":
        client().cancel(ID)
    else:
        fail(client(), "cancel")
    assert counted.get() == before + 1


def test_nothing_secret_is_logged(client, server, caplog):
    caplog.set_level("DEBUG")
    server.acts = [raw(SUBSCRIPTION), raw(refusal(f"Voucher {CARD}")), server.drop]
    one = client()
    one.get(ID)
    fail(one, "replace")
    fail(one, "cancel")
    said = str([record.msg for record in caplog.records if record.name.startswith("app")])
    assert "upstream.call" in said
    assert not any(text in said for text in (CARD, LETTER, "key-1", "SubscriptionId="))


def test_the_way_of_this_process_is_made_once(configured, monkeypatch):
    monkeypatch.setattr(imovo, "_upstreams", {})
    settings = config.Imovo(url="http://127.0.0.1:1", api_key=SecretStr("key-1"))
    assert imovo.upstream(settings) is imovo.upstream(settings)


def test_without_a_slot_of_the_rate_nothing_is_sent(client, server, work, monkeypatch):
    monkeypatch.setattr("app.upstreams.limits._SHORT", 0)
    server.acts = [raw(SUBSCRIPTION)]
    one = client(rate_per_second=1)
    with time_machine.travel(clock.now(), tick=False):
        one.get(ID)
        with pytest.raises(errors.NotSent) as stop:
            one.get(ID)
    assert (stop.value.reason, len(server.requests)) == ("limiter", 1)


# Against the sandbox, which knows the contract for itself.


@pytest.fixture
def sandboxed(client, upstreams):
    variables = upstreams.environment()
    return client(url=variables["IMOVO_URL"], api_key=SecretStr(variables["IMOVO_API_KEY"]))


def test_a_voucher_lives_through_all_verbs(sandboxed, upstreams):
    made = sandboxed.create(ID, "Guardian7Day")
    assert sandboxed.get(ID) == made
    replaced = sandboxed.replace(ID, card=True, letter=False)
    assert (replaced.card != made.card, replaced.letter) == (True, made.letter)
    start = vouchers.tomorrow()
    end = start + datetime.timedelta(days=7)
    sandboxed.suspend(ID, start, end)
    with pytest.raises(outcomes.Failed) as refused:
        sandboxed.suspend(ID, start, end)
    assert refused.value.outcome.failure.code == "holiday-conflict"
    assert len(sandboxed.history(ID, 5)) == 5
    with pytest.raises(outcomes.Failed) as refused:
        sandboxed.create(ID, "Guardian7Day")
    assert refused.value.outcome.failure.code == "already-exists"
    sandboxed.cancel(ID, end)
    sandboxed.cancel(ID)
    for verb in ("get", "replace", "cancel"):
        assert fail(sandboxed, verb).outcome.failure.code == "not-live"
    assert len(upstreams.calls(upstream="imovo")) == 12


@pytest.mark.parametrize("effect", [True, False])
def test_a_lost_answer_is_followed_by_no_second_call(sandboxed, upstreams, effect):
    upstreams.fault("create-voucher", "drop-after" if effect else "drop-before", times=1)
    assert isinstance(fail(sandboxed, "create").outcome, steps.Unknown)
    assert len(upstreams.calls(upstream="imovo")) == 1
    assert upstreams.ledger()["totals"]["vouchers"] == int(effect)
