"""Which iteration an attempt went on from."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    for table in ("jobs", "attempts"):
        op.add_column(table, sa.Column("resumed_at", sa.Integer(), nullable=True))


def downgrade() -> None:
    for table in ("jobs", "attempts"):
        op.drop_column(table, "resumed_at")
