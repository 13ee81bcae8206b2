"""The tables, private to `shared.db`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_TIME = sa.TIMESTAMP(timezone=True)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="queued"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("preset_name", sa.Text, nullable=False),
    sa.Column("preset_version", sa.Integer, nullable=False),
    sa.Column("request", JSONB, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("body_sha256", sa.Text),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("deadline_at", _TIME, nullable=False),
    # Set while a message about the job is, or should be, in Redis.
    sa.Column("dispatched_at", _TIME),
    sa.Column("cancel_requested_at", _TIME),
    sa.Column("started_at", _TIME),
    sa.Column("finished_at", _TIME),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lost_leases", sa.Integer, nullable=False, server_default="0"),
    # Those of them that it lost while it ran alone.
    sa.Column("lost_alone", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease_token", sa.Uuid),
    sa.Column("lease_until", _TIME),
    sa.Column("iteration", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("execution", JSONB),
    # The job that this one is another try of; without a foreign key, since it may be deleted.
    sa.Column("retry_of", sa.Text),
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.CheckConstraint(
        "status IN ('queued', 'running', 'succeeded', 'failed', 'canceled')", name="status"
    ),
    sa.CheckConstraint("(status = 'running') = (lease_token IS NOT NULL)", name="lease"),
)

sa.Index(
    "ix_jobs_waiting",
    jobs.c.queue,
    jobs.c.tenant,
    jobs.c.priority.desc(),
    jobs.c.created_at,
    jobs.c.id,
    postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NULL"),
)
sa.Index(
    "ix_jobs_dispatched",
    jobs.c.queue,
    jobs.c.dispatched_at,
    postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NOT NULL"),
)
sa.Index("ix_jobs_lease", jobs.c.lease_until, postgresql_where=sa.text("status = 'running'"))
sa.Index("ix_jobs_lease_token", jobs.c.lease_token, unique=True)
sa.Index(
    "ix_jobs_deadline",
    jobs.c.deadline_at,
    postgresql_where=sa.text("status IN ('queued', 'running')"),
)
sa.Index("ix_jobs_page", jobs.c.tenant, jobs.c.created_at.desc(), jobs.c.id.desc())

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("token", sa.Uuid, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    # Which process of that name, wherever it ran.
    sa.Column("process", sa.Text),
    # Nothing else ran in the worker.
    sa.Column("is_alone", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("started_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("ended_at", _TIME),
    sa.Column("outcome", sa.Text),
    # Forwards done when it ended, as far as the worker told.
    sa.Column("iteration", sa.Integer),
    # Why the worker's process ended, where somebody knew.
    sa.Column("exit_reason", sa.Text),
    sa.Index("ix_attempts_open", "process", postgresql_where=sa.text("ended_at IS NULL")),
)

# Written by triggers on `jobs`, never by this code; without a foreign key, since it outlives jobs.
transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("from_status", sa.Text),
    sa.Column("to_status", sa.Text, nullable=False),
    sa.Column("at", _TIME, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Index("ix_transitions_job", "job_id", "id"),
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("output_index", sa.SmallInteger, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("queues", ARRAY(sa.Text), nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("started_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("heartbeat_at", _TIME, nullable=False, server_default=sa.func.now()),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("revoked_at", _TIME),
)
