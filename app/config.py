"""Settings: the only reader of the environment.

A line exists when its URL is set; then all its required variables must be there, in web and worker alike. Whatever is
missing or malformed stops the process at start with one message that names every variable at fault. No secret has a
default, and none is shown by `repr`.
"""

import functools
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import errors
from app.variables import (
    ApiKey,
    CallbackHosts,
    CallbackTokens,
    DeletePath,
    Duration,
    File,
    Filled,
    HttpUrl,
    Key,
    Keys,
    Origin,
    Seconds,
    Secret,
    TimeZone,
    Uuid,
)

Product = Literal["pci", "oh"]
Template = Literal["success", "duplicate", "error", "failure", "timeout"]
TRAVEL_PAY_VERSIONS = {
    "system-access-token": "v4",
    "find-or-add": "v3",
    "claims": "v3",
    "claims-search": "v3",
    "mileage": "v3",
    "expenses": "v1",
}
SEND_WITHIN_SECONDS = 2.0  # a call not sent this soon after its intent was begun is not sent (the model: two_seconds)


def _versions(text: object) -> object:
    if not isinstance(text, str):
        return text
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, given[name] = part.partition("=")
    for name, version in given.items():
        if name not in TRAVEL_PAY_VERSIONS:
            raise ValueError(f"unknown key {name!r}; known: {', '.join(TRAVEL_PAY_VERSIONS)}")
        if not re.fullmatch(r"v[0-9]+", version):
            raise ValueError(f"{name} must look like v3")
    return {**TRAVEL_PAY_VERSIONS, **given}


class _Group(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)


G = TypeVar("G", bound=_Group)


class TravelPay(_Group):
    """Travel claims contract, section 6. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="TRAVEL_PAY_")

    url: HttpUrl
    auth_url: HttpUrl
    tenant_id: Filled
    client_id: Filled
    client_secret: Secret
    resource: Filled
    subscription_key: SecretStr | None = None
    subscription_key_e: SecretStr | None = None
    subscription_key_s: SecretStr | None = None
    pci_secret: SecretStr | None = None
    pci_client_number: str | None = None
    oh_secret: SecretStr | None = None
    oh_client_number: str | None = None
    versions: Annotated[Mapping[str, str], NoDecode, BeforeValidator(_versions)] = Field(
        default_factory=lambda: dict(TRAVEL_PAY_VERSIONS)
    )
    delete_claim_path: DeletePath = ""
    spaced_trip_types: bool = False
    connect_timeout: Seconds = 10
    read_timeout: Seconds = 45
    auth_read_timeout: Seconds = 30
    max_attempts: Annotated[int, Field(ge=1)] = 8
    backoff_seconds: Seconds = 5
    backoff_max_seconds: Seconds = 900
    find_seconds: Seconds = 5
    settle_seconds: Seconds = 60
    rate_per_minute: Annotated[int, Field(ge=0)] = 60
    log_upstream_text: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.subscription_key_e) != bool(self.subscription_key_s):
            raise ValueError("TRAVEL_PAY_SUBSCRIPTION_KEY_E and TRAVEL_PAY_SUBSCRIPTION_KEY_S go together: set both")
        if not self.subscription_key and not self.subscription_key_e:
            raise ValueError("TRAVEL_PAY_SUBSCRIPTION_KEY (or TRAVEL_PAY_SUBSCRIPTION_KEY_E and _S) is missing")
        if self.settle_seconds <= self.connect_timeout + self.read_timeout + SEND_WITHIN_SECONDS:
            raise ValueError(
                "TRAVEL_PAY_SETTLE_SECONDS must be above TRAVEL_PAY_CONNECT_TIMEOUT + TRAVEL_PAY_READ_TIMEOUT + 2, "
                "or a late effect could be taken for none"
            )
        return self

    def credentials(self, product: str) -> tuple[str, str]:
        """The product's secret and client number. Raises BadSettings, naming the variable, when they are not set."""
        secret, number = getattr(self, f"{product}_secret"), getattr(self, f"{product}_client_number")
        for value, name in ((secret, "SECRET"), (number, "CLIENT_NUMBER")):
            if not value:
                raise errors.BadSettings(
                    f"TRAVEL_PAY_{product.upper()}_{name} is missing, but a client has the product {product}"
                )
        return secret.get_secret_value(), str(number)


