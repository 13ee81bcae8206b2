"""Receivers of all jobs of a tenant, events without a job, and files that clients bring."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0013"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("events", ARRAY(sa.Text()), nullable=True))
    op.add_column(
        "webhook_endpoints",
        sa.Column("description", sa.Text(), server_default="", nullable=False),
    )
    op.add_column("webhook_endpoints", sa.Column("disabled_reason", sa.Text(), nullable=True))
    op.execute(
        "UPDATE webhook_endpoints SET disabled_reason = 'gone' WHERE disabled_at IS NOT NULL"
    )
    op.create_check_constraint(
        op.f("ck_webhook_endpoints_disabled"),
        "webhook_endpoints",
        "(disabled_at IS NULL) = (disabled_reason IS NULL)",
    )
    op.create_index(
        "ix_webhook_endpoints_registered",
        "webhook_endpoints",
        ["tenant", "url"],
        unique=True,
        postgresql_where=sa.text("events IS NOT NULL"),
    )
    op.create_table(
        "endpoint_secrets",
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name="fk_endpoint_secrets_endpoint_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("endpoint_id", "secret", name="pk_endpoint_secrets"),
    )
    op.create_index(
        "ix_endpoint_secrets_current",
        "endpoint_secrets",
        ["endpoint_id"],
        unique=True,
        postgresql_where=sa.text("expires_at IS NULL"),
    )
    op.alter_column("events", "job_id", nullable=True)
    op.create_index(
        "ix_events_tests", "events", ["created_at"], postgresql_where=sa.text("job_id IS NULL")
    )
    _replace_delivery_key(ondelete="CASCADE")
    op.create_index(
        "ix_deliveries_endpoint_page",
        "deliveries",
        [
            "endpoint_id",
            sa.literal_column("created_at DESC"),
            sa.literal_column("id DESC"),
        ],
    )
    _replace_trigger(_NOTE_FOR_ALL, "NEW.status <> 'queued'")
    op.create_table(
        "incoming_uploads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_incoming_uploads"),
    )
    op.create_index("ix_incoming_uploads_expires", "incoming_uploads", ["expires_at"])


def downgrade() -> None:
    op.drop_table("incoming_uploads")
    _replace_trigger(_NOTE_FOR_JOB, "NEW.webhook IS NOT NULL")
    op.drop_index("ix_deliveries_endpoint_page", "deliveries")
    op.execute("DELETE FROM webhook_endpoints WHERE events IS NOT NULL")
    op.execute("DELETE FROM events WHERE job_id IS NULL")
    _replace_delivery_key(ondelete=None)
    op.drop_index("ix_events_tests", "events")
    op.alter_column("events", "job_id", nullable=False)
    op.drop_table("endpoint_secrets")
    op.drop_index("ix_webhook_endpoints_registered", "webhook_endpoints")
    op.drop_constraint("ck_webhook_endpoints_disabled", "webhook_endpoints")
    for column in ("disabled_reason", "description", "events"):
        op.drop_column("webhook_endpoints", column)


def _replace_delivery_key(*, ondelete: str | None) -> None:
    op.drop_constraint("fk_deliveries_endpoint_id", "deliveries")
    op.create_foreign_key(
        "fk_deliveries_endpoint_id",
        "deliveries",
        "webhook_endpoints",
        ["endpoint_id"],
        ["id"],
        ondelete=ondelete,
    )


def _replace_trigger(function: str, condition: str) -> None:
    op.execute("DROP TRIGGER note_event ON jobs")
    op.execute(function)
    op.execute(f"""
        CREATE TRIGGER note_event AFTER UPDATE OF status ON jobs
        FOR EACH ROW WHEN ({condition} AND OLD.status IS DISTINCT FROM NEW.status)
        EXECUTE FUNCTION note_event()
    """)


# One look into a small index where nobody listens. The endpoints are locked against deletion, not
# against other changes: one that is deleted meanwhile is left out, and the job ends all the same.
_NOTE_FOR_ALL = """
    CREATE OR REPLACE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        event_type text := 'job.' ||
            CASE NEW.status WHEN 'running' THEN 'started' ELSE NEW.status END;
        new_id text := 'evt_' || replace(gen_random_uuid()::text, '-', '');
        is_asked boolean := coalesce(NEW.webhook -> 'events' ? event_type, false);
    BEGIN
        IF NOT is_asked AND NOT EXISTS (
            SELECT FROM webhook_endpoints AS endpoint
             WHERE endpoint.tenant = NEW.tenant AND endpoint.events IS NOT NULL
               AND event_type = ANY (endpoint.events) AND endpoint.disabled_at IS NULL
        ) THEN
            RETURN NULL;
        END IF;
        INSERT INTO events (id, job_id, type) VALUES (new_id, NEW.id, event_type)
        ON CONFLICT (job_id, type) DO NOTHING;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        INSERT INTO deliveries
            (id, event_id, endpoint_id, tenant, host, status, last_outcome)
        SELECT 'dlv_' || replace(gen_random_uuid()::text, '-', ''),
               new_id, endpoint.id, endpoint.tenant, endpoint.host,
               CASE WHEN endpoint.disabled_at IS NULL THEN 'pending' ELSE 'dead' END,
               CASE WHEN endpoint.disabled_at IS NOT NULL THEN 'disabled' END
          FROM webhook_endpoints AS endpoint
         WHERE (is_asked AND endpoint.id = NEW.endpoint_id)
            OR (endpoint.tenant = NEW.tenant AND endpoint.events IS NOT NULL
                AND event_type = ANY (endpoint.events) AND endpoint.disabled_at IS NULL)
           FOR KEY SHARE;
        RETURN NULL;
    END $$
"""

_NOTE_FOR_JOB = """
    CREATE OR REPLACE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        event_type text := 'job.' ||
            CASE NEW.status WHEN 'running' THEN 'started' ELSE NEW.status END;
        new_id text := 'evt_' || replace(gen_random_uuid()::text, '-', '');
    BEGIN
        IF NOT NEW.webhook -> 'events' ? event_type THEN
            RETURN NULL;
        END IF;
        INSERT INTO events (id, job_id, type) VALUES (new_id, NEW.id, event_type)
        ON CONFLICT (job_id, type) DO NOTHING;
        IF FOUND THEN
            INSERT INTO deliveries
                (id, event_id, endpoint_id, tenant, host, status, last_outcome)
            SELECT 'dlv_' || replace(gen_random_uuid()::text, '-', ''),
                   new_id, endpoint.id, endpoint.tenant, endpoint.host,
                   CASE WHEN endpoint.disabled_at IS NULL THEN 'pending' ELSE 'dead' END,
                   CASE WHEN endpoint.disabled_at IS NOT NULL THEN 'disabled' END
              FROM webhook_endpoints AS endpoint WHERE endpoint.id = NEW.endpoint_id;
        END IF;
        RETURN NULL;
    END $$
"""
