"""The trace that a job belongs to, and how fast a worker was when it was last heard of."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))
    for name in ("rows_per_forward", "iterations_per_s", "forward_share"):
        op.add_column("workers", sa.Column(name, sa.Double(), nullable=True))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for name in ("memory_bytes", "forward_share", "iterations_per_s", "rows_per_forward"):
        op.drop_column("workers", name)
    op.drop_column("jobs", "traceparent")
