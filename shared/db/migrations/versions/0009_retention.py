"""What is deleted, and when; and who is alive, with which clock."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column(
            "requested_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "due_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_deletions"),
    )
    op.create_index("ix_deletions_due", "deletions", ["due_at"])
    op.create_index(
        "ix_jobs_ended",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text("status IN ('succeeded', 'failed', 'canceled')"),
    )
    op.add_column(
        "uploads", sa.Column("is_stored", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    # So far a row was written when the bytes were there.
    op.execute("UPDATE uploads SET is_stored = true")
    op.add_column(
        "uploads",
        sa.Column(
            "sent_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
    )
    op.create_index("ix_uploads_sent", "uploads", ["sent_at"])
    op.add_column("workers", sa.Column("clock_offset_s", sa.Double(), nullable=True))
    op.create_table(
        "dispatchers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column(
            "heartbeat_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_dispatchers"),
    )


def downgrade() -> None:
    op.drop_table("dispatchers")
    op.drop_column("workers", "clock_offset_s")
    op.drop_index("ix_uploads_sent", "uploads")
    op.drop_column("uploads", "sent_at")
    op.drop_column("uploads", "is_stored")
    op.drop_index("ix_jobs_ended", "jobs")
    op.drop_table("deletions")
