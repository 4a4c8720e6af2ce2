"""The environment: what is missing or malformed is named in one message, and no secret is ever told."""

import base64
import os
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from app import config, errors

KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER_KEY = base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
COMMON = {
    "DATABASE_URL": "postgresql://user:database-password@localhost/throughline",
    "REDIS_URL": "redis://:redis-password@localhost/0",
    "DATA_KEYS": KEY,
    "HASH_KEY": OTHER_KEY,
    "SECRET_KEY": "a secret of thirty-two characters and more",
}
TRAVEL_PAY = {
    "TRAVEL_PAY_URL": "https://travel-pay.example/base/",
    "TRAVEL_PAY_AUTH_URL": "https://login.example",
    "TRAVEL_PAY_TENANT_ID": "tenant",
    "TRAVEL_PAY_CLIENT_ID": "client",
    "TRAVEL_PAY_CLIENT_SECRET": "travel-pay-secret",
    "TRAVEL_PAY_RESOURCE": "resource",
    "TRAVEL_PAY_SUBSCRIPTION_KEY": "subscription-secret",
}
NOTIFY = {
    "NOTIFY_URL": "https://notify.example",
    "NOTIFY_API_KEY": "name-11111111-2222-4333-8444-555555555501-11111111-2222-4333-8444-555555555502",
    "NOTIFY_CALLBACK_TOKEN": "callback-token-of-thirty-two-characters",
}
IMOVO = {"IMOVO_URL": "https://imovo.example", "IMOVO_API_KEY": "imovo-secret"}
EVERYTHING = {**COMMON, **TRAVEL_PAY, **NOTIFY}
SWITCHES = {"TRAVEL_PAY_URL", "NOTIFY_URL"}
REQUIRED = sorted(EVERYTHING.keys() - SWITCHES - {"TRAVEL_PAY_SUBSCRIPTION_KEY"})
SECRETS = [
    "database-password", "redis-password", KEY, OTHER_KEY, COMMON["SECRET_KEY"], "travel-pay-secret",
    "subscription-secret", NOTIFY["NOTIFY_API_KEY"], NOTIFY["NOTIFY_CALLBACK_TOKEN"],
]  # fmt: skip
MALFORMED = {
    "DATABASE_URL": "mysql://user:database-password@localhost/throughline",
    "REDIS_URL": "http://:redis-password@localhost",
    "DATA_KEYS": f"{KEY},short-secret",
    "HASH_KEY": base64.b64encode(b"fifteen-letters").decode(),
    "SECRET_KEY": "too-short-secret",
    "LOG_LEVEL": "LOUD",
    "SWEEP_SECONDS": "0",
    "WORKER_CONCURRENCY": "many",
    "METRICS_PORT": "70000",
    "PORT": "eighty",
    "WEB_CONCURRENCY": "0",
    "WEB_THREADS": "many",
    "TRAVEL_PAY_URL": "travel-pay.example",
    "TRAVEL_PAY_AUTH_URL": "ftp://login.example",
    "TRAVEL_PAY_MAX_ATTEMPTS": "0",
    "TRAVEL_PAY_VERSIONS": "claims=three",
    "TRAVEL_PAY_DELETE_CLAIM_PATH": "api/v3/claims",
    "TRAVEL_PAY_SPACED_TRIP_TYPES": "perhaps",
    "TRAVEL_PAY_RATE_PER_MINUTE": "-1",
    "TRAVEL_CLAIMS_DEADLINE_SECONDS": "soon",
    "TRAVEL_CLAIMS_CALLBACK_HOSTS": "https://hooks.example",
    "TRAVEL_CLAIMS_CALLBACK_INSECURE": "perhaps",
    "NOTIFY_URL": "https://notify.example/base",
    "NOTIFY_API_KEY": "a-secret-without-ids",
    "NOTIFY_SMS_SENDER_ID_PCI": "nobody",
    "NOTIFY_CALLBACK_TOKEN": "short-token",
}
Load = Callable[..., config.Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load(COMMON, PORT=1)` reads an environment that holds nothing else; None leaves a variable out."""

    def read(variables: dict[str, str], **changes: str | None) -> config.Settings:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in {**variables, **changes}.items():
            if value is not None:
                monkeypatch.setenv(name, value)
        return config.load()

    return read


def refusal(load: Load, variables: dict[str, str], **changes: str | None) -> str:
    """What is said of an environment that cannot be used."""
    with pytest.raises(errors.BadSettings) as raised:
        load(variables, **changes)
    return str(raised.value)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_a_required_variable_that_is_missing_is_named(load: Load, name: str, value: str | None) -> None:
    assert f"\n  {name} is missing" in refusal(load, EVERYTHING, **{name: value})


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_variable_is_named_and_its_value_is_not_told(load: Load, name: str) -> None:
    said = refusal(load, EVERYTHING, **{name: MALFORMED[name]})
    assert said.splitlines()[1].startswith(f"  {name} ") or said.splitlines()[1].startswith(f"  {name}_")
    assert not [secret for secret in (*SECRETS, "short-secret", "too-short-secret", "short-token") if secret in said]


def test_all_that_is_missing_is_named_in_one_message(load: Load) -> None:
    said = refusal(load, {"TRAVEL_PAY_URL": TRAVEL_PAY["TRAVEL_PAY_URL"], "NOTIFY_URL": NOTIFY["NOTIFY_URL"]})
    assert [name for name in REQUIRED if f"\n  {name} is missing" not in said] == []
    assert len(said.splitlines()) == 1 + len(REQUIRED)


def test_all_that_is_malformed_is_named_in_one_message(load: Load) -> None:
    said = refusal(load, {**EVERYTHING, **MALFORMED})
    assert [name for name in MALFORMED if f"\n  {name}" not in said] == []


def test_a_complete_environment_is_taken(load: Load) -> None:
    settings = load(EVERYTHING)
    assert settings.travel_pay
    assert settings.travel_pay.url == "https://travel-pay.example/base"
    assert settings.notify
    assert settings.broker == COMMON["REDIS_URL"]


def test_a_broker_of_its_own_is_used(load: Load) -> None:
    assert load(COMMON, BROKER_URL="redis://elsewhere/1").broker == "redis://elsewhere/1"


def test_a_line_that_is_off_needs_nothing(load: Load) -> None:
    settings = load({**EVERYTHING, **MALFORMED, **COMMON}, **dict.fromkeys(MALFORMED.keys() - COMMON.keys()))
    assert (settings.travel_pay, settings.notify) == (None, None)
    nonsense = {"TRAVEL_PAY_MAX_ATTEMPTS": "nonsense", "NOTIFY_API_KEY": "nonsense"}
    assert load({**COMMON, **nonsense}).travel_pay is None


def test_no_secret_is_ever_shown(load: Load) -> None:
    settings = load(EVERYTHING)
    shown = f"{settings!r} {settings} {settings.travel_pay!r} {settings.notify!r}"
    assert [secret for secret in SECRETS if secret in shown] == []


def test_a_refused_secret_is_not_in_the_error_of_the_library_either(load: Load) -> None:
    load(EVERYTHING)
    for group, changes in (
        (config.Settings, {"hash_key": "short-secret"}),
        (config.Notify, {"api_key": "short-secret"}),
    ):
        with pytest.raises(ValidationError) as raised:
            group(**changes)
        assert "short-secret" not in str(raised.value)


def test_settings_cannot_be_changed(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(COMMON).release = "other"  # type: ignore[misc]


def test_settings_are_read_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load(COMMON)
    config.settings.cache_clear()
    try:
        first = config.settings()
        monkeypatch.setenv("RELEASE", "other")
        assert config.settings() is first
    finally:
        config.settings.cache_clear()


# What belongs together


@pytest.mark.parametrize(("settle", "usable"), [("57", False), ("57.1", True)])
def test_travel_pay_settles_later_than_the_longest_call(load: Load, settle: str, usable: bool) -> None:
    limits = {"TRAVEL_PAY_CONNECT_TIMEOUT": "10", "TRAVEL_PAY_READ_TIMEOUT": "45", "TRAVEL_PAY_SETTLE_SECONDS": settle}
    if usable:
        load(EVERYTHING, **limits)
    else:
        assert "TRAVEL_PAY_SETTLE_SECONDS must be above" in refusal(load, EVERYTHING, **limits)


@pytest.mark.parametrize(
    ("limit", "settle", "usable"), [("30", "42", False), ("30", "42.1", True), ("3", "8", False), ("3", "8.1", True)]
)
def test_notify_settles_later_than_the_longest_call(load: Load, limit: str, settle: str, usable: bool) -> None:
    limits = {"NOTIFY_TIMEOUT": limit, "NOTIFY_SETTLE_SECONDS": settle}
    if usable:
        load(EVERYTHING, **limits)
    else:
        assert "NOTIFY_SETTLE_SECONDS must be above NOTIFY_TIMEOUT" in refusal(load, EVERYTHING, **limits)


@pytest.mark.parametrize(("settle", "usable"), [("20", False), ("20.1", True)])
def test_a_voucher_settles_later_than_the_longest_call(load: Load, settle: str, usable: bool) -> None:
    limits = {"IMOVO_CONNECT_TIMEOUT": "3", "IMOVO_TIMEOUT": "15", "VOUCHER_SETTLE_SECONDS": settle}
    if usable:
        load({**COMMON, **IMOVO}, **limits)
    else:
        assert "VOUCHER_SETTLE_SECONDS must be above" in refusal(load, {**COMMON, **IMOVO}, **limits)


def test_a_worker_is_not_dead_before_it_could_beat_twice(load: Load) -> None:
    said = refusal(load, COMMON, LEASE_HEARTBEAT_SECONDS="2", LEASE_DEAD_SECONDS="4")
    assert "LEASE_DEAD_SECONDS must be above twice LEASE_HEARTBEAT_SECONDS" in said
    load(COMMON, LEASE_HEARTBEAT_SECONDS="2", LEASE_DEAD_SECONDS="4.1")


@pytest.mark.parametrize("alone", ["E", "S"])
def test_one_of_two_subscription_keys_is_an_error(load: Load, alone: str) -> None:
    said = refusal(load, EVERYTHING, **{f"TRAVEL_PAY_SUBSCRIPTION_KEY_{alone}": "key"})
    assert "TRAVEL_PAY_SUBSCRIPTION_KEY_E and TRAVEL_PAY_SUBSCRIPTION_KEY_S go together" in said


def test_a_subscription_key_is_needed_one_way_or_the_other(load: Load) -> None:
    plain = {"TRAVEL_PAY_SUBSCRIPTION_KEY": None}
    assert "TRAVEL_PAY_SUBSCRIPTION_KEY" in refusal(load, EVERYTHING, **plain)
    load(EVERYTHING, **plain, TRAVEL_PAY_SUBSCRIPTION_KEY_E="key", TRAVEL_PAY_SUBSCRIPTION_KEY_S="key")


def test_versions_may_be_given_in_part_and_only_for_what_is_known(load: Load) -> None:
    travel_pay = load(EVERYTHING, TRAVEL_PAY_VERSIONS="claims=v4, mileage=v5").travel_pay
    assert travel_pay
    assert travel_pay.versions == {**config.TRAVEL_PAY_VERSIONS, "claims": "v4", "mileage": "v5"}
    said = refusal(load, EVERYTHING, TRAVEL_PAY_VERSIONS="hotels=v1")
    assert "TRAVEL_PAY_VERSIONS unknown key 'hotels'; known: system-access-token" in said


@pytest.mark.parametrize(
    ("tokens", "usable"),
    [("a" * 32, True), ("a" * 32 + "," + "b" * 32, True), ("a" * 31, False), ("a" * 99 + ",b", False)],
)
def test_one_or_two_callback_tokens_of_32_characters_are_taken(load: Load, tokens: str, usable: bool) -> None:
    if usable:
        load(EVERYTHING, NOTIFY_CALLBACK_TOKEN=tokens)
    else:
        assert "NOTIFY_CALLBACK_TOKEN must be" in refusal(load, EVERYTHING, NOTIFY_CALLBACK_TOKEN=tokens)


def test_a_product_without_credentials_names_the_variable(load: Load) -> None:
    settings = load(EVERYTHING, TRAVEL_PAY_PCI_SECRET="pci-secret", TRAVEL_PAY_PCI_CLIENT_NUMBER="7")
    assert settings.travel_pay
    assert settings.travel_pay.credentials("pci") == ("pci-secret", "7")
    with pytest.raises(errors.BadSettings, match="TRAVEL_PAY_OH_SECRET is missing"):
        settings.travel_pay.credentials("oh")
    assert settings.notify
    with pytest.raises(errors.BadSettings, match="NOTIFY_SMS_SENDER_ID_OH is missing"):
        settings.notify.sender("oh")
    with pytest.raises(errors.BadSettings, match="NOTIFY_TEMPLATE_OH_SUCCESS is missing"):
        settings.notify.template("oh", "success")


def test_callbacks_go_nowhere_unless_hosts_are_listed(load: Load) -> None:
    assert load(COMMON).travel_claims.callback_hosts == frozenset()
    listed = load(COMMON, TRAVEL_CLAIMS_CALLBACK_HOSTS=" Hooks.example:443 , other.example:8443,").travel_claims
    assert listed.callback_hosts == {"hooks.example", "other.example:8443"}


@pytest.mark.parametrize("hosts", ["*", "hooks.example/path", "user@hooks.example", "hooks.example:70000", "a b"])
def test_an_entry_of_the_list_that_is_no_host_is_refused(load: Load, hosts: str) -> None:
    with pytest.raises(errors.BadSettings, match="TRAVEL_CLAIMS_CALLBACK_HOSTS must be a comma list"):
        load(COMMON, TRAVEL_CLAIMS_CALLBACK_HOSTS=hosts)
