"""signs of life and work of a worker, beside its heartbeat

Revision: 0004, follows 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = {
    "swept_at": sa.DateTime(timezone=True),
    "idle_at": sa.DateTime(timezone=True),
    "idle_kind": sa.String,
    "backend": sa.Integer,
}


def upgrade() -> None:
    for name, of in COLUMNS.items():
        op.add_column("workers", sa.Column(name, of, nullable=True))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("workers", name)
