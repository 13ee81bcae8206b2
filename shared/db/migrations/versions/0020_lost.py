"""Jobs that were lost are found among all that have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_index(
        "ix_jobs_lost",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text("status = 'failed' AND error_code = 'worker_lost'"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_lost", "jobs")
