"""Who is next: ageing, times to wait for, work, limits of tenants, and warm models."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0006"
down_revision = "0005"

_WAITING = "status = 'queued' AND dispatched_at IS NULL"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("megapixel_iterations", sa.Double()))
    op.add_column("jobs", sa.Column("virtual_birth", sa.TIMESTAMP(timezone=True)))
    op.add_column("jobs", sa.Column("held_until", sa.TIMESTAMP(timezone=True)))
    # Of samplers with two forwards a step this is half: near enough for jobs that are there now.
    op.execute("""
        UPDATE jobs
           SET virtual_birth = created_at - priority * interval '300 seconds',
               megapixel_iterations = (request->>'width')::float * (request->>'height')::float
                   * (request->>'steps')::float
                   * coalesce(request->>'num_outputs', '1')::float / 1000000
    """)
    op.alter_column("jobs", "megapixel_iterations", nullable=False)
    op.alter_column("jobs", "virtual_birth", nullable=False)
    op.drop_index("ix_jobs_waiting", "jobs")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["queue", "tenant", "virtual_birth", "id"],
        postgresql_where=sa.text(f"{_WAITING} AND held_until IS NULL"),
    )
    op.create_index(
        "ix_jobs_held",
        "jobs",
        ["held_until"],
        postgresql_where=sa.text("status = 'queued' AND held_until IS NOT NULL"),
    )
    op.add_column(
        "workers",
        sa.Column("warm_queues", ARRAY(sa.Text()), server_default="{}", nullable=False),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.CheckConstraint("max_running > 0", name="ck_tenants_max_running"),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )


def downgrade() -> None:
    op.drop_table("tenants")
    op.drop_column("workers", "warm_queues")
    op.drop_index("ix_jobs_held", "jobs")
    op.drop_index("ix_jobs_waiting", "jobs")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["queue", "tenant", sa.literal_column("priority DESC"), "created_at", "id"],
        postgresql_where=sa.text(_WAITING),
    )
    for column in ("held_until", "virtual_birth", "megapixel_iterations"):
        op.drop_column("jobs", column)
