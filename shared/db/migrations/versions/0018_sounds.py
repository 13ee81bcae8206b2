"""Outputs that are sounds, and small pictures of outputs."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    for side in ("width", "height"):
        op.alter_column("artifacts", side, existing_type=sa.Integer(), nullable=True)
    op.add_column("artifacts", sa.Column("duration_s", sa.Double(), nullable=True))
    op.add_column("artifacts", sa.Column("sample_rate", sa.Integer(), nullable=True))
    op.add_column("artifacts", sa.Column("thumbnail_key", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("thumbnail_key", "sample_rate", "duration_s"):
        op.drop_column("artifacts", column)
    # What has none is no picture, and the version before knows nothing else.
    op.execute("DELETE FROM artifacts WHERE width IS NULL")
    for side in ("width", "height"):
        op.alter_column("artifacts", side, existing_type=sa.Integer(), nullable=False)
