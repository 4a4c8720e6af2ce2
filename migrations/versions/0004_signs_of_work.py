"""signs of life and work of a worker, beside its heartbeat

Revision: 0004, follows 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = ("swept_at", "spare_at", "worked_at")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("workers", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("workers", sa.Column("backend", sa.Integer, nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "backend")
    for name in reversed(COLUMNS):
        op.drop_column("workers", name)
