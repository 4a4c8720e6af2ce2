"""File a travel claim from inside a Python process: the same steps, without queue, database or text message.

    TravelPay(Credentials.from_env("pci")).submit_claim(icn=..., appointment={...})

Token renewal, duplicate rules, find and undo are the very code that the workers run. Having no memory, it takes an
upstream claim that existed before the call for a duplicate. Source: travel-claims contract 2.10.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from pydantic import SecretStr
from pydantic import ValidationError as _Invalid
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app import config, errors, states
from app.expenses import TYPES
from app.fields import faults
from app.flows import claim_members
from app.flows.claim_intake import Intake
from app.flows.straight import Straight
from app.models.claim import Claim
from app.upstreams.travel_pay_access import Gateway

__all__ = [
    "Appointment",
    "ClaimError",
    "Credentials",
    "Expense",
    "InvalidClaim",
    "SimpleMileage",
    "SubmittedClaim",
    "TravelPay",
]


class _Given(config.TravelPay):
    """Settings from what the caller gave alone, not from the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature, here and below
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What Travel Pay must know of one product. Its `repr` shows no secret.

    Either `subscription_key` or both of `subscription_key_e` and `subscription_key_s`. `versions` overrides single
    entries of the version table; `delete_claim_path` is for environments that offer deleting a claim. `product` labels
    what is counted and logged.
    """

    auth_url: str
    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)
    resource: str
    url: str
    secret: str = field(repr=False)
    client_number: str
    subscription_key: str | None = field(default=None, repr=False)
    subscription_key_e: str | None = field(default=None, repr=False)
    subscription_key_s: str | None = field(default=None, repr=False)
    versions: Mapping[str, str] = field(default_factory=dict)
    delete_claim_path: str = ""
    product: config.Product = "pci"

    @classmethod
    def from_env(cls, product: config.Product) -> Self:
        """From the variables of the contract's section 6. Raises BadSettings, naming what is missing."""
        line = config.read(config.TravelPay)
        secret, number = line.credentials(product)
        plain = {name: _plain(getattr(line, name)) for name in (one.name for one in fields(cls)) if hasattr(line, name)}
        return cls(**{**plain, "secret": secret, "client_number": number, "product": product})

    def _settings(self) -> config.TravelPay:
        given: dict[str, Any] = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name in config.TravelPay.model_fields and getattr(self, one.name)
        }
        given["versions"] = {**config.TRAVEL_PAY_VERSIONS, **self.versions}
        own = {f"{self.product}_secret": self.secret, f"{self.product}_client_number": self.client_number}
        given |= {**own, "rate_per_minute": 0}
        try:
            return _Given(**given)
        except _Invalid as error:
            said = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'credentials'}: {one['msg']}" for one in error.errors()
            )
            raise errors.BadSettings(said) from None


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@dataclass(frozen=True)
class Appointment:
    """The visit, by wall-clock time (`2026-03-02T10:00:00`) and station number."""

    date_time: str
    station_number: str
    type: str | None = None
    complete: bool | None = None
    name: str | None = None

    def _body(self) -> dict[str, Any]:
        return {
            "dateTime": self.date_time,
            "stationNumber": self.station_number,
            "type": self.type,
            "complete": self.complete,
            "name": self.name,
        }


@dataclass(frozen=True)
class SimpleMileage:
    """A mileage expense; Travel Pay computes the distance."""

    trip_type: str = "RoundTrip"
    date_incurred: str | None = None
    description: str = "mileage"

    def _body(self) -> dict[str, Any]:
        return {
            "type": "mileage",
            "tripType": self.trip_type,
            "dateIncurred": self.date_incurred,
            "description": self.description,
        }


class Expense:
    """An expense of any type, its fields as in a request: `Expense("parking", costRequested=12.5)`."""

    def __init__(self, type: str, **members: Any) -> None:
        self._members = {"type": type, **members}

    def _body(self) -> dict[str, Any]:
        return self._members


@dataclass(frozen=True, kw_only=True)
class SubmittedClaim:
    """`claim_number` is None where Travel Pay did not tell it."""

    claim_id: str
    claim_number: str | None
    status: str
    appointment_id: str
    expense_ids: tuple[str, ...]
    correlation_id: str


