"""Jobs that came together, and presets of tenants."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("body_sha256", sa.Text(), nullable=True),
        sa.Column("skipped", JSONB(), server_default="[]", nullable=False),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_batches_tenant_idempotency_key"),
    )
    op.add_column("jobs", sa.Column("batch_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("batch_index", sa.SmallInteger(), nullable=True))
    op.create_foreign_key("fk_jobs_batch_id", "jobs", "batches", ["batch_id"], ["id"])
    op.create_check_constraint(
        "ck_jobs_batch", "jobs", "(batch_id IS NULL) = (batch_index IS NULL)"
    )
    op.create_index(
        "ix_jobs_batch",
        "jobs",
        ["batch_id", "batch_index"],
        unique=True,
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_table(
        "presets",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "name", "version", name="pk_presets"),
    )


def downgrade() -> None:
    op.drop_table("presets")
    op.drop_index("ix_jobs_batch", "jobs")
    op.drop_column("jobs", "batch_index")
    op.drop_column("jobs", "batch_id")
    op.drop_table("batches")