class TravelClaims(_Group):
    """What concerns our side of a travel claim. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="TRAVEL_CLAIMS_")

    deadline_seconds: Seconds = 86_400
    erase_after_seconds: Seconds = 2_592_000
    callback_hosts: CallbackHosts = frozenset()
    callback_insecure: bool = False


class Notify(_Group):
    """The text messages. Templates and senders are one UUID per product."""

    model_config = SettingsConfigDict(env_prefix="NOTIFY_")

    url: Origin
    api_key: ApiKey
    sms_sender_id_pci: Uuid | None = None
    sms_sender_id_oh: Uuid | None = None
    template_pci_success: Uuid | None = None
    template_pci_duplicate: Uuid | None = None
    template_pci_error: Uuid | None = None
    template_pci_failure: Uuid | None = None
    template_pci_timeout: Uuid | None = None
    template_oh_success: Uuid | None = None
    template_oh_duplicate: Uuid | None = None
    template_oh_error: Uuid | None = None
    template_oh_failure: Uuid | None = None
    template_oh_timeout: Uuid | None = None
    timeout: Seconds = 30
    backoff_seconds: Seconds = 30
    deadline_seconds: Seconds = 86_400
    settle_seconds: Seconds = 60
    callback_token: CallbackTokens

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.settle_seconds <= self.connect_timeout + self.timeout + SEND_WITHIN_SECONDS:
            raise ValueError(
                "NOTIFY_SETTLE_SECONDS must be above NOTIFY_TIMEOUT + its limit of connecting (the same, at most 10) "
                "+ 2, or a late text is taken for none"
            )
        return self

    @property
    def connect_timeout(self) -> float:
        """As `timeout`, at most 10 s."""
        return min(10.0, self.timeout)

    def sender(self, product: str) -> str:
        """The UUID of the product's text sender. Raises BadSettings, naming the variable, when it is not set."""
        return self._required(f"sms_sender_id_{product}", product)

    def template(self, product: str, template: str) -> str:
        """The UUID of the product's template. Raises BadSettings, naming the variable, when it is not set."""
        return self._required(f"template_{product}_{template}", product)

    def _required(self, name: str, product: str) -> str:
        value = getattr(self, name)
        if not value:
            raise errors.BadSettings(f"NOTIFY_{name.upper()} is missing, but a client has the product {product}")
        return str(value)


class Mdg(_Group):
    """How MDG is called. Declarations contract, section 6."""

    model_config = SettingsConfigDict(env_prefix="MDG_")

    url: HttpUrl
    bearer_token: Secret
    variant: Literal["des", "cma"] = "des"
    path: str = ""
    body: Literal["full", "projection"] = "full"
    ca_bundle: File = ""
    connect_timeout: Duration = 6
    read_timeout: Duration = 20
    total_timeout: Duration = 30
    retry_base: Duration = 5
    retry_cap: Duration = 900
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_open: Duration = 30
    rate_per_second: Annotated[int, Field(ge=1)] = 10
    max_in_flight: Annotated[int, Field(ge=1)] = 8


class Declarations(_Group):
    """What concerns our side of a declaration. Declarations contract, section 6."""

    payment_timeout: Duration = 14 * 86_400
    payment_timeout_action: Literal["log", "expire"] = "log"
    payment_timeout_sweep: Duration = 60
    submission_overdue_after: Duration = 3_600
    replay_sweep: Duration = 60
    declarations_retention: Duration = 30 * 86_400
    declarations_retention_sweep: Duration = 3_600
    declarations_lock_wait: Duration = 0.5
    charge_reference_start: Annotated[int, Field(ge=1, le=9_999_999_999)] = 1


class Imovo(_Group):
    """How i-Movo is called. Vouchers contract, section 6. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="IMOVO_")

    url: HttpUrl
    api_key: Secret
    timeout: Seconds = 15
    connect_timeout: Seconds = 3
    rate_per_second: Annotated[int, Field(ge=1)] = 10
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_seconds: Seconds = 30

    @property
    def longest_call(self) -> float:
        """Connecting and all that follows."""
        return self.connect_timeout + self.timeout


class Vouchers(_Group):
    """What concerns our side of a voucher. Vouchers contract, section 6. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="VOUCHER_")

    time_zone: TimeZone = "Europe/London"
    replacements_per_day: Annotated[int, Field(ge=1)] = 1
    replace_max_sends: Annotated[int, Field(ge=1)] = 3
    wait_seconds: Annotated[float, Field(gt=0, le=25)] = 25
    max_waiting: Annotated[int, Field(ge=1)] = 32
    settle_seconds: Seconds = 30
    fresh_seconds: Seconds = 3_600
    give_up_seconds: Seconds = 86_400
    backoff_first_seconds: Seconds = 1
    backoff_max_seconds: Seconds = 900


