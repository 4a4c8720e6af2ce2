"""The declarative root of all tables, and column types that several of them use."""

import os
import time
from datetime import datetime
from typing import Annotated
from uuid import UUID

from sqlalchemy import DateTime, MetaData, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

Stamp = Annotated[datetime, mapped_column(DateTime(timezone=True))]
NewStamp = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))]


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, 5.7): sorts by time of birth to the millisecond."""
    stamp = time.time_ns() // 1_000_000
    value = (stamp << 80) | (0x7 << 76) | (int.from_bytes(os.urandom(10)) & ((1 << 76) - 1))
    return UUID(int=(value & ~(0b11 << 62)) | (0b10 << 62))
