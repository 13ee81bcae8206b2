"""What workers hold of which model."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("workers", sa.Column("models", JSONB(), server_default="[]", nullable=False))
    op.add_column("workers", sa.Column("model_budget_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "model_budget_bytes")
    op.drop_column("workers", "models")
