"""Those who call us: clients, their keys (hashed), their toggles, and their idempotency keys."""

from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from app.crypto import Encrypted
from app.models.orm import NewStamp, Stamp, Table, new_id


class Client(Table):
    __tablename__ = "clients"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    product: Mapped[str | None]
    webhook_secret: Mapped[str | None] = mapped_column(Encrypted)
    created_at: Mapped[NewStamp]


class ApiKey(Table):
    """`digest` is the SHA-256 of a key with 256 random bits; the key itself is shown once and not kept."""

    __tablename__ = "api_keys"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    client_id: Mapped[UUID] = mapped_column(ForeignKey("clients.id"), index=True)
    created_at: Mapped[NewStamp]
    revoked_at: Mapped[Stamp | None]


class Toggle(Table):
    __tablename__ = "toggles"

    client_id: Mapped[UUID] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    on: Mapped[bool]


class IdempotencyKey(Table):
    """A request with an `Idempotency-Key`: in progress while `status` is null, then its stored answer.

    `operation_id`: the voucher operation that it has started or joined.
    """

    __tablename__ = "idempotency_keys"

    client_id: Mapped[UUID] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    status: Mapped[int | None]
    headers: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    body: Mapped[str | None]
    operation_id: Mapped[UUID | None]
    created_at: Mapped[NewStamp]

    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)
