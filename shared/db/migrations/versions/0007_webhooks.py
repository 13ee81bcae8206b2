"""Events of jobs, written by the database itself, and their deliveries."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    _create_receivers()
    op.add_column("jobs", sa.Column("webhook", JSONB(), nullable=True))
    op.add_column("jobs", sa.Column("endpoint_id", sa.Text(), nullable=True))
    op.create_foreign_key(
        "fk_jobs_endpoint_id", "jobs", "webhook_endpoints", ["endpoint_id"], ["id"]
    )
    op.create_check_constraint(
        op.f("ck_jobs_webhook"), "jobs", "(webhook IS NULL) = (endpoint_id IS NULL)"
    )
    _create_events()
    _create_deliveries()
    # A trigger: no statement that ends a job can forget whom to tell. The job's row is locked, so
    # that one transaction at a time comes here; a job that starts again has told it before.
    op.execute("""
        CREATE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS $$
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
    """)
    op.execute("""
        CREATE TRIGGER note_event AFTER UPDATE OF status ON jobs
        FOR EACH ROW WHEN (NEW.webhook IS NOT NULL AND OLD.status IS DISTINCT FROM NEW.status)
        EXECUTE FUNCTION note_event()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER note_event ON jobs")
    op.execute("DROP FUNCTION note_event")
    for table in ("delivery_attempts", "deliveries", "events"):
        op.drop_table(table)
    op.drop_constraint("ck_jobs_webhook", "jobs")
    op.drop_column("jobs", "endpoint_id")
    op.drop_column("jobs", "webhook")
    for table in ("webhook_endpoints", "webhook_secrets"):
        op.drop_table(table)


def _create_receivers() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        _now("created_at"),
        sa.PrimaryKeyConstraint("tenant", name="pk_webhook_secrets"),
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        _now("created_at"),
        sa.Column("disabled_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        _now("created_at"),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_events_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("job_id", "type", name="uq_events_job_id_type"),
    )


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        _now("next_attempt_at"),
        _now("created_at"),
        sa.Column("last_outcome", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'dead')", name=op.f("ck_deliveries_status")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name="fk_deliveries_event_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name="fk_deliveries_endpoint_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_deliveries_event_id_endpoint_id"),
    )
    pending = sa.text("status = 'pending'")
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["host", "next_attempt_at", "id"],
        postgresql_where=pending,
    )
    op.create_index(
        "ix_deliveries_endpoint", "deliveries", ["endpoint_id"], postgresql_where=pending
    )
    op.create_index(
        "ix_deliveries_page",
        "deliveries",
        ["tenant", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name="fk_delivery_attempts_delivery_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("delivery_id", "attempt", name="pk_delivery_attempts"),
    )


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
    )
