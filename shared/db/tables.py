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
    # Work in a unit that no machine changes: what jobs without a prediction are weighed by.
    sa.Column("megapixel_iterations", sa.Double, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("body_sha256", sa.Text),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("deadline_at", _TIME, nullable=False),
    # Priority and age in one: the later of creation and not_before, earlier by so much a level.
    sa.Column("virtual_birth", _TIME, nullable=False),
    # Set while the job's not_before lies ahead.
    sa.Column("held_until", _TIME),
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
    # How many there will be; null in rows older than the column.
    sa.Column("iterations", sa.Integer),
    # Which of them the attempt went on from; null if it began at the beginning.
    sa.Column("resumed_at", sa.Integer),
    # Seconds of a device that the job takes; null where nothing was known when it came.
    sa.Column("predicted_s", sa.Double),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("execution", JSONB),
    # The job that this one is another try of; without a foreign key, since it may be deleted.
    sa.Column("retry_of", sa.Text),
    # Whom to tell of what, as the job's owner sees it, and where that is.
    sa.Column("webhook", JSONB(none_as_null=True)),
    sa.Column("endpoint_id", sa.ForeignKey("webhook_endpoints.id")),
    # The batch that it came with, and its place there.
    sa.Column("batch_id", sa.ForeignKey("batches.id")),
    sa.Column("batch_index", sa.SmallInteger),
    # The API key that it came with; null in rows older than the column.
    sa.Column("key_id", sa.Text),
    # What spans of it continue, as W3C's Trace Context writes it; null where nobody traces.
    sa.Column("traceparent", sa.Text),
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.CheckConstraint(
        "status IN ('queued', 'running', 'succeeded', 'failed', 'canceled')", name="status"
    ),
    sa.CheckConstraint("(status = 'running') = (lease_token IS NOT NULL)", name="lease"),
    # Also false for NaN, which PostgreSQL puts above infinity.
    sa.CheckConstraint("predicted_s > 0 AND predicted_s < 'Infinity'", name="predicted"),
    sa.CheckConstraint("(webhook IS NULL) = (endpoint_id IS NULL)", name="webhook"),
    sa.CheckConstraint("(batch_id IS NULL) = (batch_index IS NULL)", name="batch"),
)

sa.Index(
    "ix_jobs_waiting",
    jobs.c.queue,
    jobs.c.tenant,
    jobs.c.virtual_birth,
    jobs.c.id,
    postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL"),
)
sa.Index(
    "ix_jobs_held",
    jobs.c.held_until,
    postgresql_where=sa.text("status = 'queued' AND held_until IS NOT NULL"),
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
sa.Index(
    "ix_jobs_key",
    jobs.c.key_id,
    jobs.c.status,
    postgresql_where=sa.text("status IN ('queued', 'running')"),
)
sa.Index("ix_jobs_page", jobs.c.tenant, jobs.c.created_at.desc(), jobs.c.id.desc())
sa.Index(
    "ix_jobs_ended",
    jobs.c.finished_at,
    postgresql_where=sa.text("status IN ('succeeded', 'failed', 'canceled')"),
)
sa.Index(
    "ix_jobs_lost",
    jobs.c.finished_at,
    postgresql_where=sa.text("status = 'failed' AND error_code = 'worker_lost'"),
)
sa.Index(
    "ix_jobs_batch",
    jobs.c.batch_id,
    jobs.c.batch_index,
    unique=True,
    postgresql_where=sa.text("batch_id IS NOT NULL"),
)

# Jobs that came together; goes with the last of them.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("body_sha256", sa.Text),
    # What a sweep left out, and why.
    sa.Column("skipped", JSONB, nullable=False, server_default="[]"),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.UniqueConstraint("tenant", "idempotency_key"),
)

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
    sa.Column("resumed_at", sa.Integer),
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
    # Of pictures, and below of sounds.
    sa.Column("width", sa.Integer),
    sa.Column("height", sa.Integer),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
    sa.Column("duration_s", sa.Double),
    sa.Column("sample_rate", sa.Integer),
    sa.Column("thumbnail_key", sa.Text),
)

