"""Which attempts ran alone: a job that kills its workers must not take others with it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lost_alone", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "attempts", sa.Column("is_alone", sa.Boolean(), server_default=sa.false(), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("attempts", "is_alone")
    op.drop_column("jobs", "lost_alone")
