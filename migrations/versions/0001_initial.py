"""initial

Revision: 0001, follows
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clients",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("product", sa.String(), nullable=True),
        sa.Column("webhook_secret", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("name", name=op.f("uq_clients_name")),
    )
    op.create_table(
        "ticks",
        sa.Column("schedule", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("schedule", "due_at", name=op.f("pk_ticks")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("release", sa.String(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("beat_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "api_keys",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_api_keys_client_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_client_id"), "api_keys", ["client_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("body", sa.String(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_idempotency_keys_client_id")),
        sa.PrimaryKeyConstraint("client_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "toggles",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("on", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_toggles_client_id")),
        sa.PrimaryKeyConstraint("client_id", "name", name=op.f("pk_toggles")),
    )
    op.create_table(
        "workflows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=True),
        sa.Column("wake_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Uuid(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("intent", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("in_doubt", sa.Boolean(), nullable=False),
        sa.Column("asked", sa.String(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("slot", sa.String(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("correlation_id", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(due_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered')) AND (wake_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered'))",
            name=op.f("ck_workflows_time_to_look_again"),
        ),
        sa.CheckConstraint("asked IN ('cancel', 'withdraw')", name=op.f("ck_workflows_asked")),
        sa.CheckConstraint(
            "kind = 'claim' AND state IN ('accepted', 'authorized', 'appointment-found', 'created', 'expensed', 'rolling-back', 'submitted', 'duplicate', 'failed', 'rolled-back', 'rollback-failed', 'cancelled') OR kind = 'notification' AND state IN ('pending', 'sent', 'delivered', 'undelivered', 'skipped', 'failed')",
            name=op.f("ck_workflows_legal_state"),
        ),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_workflows_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflows")),
        sa.UniqueConstraint("slot", name=op.f("uq_workflows_slot")),
    )
    op.create_index(
        "ix_workflows_held", "workflows", ["worker"], unique=False, postgresql_where=sa.text("worker IS NOT NULL")
    )
    op.create_index(
        "ix_workflows_kind_state",
        "workflows",
        ["kind", "state"],
        unique=False,
        postgresql_where=sa.text("wake_at IS NOT NULL"),
    )
    op.create_index("ix_workflows_listing", "workflows", ["client_id", "kind", "created_at", "id"], unique=False)
    op.create_index(
        "ix_workflows_wake",
        "workflows",
        ["priority", "wake_at"],
        unique=False,
        postgresql_where=sa.text("wake_at IS NOT NULL"),
    )
    op.create_table(
        "calls",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("upstream", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_calls_workflow_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
    )
    op.create_index(op.f("ix_calls_workflow_id"), "calls", ["workflow_id"], unique=False)
    op.create_table(
        "claims",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("product", sa.String(), nullable=False),
        sa.Column("visit", sa.String(), nullable=False),
        sa.Column("icn", sa.LargeBinary(), nullable=True),
        sa.Column("phone", sa.LargeBinary(), nullable=True),
        sa.Column("appointment", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("appointment_name", sa.LargeBinary(), nullable=True),
        sa.Column("expenses", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("expense_details", sa.LargeBinary(), nullable=True),
        sa.Column("rollback", sa.Boolean(), nullable=False),
        sa.Column("rollback_result", sa.String(), nullable=False),
        sa.Column("rollback_detail", sa.String(), nullable=True),
        sa.Column("undo", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("failed_in", sa.String(), nullable=True),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("btsss_token", sa.LargeBinary(), nullable=True),
        sa.Column("veis_fingerprint", sa.String(), nullable=True),
        sa.Column("appointment_id", sa.String(), nullable=True),
        sa.Column("facility_name", sa.String(), nullable=True),
        sa.Column("associated_claim_id", sa.String(), nullable=True),
        sa.Column("associated_claim_number", sa.String(), nullable=True),
        sa.Column("claim_id", sa.String(), nullable=True),
        sa.Column("claim_made", sa.Boolean(), nullable=False),
        sa.Column("adopt_expenses", sa.Boolean(), nullable=False),
        sa.Column("create_doubted", sa.Boolean(), nullable=False),
        sa.Column("claim_number", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["workflows.id"], name=op.f("fk_claims_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claims")),
    )
    op.create_index("ix_claims_claim_id", "claims", ["claim_id"], unique=False)
    op.create_index("ix_claims_visit", "claims", ["visit"], unique=False)
    op.create_table(
        "moves",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("of", sa.String(), nullable=True),
        sa.Column("to", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_moves_workflow_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moves")),
    )
    op.create_index(op.f("ix_moves_workflow_id"), "moves", ["workflow_id"], unique=False)
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("claim_id", sa.Uuid(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("product", sa.String(), nullable=False),
        sa.Column("template", sa.String(), nullable=False),
        sa.Column("phone", sa.LargeBinary(), nullable=True),
        sa.Column("personalisation", sa.LargeBinary(), nullable=True),
        sa.Column("notify_id", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_notifications_claim_id")),
        sa.ForeignKeyConstraint(["id"], ["workflows.id"], name=op.f("fk_notifications_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index(op.f("ix_notifications_claim_id"), "notifications", ["claim_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_notifications_claim_id"), table_name="notifications")
    op.drop_table("notifications")
    op.drop_index(op.f("ix_moves_workflow_id"), table_name="moves")
    op.drop_table("moves")
    op.drop_index("ix_claims_visit", table_name="claims")
    op.drop_index("ix_claims_claim_id", table_name="claims")
    op.drop_table("claims")
    op.drop_index(op.f("ix_calls_workflow_id"), table_name="calls")
    op.drop_table("calls")
    op.drop_index("ix_workflows_wake", table_name="workflows", postgresql_where=sa.text("wake_at IS NOT NULL"))
    op.drop_index("ix_workflows_listing", table_name="workflows")
    op.drop_index("ix_workflows_kind_state", table_name="workflows", postgresql_where=sa.text("wake_at IS NOT NULL"))
    op.drop_index("ix_workflows_held", table_name="workflows", postgresql_where=sa.text("worker IS NOT NULL"))
    op.drop_table("workflows")
    op.drop_table("toggles")
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_api_keys_client_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("workers")
    op.drop_table("ticks")
    op.drop_table("clients")
