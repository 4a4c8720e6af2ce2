"""Alembic's entry: the schema of all models, against DATABASE_URL."""

from typing import Any

from alembic import context
from sqlalchemy import text

from app import crypto, db
from app.models import callback, claim, client, declaration, notification, replay, voucher, workflow
from app.models.orm import Table

MODELS = (
    callback,
    claim,
    client,
    declaration,
    notification,
    replay,
    voucher,
    workflow,
)  # imported so that their tables are known
LOCK_WAIT = "5s"  # a migration that waits for a lock must not make everybody queue behind it


def render(kind: str, item: Any, _: Any) -> str | bool:
    """A sealed column is bytes to Postgres; a migration must not depend on our column type."""
    return "sa.LargeBinary()" if kind == "type" and isinstance(item, crypto.Encrypted) else False


def run() -> None:
    """Migrate online; there is no offline mode."""
    with db.engine().connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{LOCK_WAIT}'"))
        connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Table.metadata, render_item=render)
        with context.begin_transaction():
            context.run_migrations()


run()