# Jobs that are no more and whose objects still are.
deletions = sa.Table(
    "deletions",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("requested_at", _TIME, nullable=False, server_default=sa.func.now()),
    # When the store is asked for the first time, or again.
    sa.Column("due_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Index("ix_deletions_due", "due_at"),
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
    # False while the bytes are on their way to the store, or about to be deleted from it.
    sa.Column("is_stored", sa.Boolean, nullable=False, server_default=sa.false()),
    # When somebody last sent the bytes.
    sa.Column("sent_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Index("ix_uploads_sent", "sent_at"),
)

# Files that clients bring to the store themselves.
incoming_uploads = sa.Table(
    "incoming_uploads",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    # As announced; what comes is compared with it.
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text),
    # When its link ends.
    sa.Column("expires_at", _TIME, nullable=False),
    # What it has become; without a foreign key, since uploads go by their own time.
    sa.Column("upload_id", sa.Text),
    sa.Index("ix_incoming_uploads_expires", "expires_at"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("queues", ARRAY(sa.Text), nullable=False),
    # Those of them whose models it holds in memory.
    sa.Column("warm_queues", ARRAY(sa.Text), nullable=False, server_default="{}"),
    # What it holds of which model, and what all of them may take.
    sa.Column("models", JSONB, nullable=False, server_default="[]"),
    sa.Column("model_budget_bytes", sa.BigInteger),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("started_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("heartbeat_at", _TIME, nullable=False, server_default=sa.func.now()),
    # By how much its clock was ahead of the database's at its last heartbeat, in seconds.
    sa.Column("clock_offset_s", sa.Double),
    # Between its last two heartbeats; null where it did nothing.
    sa.Column("rows_per_forward", sa.Double),
    sa.Column("iterations_per_s", sa.Double),
    sa.Column("forward_share", sa.Double),
    sa.Column("memory_bytes", sa.BigInteger),
)

dispatchers = sa.Table(
    "dispatchers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("heartbeat_at", _TIME, nullable=False, server_default=sa.func.now()),
)

# What stages were measured to take, for the next start and for estimates.
costs = sa.Table(
    "costs",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("workload", sa.Text, primary_key=True),
    sa.Column("rows", sa.SmallInteger, primary_key=True),
    sa.Column("ms", sa.Double, nullable=False),
    sa.Column("samples", sa.BigInteger, nullable=False),
    sa.Column("updated_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("rows > 0 AND samples > 0 AND ms > 0 AND ms < 'Infinity'", name="measured"),
)

# Only those that somebody has set a limit for.
tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # Jobs announced or running at once, in all queues together; null is any number.
    sa.Column("max_running", sa.Integer),
    sa.CheckConstraint("max_running > 0", name="max_running"),
)

# Those of tenants: versions never change, and a number is never used again.
presets = sa.Table(
    "presets",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("description", sa.Text, nullable=False),
    # The fields of a request that it settles.
    sa.Column("request", JSONB, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("deleted_at", _TIME),
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
    # By which its owner tells it from others; null in rows older than the column.
    sa.Column("last4", sa.Text),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    sa.Column("limits", JSONB, nullable=False, server_default="{}"),
    sa.Column("expires_at", _TIME),
    # Written now and then, for many requests at once.
    sa.Column("last_used_at", _TIME),
    sa.Index("ix_api_keys_tenant", "tenant", "created_at", "id"),
)

# A row while callers may change nothing, with what they are told.
read_only = sa.Table(
    "read_only",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, server_default="1", autoincrement=False),
    sa.Column("since", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("reason", sa.Text, nullable=False),
    sa.CheckConstraint("id = 1", name="single"),
)

# What keys with a daily limit were granted; deleting jobs gives nothing back.
key_usage = sa.Table(
    "key_usage",
    metadata,
    sa.Column("key_id", sa.ForeignKey("api_keys.id"), primary_key=True),
    # In UTC.
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("megapixel_iterations", sa.Double, nullable=False),
)
