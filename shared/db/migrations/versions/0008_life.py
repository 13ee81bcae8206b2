"""How far each attempt came and why its process ended; which job is another try of which."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("process", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("iteration", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("exit_reason", sa.Text(), nullable=True))
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["process"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_attempts_open", "attempts")
    op.drop_column("attempts", "exit_reason")
    op.drop_column("attempts", "iteration")
    op.drop_column("attempts", "process")
    op.drop_column("jobs", "retry_of")
