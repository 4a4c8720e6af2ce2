"""Those who call us: clients, their keys and their toggles.

A key has 256 random bits, is shown once, and only its SHA-256 is kept. Two keys of a client may be active.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models.client import ApiKey, Client, Toggle

# Scopes, with the toggles that a new client of the scope has on.
SCOPES: Mapping[str, tuple[str, ...]] = {
    "claims": ("claims", "claims-texts"),
    "declarations": ("declarations",),
    "vouchers": ("vouchers",),
    "operator": (),
}
TOGGLES = tuple(toggle for toggles in SCOPES.values() for toggle in toggles)
ACTIVE_KEYS = 2


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A client as a request knows it. `toggles` are those that are on."""

    id: UUID
    name: str
    scopes: frozenset[str]
    product: str | None
    toggles: frozenset[str]


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def add(session: Session, name: str, scopes: Sequence[str], product: str | None = None) -> str:
    """Add a client with the toggles of its scopes on, and return its first key, which is not kept.

    Raises ValueError for an unknown scope, and when there is a client of this name.
    """
    if unknown := set(scopes) - set(SCOPES):
        raise ValueError(f"There is no scope {', '.join(sorted(unknown))}; known: {', '.join(SCOPES)}")
    if session.scalar(select(Client.id).where(Client.name == name)):
        raise ValueError(f"There is a client {name} already")
    client = Client(name=name, scopes=list(dict.fromkeys(scopes)), product=product)
    session.add(client)
    session.flush()
    for toggle in {toggle for scope in scopes for toggle in SCOPES[scope]}:
        session.add(Toggle(client_id=client.id, name=toggle, on=True))
    return _new_key(session, client.id)


def rotate(session: Session, name: str) -> str:
    """Add a key and return it. It and the newest one before it are active, older ones no longer.

    Raises LookupError when there is no such client.
    """
    client = named(session, name)
    active = select(ApiKey.digest).where(ApiKey.client_id == client.id, ApiKey.revoked_at.is_(None))
    outdated = active.order_by(ApiKey.created_at.desc()).offset(ACTIVE_KEYS - 1)
    session.execute(update(ApiKey).where(ApiKey.digest.in_(outdated)).values(revoked_at=func.clock_timestamp()))
    return _new_key(session, client.id)


def renew_webhook_secret(session: Session, name: str) -> str:
    """Give a client the secret that signs its callbacks from now on, and return it. The one before it is gone.

    Raises LookupError when there is no such client.
    """
    secret = f"whsec-{secrets.token_urlsafe(32)}"
    named(session, name).webhook_secret = secret
    session.flush()
    return secret


def _new_key(session: Session, client_id: UUID) -> str:
    key = secrets.token_urlsafe(32)
    session.add(ApiKey(digest=digest(key), client_id=client_id))
    session.flush()
    return key


def named(session: Session, name: str) -> Client:
    """The client of this name. Raises LookupError."""
    client = session.scalar(select(Client).where(Client.name == name))
    if client is None:
        raise LookupError(f"There is no client {name}")
    return client


def every(session: Session) -> Iterable[tuple[Client, dict[str, bool]]]:
    """All clients by name, each with its toggles."""
    toggles: dict[UUID, dict[str, bool]] = {}
    for toggle in session.scalars(select(Toggle).order_by(Toggle.name)):
        toggles.setdefault(toggle.client_id, {})[toggle.name] = toggle.on
    return [(client, toggles.get(client.id, {})) for client in session.scalars(select(Client).order_by(Client.name))]


def by_key(session: Session, key_digest: bytes) -> Caller | None:
    """Whose active key this is, in one statement."""
    on = select(func.array_agg(Toggle.name)).where(Toggle.client_id == Client.id, Toggle.on == true())
    found = session.execute(
        select(Client.id, Client.name, Client.scopes, Client.product, on.scalar_subquery())
        .join(ApiKey, ApiKey.client_id == Client.id)
        .where(ApiKey.digest == key_digest, ApiKey.revoked_at.is_(None))
    ).one_or_none()
    if found is None:
        return None
    client_id, name, scopes, product, toggles = found
    return Caller(id=client_id, name=name, scopes=frozenset(scopes), product=product, toggles=frozenset(toggles or ()))


def is_on(session: Session, client_id: UUID, toggle: str) -> bool:
    """Whether a toggle is on for a client; one that was never set is off."""
    return session.scalar(select(Toggle.on).where(Toggle.client_id == client_id, Toggle.name == toggle)) or False


def set_toggle(session: Session, name: str, toggle: str, *, on: bool) -> None:
    """Switch a toggle of the client `name`. Raises LookupError for an unknown client, ValueError for a toggle."""
    if toggle not in TOGGLES:
        raise ValueError(f"There is no toggle {toggle}; known: {', '.join(TOGGLES)}")
    values = insert(Toggle).values(client_id=named(session, name).id, name=toggle, on=on)
    session.execute(values.on_conflict_do_update(index_elements=["client_id", "name"], set_={"on": on}))


def products(session: Session) -> list[str]:
    """The products that clients have."""
    return [product for product in session.scalars(select(Client.product).distinct()) if product]
