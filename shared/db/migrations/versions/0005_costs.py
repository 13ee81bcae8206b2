"""What forwards cost, and what a job is predicted to take."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "costs",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("workload", sa.Text(), nullable=False),
        sa.Column("rows", sa.SmallInteger(), nullable=False),
        sa.Column("ms", sa.Double(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "rows > 0 AND samples > 0 AND ms > 0 AND ms < 'Infinity'", name="ck_costs_measured"
        ),
        sa.PrimaryKeyConstraint("model", "device", "workload", "rows", name="pk_costs"),
    )
    op.add_column("jobs", sa.Column("predicted_s", sa.Double()))
    op.add_column("jobs", sa.Column("iterations", sa.Integer()))
    op.create_check_constraint(
        op.f("ck_jobs_predicted"), "jobs", "predicted_s > 0 AND predicted_s < 'Infinity'"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_jobs_predicted"), "jobs")
    op.drop_column("jobs", "iterations")
    op.drop_column("jobs", "predicted_s")
    op.drop_table("costs")
