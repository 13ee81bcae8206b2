"""A notice that the service is read-only, and the secrets that tenants had before."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "read_only",
        sa.Column("id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("since", _TIME, server_default=sa.func.now(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_read_only"),
        sa.CheckConstraint("id = 1", name="ck_read_only_single"),
    )
    op.add_column("webhook_secrets", sa.Column("former_secret", sa.Text(), nullable=True))
    op.add_column("webhook_secrets", sa.Column("former_until", _TIME, nullable=True))


def downgrade() -> None:
    op.drop_column("webhook_secrets", "former_until")
    op.drop_column("webhook_secrets", "former_secret")
    op.drop_table("read_only")
