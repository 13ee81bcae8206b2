"""The tables of webhooks, private to `shared.db`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.tables import metadata

_TIME = sa.TIMESTAMP(timezone=True)

# What messages to a tenant's receivers are signed with.
webhook_secrets = sa.Table(
    "webhook_secrets",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    # The one before it, and until when messages are signed with that too.
    sa.Column("former_secret", sa.Text),
    sa.Column("former_until", _TIME),
)

# Receivers: those that jobs named, one for each tenant and URL, and those of all jobs of a tenant.
webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    # It answered 410, or its owner wants a pause.
    sa.Column("disabled_at", _TIME),
    # What it is told of; null for those that jobs named, which say so themselves.
    sa.Column("events", ARRAY(sa.Text)),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("disabled_reason", sa.Text),
    sa.CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
)

sa.Index(
    "ix_webhook_endpoints_registered",
    webhook_endpoints.c.tenant,
    webhook_endpoints.c.url,
    unique=True,
    postgresql_where=sa.text("events IS NOT NULL"),
)

# What messages to receivers with an events filter are signed with, the replaced ones for a while.
endpoint_secrets = sa.Table(
    "endpoint_secrets",
    metadata,
    sa.Column(
        "endpoint_id", sa.ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("secret", sa.Text, primary_key=True),
    # Set when it was replaced.
    sa.Column("expires_at", _TIME),
    sa.Index(
        "ix_endpoint_secrets_current",
        "endpoint_id",
        unique=True,
        postgresql_where=sa.text("expires_at IS NULL"),
    ),
)

# Those of jobs are written by a trigger on `jobs`, with their deliveries, never by this code.
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # Null for an event that an endpoint is tried with.
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE")),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    # The bytes that are sent, from the first attempt until no delivery needs them any more.
    sa.Column("body", sa.LargeBinary),
    sa.UniqueConstraint("job_id", "type"),
    sa.Index("ix_events_tests", "created_at", postgresql_where=sa.text("job_id IS NULL")),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("event_id", sa.ForeignKey("events.id", ondelete="CASCADE"), nullable=False),
    sa.Column(
        "endpoint_id", sa.ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    # Attempts begun; the number fences the writes of each.
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # Those of them since the event, or since its owner asked for another round.
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    # While an attempt is under way, when it is taken for lost.
    sa.Column("next_attempt_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("last_outcome", sa.Text),
    # The bytes that are sent instead of the event's, for as long as those would be kept.
    sa.Column("body", sa.LargeBinary),
    sa.UniqueConstraint("event_id", "endpoint_id"),
    sa.CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status"),
)

sa.Index(
    "ix_deliveries_due",
    deliveries.c.host,
    deliveries.c.next_attempt_at,
    deliveries.c.id,
    postgresql_where=sa.text("status = 'pending'"),
)
sa.Index(
    "ix_deliveries_endpoint",
    deliveries.c.endpoint_id,
    postgresql_where=sa.text("status = 'pending'"),
)
sa.Index(
    "ix_deliveries_endpoint_page",
    deliveries.c.endpoint_id,
    deliveries.c.created_at.desc(),
    deliveries.c.id.desc(),
)
sa.Index(
    "ix_deliveries_page",
    deliveries.c.tenant,
    deliveries.c.created_at.desc(),
    deliveries.c.id.desc(),
)

delivery_attempts = sa.Table(
    "delivery_attempts",
    metadata,
    sa.Column("delivery_id", sa.ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("started_at", _TIME, nullable=False),
    sa.Column("ended_at", _TIME, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("status_code", sa.SmallInteger),
)
