"""The credentials the sandbox accepts. The defaults are for development: made up, public, and worth nothing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

OUTCOMES = ("success", "duplicate", "error", "failure", "timeout")
UUID_STEM = "11111111-2222-4333-8444-5555555555"


@dataclass(frozen=True, slots=True)
class Product:
    """What one product (`pci`, `oh`) is known by at Travel Pay and Notify."""

    name: str
    secret: str
    client_number: str
    sms_sender_id: str
    templates: Mapping[str, str]


PCI = Product(
    "pci",
    "pci-secret",
    "pci-client-number",
    f"{UUID_STEM}f1",
    {name: f"{UUID_STEM}0{number}" for number, name in enumerate(OUTCOMES, 1)},
)
OH = Product(
    "oh",
    "oh-secret",
    "oh-client-number",
    f"{UUID_STEM}f2",
    {name: f"{UUID_STEM}1{number}" for number, name in enumerate(OUTCOMES, 1)},
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything a caller must know to be let in. `variables` names it as the application's environment does."""

    tenant_id: str = "5f0e3c1b-tenant"
    client_id: str = "app"
    client_secret: str = "s3cret"
    resource: str = "api-resource"
    subscription_key: str = "subscription-key"
    subscription_key_e: str = "subscription-key-e"
    subscription_key_s: str = "subscription-key-s"
    products: tuple[Product, ...] = (PCI, OH)
    notify_service_id: str = "22222222-3333-4444-8555-666666666601"
    notify_secret: str = "22222222-3333-4444-8555-666666666602"
    notify_callback_token: str = field(default="notify-callback-token-of-the-sandbox-0001")
    mdg_bearer_token: str = "mdg-bearer-token-of-the-sandbox"
    imovo_api_key: str = "imovo-api-key-of-the-sandbox"

    @property
    def notify_api_key(self) -> str:
        return f"sandbox-{self.notify_service_id}-{self.notify_secret}"

    def product(self, secret: object, client_number: str | None) -> Product | None:
        """The product that owns both; None when they do not belong together."""
        found = (one for one in self.products if (one.secret, one.client_number) == (secret, client_number))
        return next(found, None)

    def template(self, template_id: str) -> str | None:
        """`pci success` and the like; None for a template nobody has."""
        named = {key: f"{one.name} {name}" for one in self.products for name, key in one.templates.items()}
        return named.get(template_id)

    def variables(self) -> dict[str, str]:
        """The application's environment that fits these credentials; the URLs are the caller's to add."""
        found = {
            "TRAVEL_PAY_TENANT_ID": self.tenant_id,
            "TRAVEL_PAY_CLIENT_ID": self.client_id,
            "TRAVEL_PAY_CLIENT_SECRET": self.client_secret,
            "TRAVEL_PAY_RESOURCE": self.resource,
            "TRAVEL_PAY_SUBSCRIPTION_KEY": self.subscription_key,
            "NOTIFY_API_KEY": self.notify_api_key,
            "NOTIFY_CALLBACK_TOKEN": self.notify_callback_token,
            "MDG_BEARER_TOKEN": self.mdg_bearer_token,
            "IMOVO_API_KEY": self.imovo_api_key,
        }
        for product in self.products:
            name = product.name.upper()
            found[f"TRAVEL_PAY_{name}_SECRET"] = product.secret
            found[f"TRAVEL_PAY_{name}_CLIENT_NUMBER"] = product.client_number
            found[f"NOTIFY_SMS_SENDER_ID_{name}"] = product.sms_sender_id
            for outcome, key in product.templates.items():
                found[f"NOTIFY_TEMPLATE_{name}_{outcome.upper()}"] = key
        return found

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The defaults, with whatever of `variables` the environment sets in their place."""
        base = cls()
        changed: dict[str, object] = {
            one.name: environment[name]
            for one in fields(cls)
            for name in (f"TRAVEL_PAY_{one.name.upper()}",)
            if environment.get(name)
        }
        changed |= {
            name.lower(): environment[name] for name in ("MDG_BEARER_TOKEN", "IMOVO_API_KEY") if environment.get(name)
        }
        if key := environment.get("NOTIFY_API_KEY"):
            changed |= {"notify_service_id": key[-73:-37], "notify_secret": key[-36:]}
        if token := environment.get("NOTIFY_CALLBACK_TOKEN"):
            changed["notify_callback_token"] = token.split(",")[0].strip()
        changed["products"] = tuple(_product_from(environment, one) for one in base.products)
        return replace(base, **changed)  # type: ignore[arg-type]


def _product_from(environment: Mapping[str, str], base: Product) -> Product:
    name = base.name.upper()
    return Product(
        base.name,
        environment.get(f"TRAVEL_PAY_{name}_SECRET") or base.secret,
        environment.get(f"TRAVEL_PAY_{name}_CLIENT_NUMBER") or base.client_number,
        environment.get(f"NOTIFY_SMS_SENDER_ID_{name}") or base.sms_sender_id,
        {
            outcome: environment.get(f"NOTIFY_TEMPLATE_{name}_{outcome.upper()}") or key
            for outcome, key in base.templates.items()
        },
    )
