"""outcome callbacks, and the erasure of personal data

Revision: 0002, follows 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LEGAL = "kind = 'claim' AND state IN ('accepted', 'authorized', 'appointment-found', 'created', 'expensed', 'rolling-back', 'submitted', 'duplicate', 'failed', 'rolled-back', 'rollback-failed', 'cancelled') OR kind = 'notification' AND state IN ('pending', 'sent', 'delivered', 'undelivered', 'skipped', 'failed') OR kind = 'claim-callback' AND state IN ('pending', 'delivered', 'undelivered')"
REST = "(due_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered') OR kind = 'claim-callback' AND state IN ('delivered', 'undelivered')) AND (wake_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered') OR kind = 'claim-callback' AND state IN ('delivered', 'undelivered'))"
LEGAL_BEFORE = "kind = 'claim' AND state IN ('accepted', 'authorized', 'appointment-found', 'created', 'expensed', 'rolling-back', 'submitted', 'duplicate', 'failed', 'rolled-back', 'rollback-failed', 'cancelled') OR kind = 'notification' AND state IN ('pending', 'sent', 'delivered', 'undelivered', 'skipped', 'failed')"
REST_BEFORE = "(due_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered')) AND (wake_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered'))"


def upgrade() -> None:
    _check("legal_state", LEGAL)
    _check("time_to_look_again", REST)
    op.add_column("workflows", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_workflows_erasable",
        "workflows",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("kind = 'claim' AND finished_at IS NOT NULL AND erased_at IS NULL"),
    )
    op.add_column("claims", sa.Column("callback_url", sa.LargeBinary(), nullable=True))
    op.add_column("claims", sa.Column("callback_wanted", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "claim_callbacks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("claim_id", sa.Uuid(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("product", sa.String(), nullable=False),
        sa.Column("url", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_claim_callbacks_claim_id")),
        sa.ForeignKeyConstraint(["id"], ["workflows.id"], name=op.f("fk_claim_callbacks_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claim_callbacks")),
    )
    op.create_index("ix_claim_callbacks_claim_id_run", "claim_callbacks", ["claim_id", "run"], unique=True)
    op.create_index(op.f("ix_notifications_notify_id"), "notifications", ["notify_id"], unique=False)


def downgrade() -> None:
    """Back to a code that knows no callbacks: theirs are dropped."""
    op.drop_index(op.f("ix_notifications_notify_id"), table_name="notifications")
    op.drop_table("claim_callbacks")
    for table in ("moves", "calls"):
        op.execute(
            f"DELETE FROM {table} USING workflows w WHERE w.id = workflow_id AND w.kind = 'claim-callback'"  # noqa: S608
        )
    op.execute("DELETE FROM workflows WHERE kind = 'claim-callback'")
    op.drop_column("claims", "callback_wanted")
    op.drop_column("claims", "callback_url")
    op.drop_index("ix_workflows_erasable", table_name="workflows")
    op.drop_column("workflows", "erased_at")
    _check("time_to_look_again", REST_BEFORE)
    _check("legal_state", LEGAL_BEFORE)


def _check(name: str, condition: str) -> None:
    """Make a CHECK anew. Whatever the other one let through passes, so no row has to be looked at before."""
    op.drop_constraint(op.f(f"ck_workflows_{name}"), "workflows", type_="check")
    op.create_check_constraint(op.f(f"ck_workflows_{name}"), "workflows", condition)
