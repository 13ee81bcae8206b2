"""Messages in a form of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("body", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("deliveries", "body")