@dataclass(frozen=True)
class Rollback:
    requested: bool
    result: str
    detail: str | None


class ClaimError(Exception):
    """The claim was not submitted. `as_dict()` is the error object of the contract's 2.4."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['step']}: {error['message']}")
        self._error = dict(error)
        self.step: str = error["step"]
        self.http_status: int = error["httpStatus"]
        self.code: str = error["code"]
        self.message: str = error["message"]
        self.expense_index: int | None = error.get("expenseIndex")
        self.claim_id: str | None = error["claim"]["id"]
        self.claim_state: str = error["claim"]["state"]
        self.rollback = Rollback(**error["rollback"])
        self.retryable: bool = error["retryable"]
        self.correlation_id: str = error["correlationId"]

    def as_dict(self) -> dict[str, Any]:
        return dict(self._error)


class InvalidClaim(ValueError):
    """The claim could not be sent as it is; nothing was called. `errors`: pointer, code and detail, as in a 422."""

    def __init__(self, found: Sequence[Mapping[str, str]]) -> None:
        super().__init__("; ".join(f"{one['pointer']}: {one['detail']}" for one in found))
        self.errors = [dict(one) for one in found]


class TravelPay:
    """Files claims of one product. Holds one VEIS token in memory; safe to use from several threads.

    `time_budget`: seconds within which a claim must be through; what is asked after it ends as a ClaimError.
    """

    def __init__(self, credentials: Credentials, time_budget: float = 180) -> None:
        self._gateway = Gateway(credentials._settings())  # noqa: SLF001 - of this module
        self._product = credentials.product
        self._budget = time_budget

    def submit_claim(
        self,
        *,
        icn: str,
        appointment: Appointment | Mapping[str, Any],
        rollback: bool = False,
        expenses: Sequence[SimpleMileage | Expense | Mapping[str, Any]] | None = None,
        correlation_id: str | None = None,
    ) -> SubmittedClaim:
        """File one claim, and return it once Travel Pay has it. Raises InvalidClaim (before any call), ClaimError."""
        asked = [SimpleMileage()] if expenses is None else expenses
        body = {
            "icn": icn,
            "appointment": _body(appointment),
            "expenses": [_body(one) for one in asked],
            "rollback": rollback,
        }
        claim = self._claim(_validated(body), correlation_id or str(uuid.uuid4()))
        line = self._gateway.settings
        Straight(
            claim,
            ends=time.monotonic() + self._budget,
            find_after=line.find_seconds,
            settle=line.settle_seconds,
            correlation_id=claim.correlation_id,
        ).carry()
        if claim.state != states.Claim.SUBMITTED:
            raise ClaimError(claim_members.error(claim) or {})
        return SubmittedClaim(
            claim_id=str(claim.claim_id),
            claim_number=claim.claim_number,
            status=str(claim.status),
            appointment_id=str(claim.appointment_id),
            expense_ids=tuple(one["expenseId"] for one in claim.expenses),
            correlation_id=claim.correlation_id,
        )

    def _claim(self, intake: Intake, correlation_id: str) -> Claim:
        new = intake.as_new_claim()
        claim = Claim(
            state=states.Claim.ACCEPTED,
            correlation_id=correlation_id,
            product=self._product,
            icn=new.icn,
            appointment=dict(new.appointment),
            appointment_name=new.appointment_name,
            expenses=[{"type": one["type"], "state": "pending", "expenseId": None} for one in new.expense_details],
            expense_details=new.expense_details,
            rollback=new.rollback,
            rollback_result="none",
            undo={},
            in_doubt=False,
            claim_made=False,
            adopt_expenses=False,
            create_doubted=False,
        )
        claim.through = self._gateway
        return claim


def _body(given: Any) -> Any:
    return dict(given) if isinstance(given, Mapping) else given._body()  # noqa: SLF001 - of this module


def _validated(body: Mapping[str, Any]) -> Intake:
    try:
        return Intake.model_validate(body)
    except _Invalid as error:
        raise InvalidClaim(faults(error, tags=tuple(TYPES))) from None
