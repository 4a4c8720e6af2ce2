"""declarations and vouchers

Revision: 0003, follows 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSequence, DropSequence

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LEGAL = "kind = 'claim' AND state IN ('accepted', 'authorized', 'appointment-found', 'created', 'expensed', 'rolling-back', 'submitted', 'duplicate', 'failed', 'rolled-back', 'rollback-failed', 'cancelled') OR kind = 'notification' AND state IN ('pending', 'sent', 'delivered', 'undelivered', 'skipped', 'failed') OR kind = 'claim-callback' AND state IN ('pending', 'delivered', 'undelivered') OR kind = 'declaration' AND state IN ('pending-payment', 'payment-failed', 'payment-cancelled', 'paid', 'submitted', 'failed', 'expired') OR kind = 'voucher-operation' AND state IN ('queued', 'running', 'calling', 'checking', 'succeeded', 'rejected', 'failed', 'unresolved')"
REST = "(due_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered') OR kind = 'claim-callback' AND state IN ('delivered', 'undelivered') OR kind = 'declaration' AND state IN ('expired', 'failed', 'submitted') OR kind = 'voucher-operation' AND state IN ('failed', 'rejected', 'succeeded', 'unresolved')) AND (wake_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered') OR kind = 'claim-callback' AND state IN ('delivered', 'undelivered') OR kind = 'declaration' AND state IN ('expired', 'failed', 'submitted') OR kind = 'voucher-operation' AND state IN ('failed', 'rejected', 'succeeded', 'unresolved'))"
LEGAL_BEFORE = "kind = 'claim' AND state IN ('accepted', 'authorized', 'appointment-found', 'created', 'expensed', 'rolling-back', 'submitted', 'duplicate', 'failed', 'rolled-back', 'rollback-failed', 'cancelled') OR kind = 'notification' AND state IN ('pending', 'sent', 'delivered', 'undelivered', 'skipped', 'failed') OR kind = 'claim-callback' AND state IN ('pending', 'delivered', 'undelivered')"
REST_BEFORE = "(due_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered') OR kind = 'claim-callback' AND state IN ('delivered', 'undelivered')) AND (wake_at IS NULL) = (kind = 'claim' AND state IN ('cancelled', 'duplicate', 'failed', 'rollback-failed', 'rolled-back', 'submitted') OR kind = 'notification' AND state IN ('delivered', 'failed', 'sent', 'skipped', 'undelivered') OR kind = 'claim-callback' AND state IN ('delivered', 'undelivered'))"
KINDS = "('declaration', 'voucher-operation')"
ONE = "kind <> 'voucher-operation' OR state NOT IN ('running', 'calling', 'checking') OR slot IS NOT NULL"


def upgrade() -> None:
    _check("legal_state", LEGAL)
    _check("time_to_look_again", REST)
    op.create_check_constraint(op.f("ck_workflows_one_operation_at_a_time"), "workflows", ONE)
    op.execute(
        CreateSequence(sa.Sequence("charge_reference_seq", start=1, maxvalue=9_999_999_999, cycle=False, cache=1))
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "releases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_releases")),
    )
    op.create_table(
        "replays",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replays")),
    )
    op.create_table(
        "vouchers",
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(), nullable=True),
        sa.Column("state_before", sa.String(), nullable=True),
        sa.Column("scheme", sa.String(), nullable=True),
        sa.Column("card_code", sa.LargeBinary(), nullable=True),
        sa.Column("letter_code", sa.LargeBinary(), nullable=True),
        sa.Column("codes_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_replaced_on", sa.Date(), nullable=True),
        sa.Column("cancel_on", sa.Date(), nullable=True),
        sa.Column("provisioned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "state IN ('requested', 'active', 'suspended', 'cancelled')", name=op.f("ck_vouchers_state")
        ),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_vouchers_client_id")),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_vouchers")),
    )
    op.create_index(
        "ix_vouchers_cancel_on",
        "vouchers",
        ["cancel_on"],
        unique=False,
        postgresql_where=sa.text("cancel_on IS NOT NULL"),
    )
    op.create_table(
        "declarations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("charge_reference", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("journey_data", sa.LargeBinary(), nullable=True),
        sa.Column("last_name_hash", sa.String(), nullable=True),
        sa.Column("faults", sa.LargeBinary(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("body_mode", sa.String(), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("payment_timed_out", sa.Boolean(), nullable=False),
        sa.Column("overdue", sa.Boolean(), nullable=False),
        sa.Column("replayed_release", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["workflows.id"], name=op.f("fk_declarations_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_declarations")),
        sa.UniqueConstraint("charge_reference", "number", name=op.f("uq_declarations_charge_reference_number")),
    )
    op.create_table(
        "replay_items",
        sa.Column("replay_id", sa.Uuid(), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'sent', 'submitted', 'failed', 'skipped')", name=op.f("ck_replay_items_state")
        ),
        sa.ForeignKeyConstraint(["replay_id"], ["replays.id"], name=op.f("fk_replay_items_replay_id")),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_replay_items_workflow_id")),
        sa.PrimaryKeyConstraint("replay_id", "workflow_id", name=op.f("pk_replay_items")),
    )
    op.create_index(
        "ix_replay_items_queued",
        "replay_items",
        ["replay_id", "position"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_replay_items_sent",
        "replay_items",
        ["workflow_id"],
        unique=False,
        postgresql_where=sa.text("state = 'sent'"),
    )
    op.create_table(
        "voucher_codes",
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("superseded_on", sa.Date(), nullable=True),
        sa.Column("superseded_by", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["vouchers.subscription_id"], name=op.f("fk_voucher_codes_subscription_id")
        ),
        sa.PrimaryKeyConstraint("hash", "kind", "subscription_id", name=op.f("pk_voucher_codes")),
    )
    op.create_index(op.f("ix_voucher_codes_subscription_id"), "voucher_codes", ["subscription_id"], unique=False)
    op.create_table(
        "voucher_operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("baseline", sa.LargeBinary(), nullable=True),
        sa.Column("counted_on", sa.Date(), nullable=True),
        sa.Column("counts_card", sa.Boolean(), nullable=False),
        sa.Column("counts_letter", sa.Boolean(), nullable=False),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("lost_sends", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("outcome_code", sa.String(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("withdrawable", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["workflows.id"], name=op.f("fk_voucher_operations_id")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["vouchers.subscription_id"], name=op.f("fk_voucher_operations_subscription_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_voucher_operations")),
        sa.UniqueConstraint("subscription_id", "sequence", name=op.f("uq_voucher_operations_subscription_id_sequence")),
    )
    op.create_table(
        "voucher_suspensions",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("ends_on", sa.Date(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["workflows.id"], name=op.f("fk_voucher_suspensions_operation_id")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["vouchers.subscription_id"], name=op.f("fk_voucher_suspensions_subscription_id")
        ),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_voucher_suspensions")),
    )
    op.create_index(
        op.f("ix_voucher_suspensions_subscription_id"), "voucher_suspensions", ["subscription_id"], unique=False
    )
    op.add_column("calls", sa.Column("code", sa.String(), server_default="", nullable=False))
    op.add_column("idempotency_keys", sa.Column("operation_id", sa.Uuid(), nullable=True))
    op.add_column(
        "moves", sa.Column("detail", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )
    op.add_column("workflows", sa.Column("for_release", sa.String(), nullable=True))
    op.create_index(
        "ix_workflows_failed",
        "workflows",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("kind = 'declaration' AND state = 'failed'"),
    )
    op.create_index(
        "ix_workflows_unpaid",
        "workflows",
        ["updated_at"],
        unique=False,
        postgresql_where=sa.text(
            "kind = 'declaration' AND state IN ('pending-payment', 'payment-failed', 'payment-cancelled')"
        ),
    )
    op.create_index(
        "ix_workflows_declarations",
        "workflows",
        ["state"],
        unique=False,
        postgresql_where=sa.text("kind = 'declaration'"),
    )
    op.create_index(
        "ix_workflows_declarations_erasable",
        "workflows",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("kind = 'declaration' AND state IN ('submitted', 'expired') AND erased_at IS NULL"),
    )


def downgrade() -> None:
    """Back to a code that knows neither line: their rows are dropped."""
    op.drop_index(
        "ix_workflows_declarations_erasable",
        table_name="workflows",
        postgresql_where=sa.text("kind = 'declaration' AND state IN ('submitted', 'expired') AND erased_at IS NULL"),
    )
    op.drop_index(
        "ix_workflows_declarations",
        table_name="workflows",
        postgresql_where=sa.text("kind = 'declaration'"),
    )
    op.drop_index(
        "ix_workflows_unpaid",
        table_name="workflows",
        postgresql_where=sa.text(
            "kind = 'declaration' AND state IN ('pending-payment', 'payment-failed', 'payment-cancelled')"
        ),
    )
    op.drop_index(
        "ix_workflows_failed",
        table_name="workflows",
        postgresql_where=sa.text("kind = 'declaration' AND state = 'failed'"),
    )
    op.drop_column("workflows", "for_release")
    op.drop_column("moves", "detail")
    op.drop_column("idempotency_keys", "operation_id")
    op.drop_column("calls", "code")
    op.drop_index(op.f("ix_voucher_suspensions_subscription_id"), table_name="voucher_suspensions")
    op.drop_table("voucher_suspensions")
    op.drop_table("voucher_operations")
    op.drop_index(op.f("ix_voucher_codes_subscription_id"), table_name="voucher_codes")
    op.drop_table("voucher_codes")
    op.drop_index("ix_replay_items_sent", table_name="replay_items", postgresql_where=sa.text("state = 'sent'"))
    op.drop_index("ix_replay_items_queued", table_name="replay_items", postgresql_where=sa.text("state = 'queued'"))
    op.drop_table("replay_items")
    op.drop_table("declarations")
    op.drop_index("ix_vouchers_cancel_on", table_name="vouchers", postgresql_where=sa.text("cancel_on IS NOT NULL"))
    op.drop_table("vouchers")
    op.drop_table("replays")
    op.drop_table("releases")
    op.drop_table("audit")
    op.execute(DropSequence(sa.Sequence("charge_reference_seq")))
    for table in ("moves", "calls"):
        op.execute(f"DELETE FROM {table} USING workflows w WHERE w.id = workflow_id AND w.kind IN {KINDS}")  # noqa: S608
    op.execute(f"DELETE FROM workflows WHERE kind IN {KINDS}")  # noqa: S608
    op.drop_constraint(op.f("ck_workflows_one_operation_at_a_time"), "workflows", type_="check")
    _check("time_to_look_again", REST_BEFORE)
    _check("legal_state", LEGAL_BEFORE)


def _check(name: str, condition: str) -> None:
    """Make a CHECK anew. Whatever the other one let through passes, so no row has to be looked at before."""
    op.drop_constraint(op.f(f"ck_workflows_{name}"), "workflows", type_="check")
    op.create_check_constraint(op.f(f"ck_workflows_{name}"), "workflows", condition)