class Settings(_Group):
    """What every process needs. Times in seconds."""

    database_url: Annotated[str, Field(pattern=r"^postgres(ql)?://", repr=False)]
    redis_url: Annotated[str, Field(pattern=r"^(redis|rediss|unix)://", repr=False)]
    broker_url: str = Field(default="", repr=False)
    data_keys: Keys
    hash_key: Key
    secret_key: Annotated[SecretStr, Field(min_length=32)]
    release: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{0,64}$")] = ""
    stage: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]+$")] = "DEV"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    lease_heartbeat_seconds: Seconds = 1
    lease_dead_seconds: Seconds = 4
    sweep_seconds: Seconds = 1
    redispatch_seconds: Seconds = 5
    hold_seconds: Seconds = 15
    soft_shutdown_seconds: Seconds = 10
    worker_concurrency: Annotated[int, Field(ge=1)] = 32
    host: str = "0.0.0.0"  # noqa: S104 - HOST narrows it
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    web_concurrency: Annotated[int, Field(ge=1)] = 2
    web_threads: Annotated[int, Field(ge=1)] = 64
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    prometheus_multiproc_dir: str = ""

    travel_pay: TravelPay | None = None
    travel_claims: TravelClaims = Field(default_factory=TravelClaims)
    notify: Notify | None = None
    mdg: Mdg | None = None
    declarations: Declarations = Field(default_factory=Declarations)
    imovo: Imovo | None = None
    vouchers: Vouchers = Field(default_factory=Vouchers)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease_dead_seconds <= 2 * self.lease_heartbeat_seconds:
            raise ValueError("LEASE_DEAD_SECONDS must be above twice LEASE_HEARTBEAT_SECONDS")
        if self.imovo and self.vouchers.settle_seconds <= self.imovo.longest_call + SEND_WITHIN_SECONDS:
            raise ValueError(
                "VOUCHER_SETTLE_SECONDS must be above IMOVO_CONNECT_TIMEOUT + IMOVO_TIMEOUT + 2, "
                "or a late effect could be taken for none"
            )
        if self.imovo and self.vouchers.max_waiting >= self.web_threads:
            raise ValueError("WEB_THREADS must be above VOUCHER_MAX_WAITING, or who waits leaves no thread for others")
        return self

    @property
    def broker(self) -> str:
        return self.broker_url or self.redis_url


_OUR_SIDE: Mapping[str, type[_Group]] = {
    "travel_claims": TravelClaims,
    "declarations": Declarations,
    "vouchers": Vouchers,
}
_UPSTREAMS: Mapping[str, tuple[type[_Group], str]] = {
    "travel_pay": (TravelPay, "TRAVEL_PAY_URL"),
    "notify": (Notify, "NOTIFY_URL"),
    "mdg": (Mdg, "MDG_URL"),
    "imovo": (Imovo, "IMOVO_URL"),
}


def load() -> Settings:
    """Read and check the whole environment. Raises BadSettings that names every variable at fault."""
    problems: list[str] = []
    lines: dict[str, Any] = {
        name: _read(group, problems) or group.model_construct() for name, group in _OUR_SIDE.items()
    }
    for name, (group, switch) in _UPSTREAMS.items():
        if os.environ.get(switch):
            lines[name] = _read(group, problems)
    settings = _read(Settings, problems, **{name: line for name, line in lines.items() if line is not None})
    if problems or settings is None:
        raise errors.BadSettings("The environment is not usable:\n" + "\n".join(f"  {line}" for line in problems))
    return settings


def read(group: type[G]) -> G:
    """One group of the environment alone, for who needs no more. Raises BadSettings that names what is at fault."""
    problems: list[str] = []
    found = _read(group, problems)
    if found is None:
        raise errors.BadSettings("The environment is not usable:\n" + "\n".join(f"  {line}" for line in problems))
    return found


def _read(group: type[G], problems: list[str], **lines: Any) -> G | None:
    prefix = group.model_config.get("env_prefix", "")
    try:
        return group(**lines)
    except ValidationError as error:
        for fault in error.errors():
            variable = prefix + str(fault["loc"][0]).upper() if fault["loc"] else ""
            said = "is missing" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
            problems.append(f"{variable} {said}".strip())
        return None


@functools.cache
def settings() -> Settings:
    """The settings of this process, read once. Raises BadSettings."""
    return load()
