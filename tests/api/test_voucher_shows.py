"""Showing a voucher, its redemptions and its operations: contract 2.5, 2.8 and 2.9. No code ever stands in a log."""

import json
import logging
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select, update

from app import clock, config, db, errors
from app.flows import voucher_reads
from app.models.voucher import Voucher, VoucherCode
from app.models.workflow import Workflow
from app.store import workflows
from app.upstreams import imovo as upstream

SUB = "a2F5I000003KvWxUAK"
PLAN = {"ratePlanName": "Sunday"}
GONE = {"message": f"No live voucher for subscription {SUB}"}
AWAY = {"message": "i-Movo cannot be reached"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(voucher_reads, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def pair(ask, at_work):
    return ask("PUT", f"/{SUB}", PLAN).json


@pytest.fixture
def planted(imovo):
    """A voucher that exists at i-Movo only: its codes."""
    codes = {"card": "6027181854", "letter": "0410023375"}
    imovo.upstreams["imovo"].plant(SUB, scheme="GuardianSunday", codes=codes)
    return {"cardCode": "6027181854", "letterCode": "0410023375"}


def reads(imovo, call: str = "get-voucher") -> int:
    return len(imovo.calls(upstream="imovo", call=call))


def record() -> Voucher | None:
    with db.transaction() as session:
        return session.scalar(select(Voucher))


# Routes 1 and 6


def test_a_fresh_record_is_shown_without_a_call(ask, at_work, pair):
    with db.transaction() as session:
        session.execute(update(Voucher).values(confirmed_at=clock.now() - timedelta(seconds=90)))
    answer = ask("GET", f"/{SUB}")
    assert (answer.status_code, answer.json) == (200, pair)
    assert 90 <= int(answer.headers["Age"]) < 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert reads(at_work) == 0


@pytest.mark.parametrize("stale", [True, False])
def test_a_stale_record_or_refresh_is_read_at_imovo(ask, at_work, pair, stale):
    if stale:
        with db.transaction() as session:
            session.execute(update(Voucher).values(confirmed_at=clock.now() - timedelta(hours=2)))
    answer = ask("GET", f"/{SUB}" if stale else f"/{SUB}?refresh=true")
    assert (answer.status_code, answer.json, answer.headers["Age"]) == (200, pair, "0")
    assert reads(at_work) == 1


def test_what_only_imovo_knows_is_adopted_by_the_first_who_reads_it(ask, add_client, imovo, planted):
    answer = ask("GET", f"/{SUB}")
    assert (answer.status_code, answer.json, answer.headers["Age"]) == (200, planted, "0")
    assert ask("GET", f"/{SUB}").json == planted
    assert reads(imovo) == 1
    assert ask("GET", f"/{SUB}", key=add_client("other", scopes=["vouchers"], product=None)).status_code == 404
    shown = ask("GET", f"/{SUB}/operations").json
    assert (shown["state"], shown["scheme"], shown["operations"]) == ("active", "GuardianSunday", [])


def test_what_was_live_here_and_is_not_there_is_cancelled_and_drift(ask, at_work, pair):
    at_work.upstreams["imovo"].book.subscription(SUB).end()
    answer = ask("GET", f"/{SUB}?refresh=true")
    assert (answer.status_code, answer.json) == (404, GONE)
    assert record().state == "cancelled"
    assert ask("GET", f"/{SUB}").status_code == 404
    assert reads(at_work) == 1


@pytest.mark.parametrize(("left", "connect", "whole"), [(2.0, 2.0, 2.0), (4.0, 3.0, 4.0), (60.0, 3.0, 18.0)])
def test_connecting_and_reading_together_take_no_more_than_what_is_left(imovo, monkeypatch, left, connect, whole):
    class Way:
        def send(self, work, request, understand):
            asked.append(request)
            raise errors.NotSent("breaker")

        def open_for(self):
            return 0

    asked = []
    monkeypatch.setattr(voucher_reads, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(upstream, "upstream", lambda settings: Way())
    with pytest.raises(voucher_reads.Unreachable):
        voucher_reads.voucher(SUB, correlation_id="crm-1", ends=left)
    assert (asked[0].connect, asked[0].whole) == (connect, whole)


def test_an_unknown_subscription_leaves_no_record(ask, imovo):
    answer = ask("GET", f"/{SUB}")
    assert (answer.status_code, answer.json) == (404, GONE)
    assert record() is None
    assert ask("GET", f"/{SUB}/operations").status_code == 404


def test_while_a_create_is_unfinished_a_miss_says_where_it_is_shown(ask, imovo, dispatched):
    accepted = ask("PUT", f"/{SUB}", PLAN, prefer="respond-async")
    answer = ask("GET", f"/{SUB}")
    assert (answer.status_code, answer.json) == (404, GONE)
    assert (answer.headers["Link"], answer.headers["Retry-After"]) == (accepted.headers["Link"], "5")
    assert record().state == "requested"


def test_a_read_changes_nothing_while_an_operation_is_unfinished(ask, imovo, planted, dispatched):
    ask("POST", "/cancel", {"subscriptionId": SUB}, prefer="respond-async")
    assert ask("GET", f"/{SUB}").json == planted
    assert (record().state, record().client_id) == (None, None)


def test_a_read_that_an_operation_has_overtaken_changes_nothing(ask, at_work, pair, monkeypatch):
    """What was read before a replacement is old when it arrives."""
    read = voucher_reads.voucher

    def overtaken(*args, **rest):
        seen = read(*args, **rest)
        ask("POST", "/replace", {"subscriptionId": SUB, "replaceCard": True, "replaceLetter": True})
        return seen

    with monkeypatch.context() as slow:
        slow.setattr(voucher_reads, "voucher", overtaken)
        ask("GET", f"/{SUB}?refresh=true")
    assert ask("GET", f"/{SUB}").json != pair
    with db.transaction() as session:
        superseded = session.scalars(select(VoucherCode).where(VoucherCode.superseded_on.is_not(None))).all()
    assert len(superseded) == 2


@pytest.mark.parametrize(("kind", "named"), [("card", "card"), ("letter", "letter")])
def test_a_voucher_without_one_of_its_codes_is_no_answer(ask, at_work, pair, kind, named):
    at_work.fault("get-voucher", "kind-missing", kind=kind)
    answer = ask("GET", f"/{SUB}?refresh=true")
    assert (answer.status_code, answer.json) == (
        502,
        {"message": f"i-Movo answered without a live {named} for subscription {SUB}"},
    )
    assert ask("GET", f"/{SUB}").json == pair


def test_a_lone_fault_passes_unnoticed_and_three_do_not(ask, imovo, planted):
    imovo.fault("get-voucher", "status", status=500, times=2)
    assert ask("GET", f"/{SUB}").json == planted
    imovo.fault("get-voucher", "html", times=3)
    answer = ask("GET", f"/{SUB}?refresh=true")
    assert (answer.status_code, answer.json) == (502, {"message": "i-Movo could not show the voucher: faulty answer"})
    assert reads(imovo) == 6


def test_a_refusal_is_told_in_imovos_words(ask, imovo):
    imovo.fault("get-voucher", "refused", texts=["Card 6027181854 is locked", "Ask us"])
    answer = ask("GET", f"/{SUB}")
    said = "i-Movo could not show the voucher: Card *** is locked; Ask us"
    assert (answer.status_code, answer.json) == (502, {"message": said})
    assert reads(imovo) == 1


def test_no_answer_is_503_at_once_while_the_breaker_is_open(ask, imovo, set_settings):
    set_settings(IMOVO_BREAKER_FAILURES=3)
    imovo.listen("imovo", open=False)
    first = ask("GET", f"/{SUB}")
    assert (first.status_code, first.json, first.headers["Retry-After"]) == (503, AWAY, "5")
    imovo.listen("imovo", open=True)
    held = ask("GET", f"/redemption-history/{SUB}")
    assert (held.status_code, held.json) == (503, AWAY)
    assert 10 <= int(held.headers["Retry-After"]) <= 30
    assert reads(imovo) == 0


def test_a_read_is_cut_off_when_its_time_is_over(ask, imovo, set_settings):
    set_settings(VOUCHER_WAIT_SECONDS="0.4")
    imovo.fault("get-voucher", "delay", seconds=5)
    answer = ask("GET", f"/{SUB}")
    assert (answer.status_code, answer.json) == (503, AWAY)


def test_without_a_free_slot_of_the_rate_limit_nothing_is_read(ask, imovo, monkeypatch):
    def held(*args):
        raise errors.NotSent("limiter", after=9)

    monkeypatch.setattr(upstream.Imovo, "get", held)
    answer = ask("GET", f"/{SUB}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


# Route 10


def test_redemptions_are_shown_as_imovo_tells_them(ask, imovo, planted):
    answer = ask("GET", f"/redemption-history/{SUB}?limit=3")
    assert answer.status_code == 200
    attempts = answer.json["redemptionAttempts"]
    assert len(attempts) == 3
    assert list(attempts[0]) == [
        "voucherCode", "voucherType", "actionDate", "activityType", "address", "postCode", "message", "value", "amount",
    ]  # fmt: skip
    assert imovo.calls(upstream="imovo")[-1]["query"]["MaxLines"] == "3"


def test_too_many_redemptions_are_cut_to_the_latest_in_the_order_received(ask, imovo, planted):
    days = ["2025-02-03", "2025-02-01", "2025-02-04", "2025-02-02"]
    item = {"voucherCode": "1", "voucherType": "Card", "activityType": "Redemption", "address": None,
            "postCode": None, "reason": "Success", "value": 1.0}  # fmt: skip
    lines = [{**item, "date": f"{day}T10:45:20.787"} for day in days]
    imovo.fault("redemption-history", "altered", members={"voucherHistoryItem": lines})
    shown = ask("GET", f"/redemption-history/{SUB}?limit=2").json["redemptionAttempts"]
    assert [one["actionDate"][:10] for one in shown] == ["2025-02-03", "2025-02-04"]


def test_redemptions_of_nothing(ask, at_work, pair):
    not_live = "Unable to get redemption history: no live subscription vouchers exist"
    at_work.fault("redemption-history", "refused", texts=[not_live])
    assert ask("GET", f"/redemption-history/{SUB}").json == {"redemptionAttempts": []}
    unknown = ask("GET", "/redemption-history/other")
    assert (unknown.status_code, unknown.json) == (404, {"message": "No live voucher for subscription other"})


# Routes 11 and 12


def test_operations_are_listed_by_pages_newest_first(ask, at_work, pair):
    for _ in range(2):
        ask("POST", "/cancel", {"subscriptionId": SUB})
        ask("PUT", f"/{SUB}", PLAN)
    whole = ask("GET", f"/{SUB}/operations").json
    kinds = [one["kind"] for one in whole["operations"]]
    assert kinds == ["create", "cancel", "create", "cancel", "create"]
    assert all("answer" not in one for one in whole["operations"])
    first = ask("GET", f"/{SUB}/operations?limit=3").json
    rest = ask("GET", f"/{SUB}/operations?limit=3&cursor={first['nextCursor']}").json
    assert first["operations"] + rest["operations"] == whole["operations"]
    assert (whole["nextCursor"], rest["nextCursor"]) == (None, None)


def test_an_unfinished_operation_says_when_to_look_again(ask, dispatched):
    accepted = ask("PUT", f"/{SUB}", PLAN, prefer="respond-async").json["operationId"]
    answer = ask("GET", f"/operations/{accepted}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (200, "2")
    assert (answer.json["answer"], answer.json["outcomeCode"], answer.json["finishedAt"]) == (None, None, None)
    assert answer.json["nextAttemptAt"].endswith("Z")


def test_an_operator_sees_everything_but_the_codes(ask, add_client, at_work, pair):
    operator = add_client("operator", scopes=["operator"], product=None)
    listed = ask("GET", f"/{SUB}/operations", key=operator)
    assert listed.status_code == 200
    operation = listed.json["operations"][0]["operationId"]
    shown = ask("GET", f"/operations/{operation}", key=operator)
    assert shown.status_code == 200
    assert "answer" not in shown.json
    assert not any(code in listed.text + shown.text for code in pair.values())
    assert ask("GET", f"/{SUB}", key=operator).status_code == 403


@pytest.mark.parametrize("id", ["x", "0195870e5c1a7b529d0e3f7e6f1c2a44", "0195870e-5c1a-7b52-9d0e-3f7e6f1c2a44"])
def test_an_operation_that_is_none_is_not_found(ask, id):
    answer = ask("GET", f"/operations/{id}")
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/not-found")


# Nothing of it leaks


def test_no_code_and_no_key_is_ever_logged(ask, salesforce, at_work, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    seen = dict(ask("PUT", f"/{SUB}", PLAN, headers={"Idempotency-Key": "k-canary"}).json)
    seen |= {f"new {kind}": code for kind, code in ask("POST", "/replace", seen).json.items()}
    at_work.fault("get-voucher", "html", times=3)
    ask("GET", f"/{SUB}?refresh=true")
    ask("GET", f"/redemption-history/{SUB}")
    ask("POST", "/replace", {"cardCode": "7777777777", "letterCode": "8888888888"})
    written = capsys.readouterr().out + caplog.text + json.dumps([str(one.__dict__) for one in caplog.records])
    assert SUB in written
    imovo_key = config.settings().imovo.api_key.get_secret_value()
    for secret in (*seen.values(), salesforce, "7777777777", "8888888888", imovo_key):
        assert secret not in written
    with db.transaction() as session:
        history = [entry for one in session.scalars(select(Workflow.id)) for entry in workflows.timeline(session, one)]
    assert not any(code in str(history) for code in seen.values())
