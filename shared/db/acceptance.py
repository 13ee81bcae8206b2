"""A job about to be accepted, as a row of `jobs`."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from shared.db.rows import webhook_values
from shared.db.webhooks import endpoint_id_of
from shared.job import AGEING_S, NewJob

_TIME = sa.TIMESTAMP(timezone=True)


def job_values(new: NewJob) -> dict[str, Any]:
    """Return the columns of a new row."""
    return place_values(new) | {
        "id": new.id,
        "tenant": new.tenant,
        "preset_name": new.preset.name,
        "preset_version": new.preset.version,
        "request": new.request.model_dump(mode="json"),
        "metadata": dict(new.metadata),
        "priority": new.request.priority,
        "iterations": new.request.iterations,
        "predicted_s": new.predicted_s,
        "megapixel_iterations": new.request.megapixel_iterations,
        "idempotency_key": new.idempotency_key,
        "body_sha256": new.body_sha256,
        "deadline_at": _starts_at(new) + timedelta(seconds=new.request.deadline_s),
        "webhook": new.webhook and webhook_values(new.webhook),
        "endpoint_id": new.webhook and endpoint_id_of(new.tenant, new.webhook.url),
        "retry_of": new.retry_of,
        "key_id": new.key_id,
        "batch_id": new.batch and new.batch.id,
        "batch_index": new.batch and new.batch.index,
    }


def place_values(new: NewJob) -> dict[str, Any]:
    """Return the columns that decide where it stands in its queue."""
    not_before = _not_before(new)
    return {
        "queue": new.queue,
        "model": new.request.model,
        # A job that may not run yet does not grow older than others meanwhile.
        "virtual_birth": _starts_at(new) - timedelta(seconds=AGEING_S * new.request.priority),
        "held_until": sa.case((not_before > sa.func.now(), not_before)),
    }


def _starts_at(new: NewJob) -> sa.ColumnElement[datetime]:
    # Null is no time: what is left is the other one.
    return sa.func.greatest(sa.func.now(), _not_before(new))


def _not_before(new: NewJob) -> sa.ColumnElement[datetime]:
    return sa.bindparam(None, new.request.not_before, _TIME, unique=True)
