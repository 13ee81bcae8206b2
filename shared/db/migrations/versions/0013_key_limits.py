"""What keys may do, how much of it, until when; and which key a job came with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"

_TIME = sa.TIMESTAMP(timezone=True)
#: What keys could do so far.
_SCOPES = (
    "models:read",
    "jobs:read",
    "jobs:write",
    "uploads:write",
    "presets:write",
    "webhooks:read",
    "webhooks:write",
)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("last4", sa.Text()))
    op.add_column(
        "api_keys",
        sa.Column(
            "scopes",
            postgresql.ARRAY(sa.Text()),
            server_default="{" + ",".join(_SCOPES) + "}",
            nullable=False,
        ),
    )
    op.alter_column("api_keys", "scopes", server_default=None)
    # The one who runs `latentq up` is the administrator of what it starts.
    op.execute(
        "UPDATE api_keys SET scopes = scopes || ARRAY['admin']"
        " WHERE name = 'latentq up' AND tenant = 'default'"
    )
    op.add_column(
        "api_keys",
        sa.Column("limits", postgresql.JSONB(), server_default="{}", nullable=False),
    )
    op.add_column("api_keys", sa.Column("expires_at", _TIME))
    op.add_column("api_keys", sa.Column("last_used_at", _TIME))
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant", "created_at", "id"])
    op.add_column("jobs", sa.Column("key_id", sa.Text()))
    op.create_index(
        "ix_jobs_key",
        "jobs",
        ["key_id", "status"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("megapixel_iterations", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_key_usage_key_id"),
        sa.PrimaryKeyConstraint("key_id", "day", name="pk_key_usage"),
    )


def downgrade() -> None:
    op.drop_table("key_usage")
    op.drop_index("ix_jobs_key", "jobs")
    op.drop_column("jobs", "key_id")
    op.drop_index("ix_api_keys_tenant", "api_keys")
    for name in ("last_used_at", "expires_at", "limits", "scopes", "last4"):
        op.drop_column("api_keys", name)
