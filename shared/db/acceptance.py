"""A job about to be accepted, as a row of `jobs`."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.rows import explain_unserved, webhook_values
from shared.db.tables import jobs
from shared.db.webhooks import endpoint_id_of
from shared.job import AGEING_S, Job, JobStatus, NewJob

#: Marks what belongs to a row: names of columns are taken by the statement itself.
_PREFIX = "new_"
_NOT_BEFORE = sa.bindparam(f"{_PREFIX}not_before", type_=sa.TIMESTAMP(timezone=True))
# Null is no time: what is left is the other one.
_STARTS_AT = sa.func.greatest(sa.func.now(), _NOT_BEFORE)

#: Columns that the database's clock has a part in.
_TIMES: dict[str, sa.ColumnElement[Any]] = {
    # A job that may not run yet does not grow older than others meanwhile.
    "virtual_birth": _STARTS_AT - sa.bindparam(f"{_PREFIX}head_start", type_=sa.Interval),
    "held_until": sa.case((sa.func.now() < _NOT_BEFORE, _NOT_BEFORE)),
    "deadline_at": _STARTS_AT + sa.bindparam(f"{_PREFIX}deadline", type_=sa.Interval),
}
_PLAIN = (
    "id", "tenant", "queue", "model", "preset_name", "preset_version", "request", "metadata",
    "priority", "iterations", "predicted_s", "megapixel_iterations", "idempotency_key",
    "body_sha256", "webhook", "endpoint_id", "retry_of", "key_id", "batch_id", "batch_index",
    "traceparent",
)  # fmt: skip
#: What decides where a row stands in its queue.
PLACE_COLUMNS = ("id", "queue", "model", "virtual_birth", "held_until")
#: That, and what the database adds to a new row.
TOLD_COLUMNS = (*PLACE_COLUMNS, "status", "dispatched_at", "created_at", "deadline_at")


def column_of(name: str) -> sa.ColumnElement[Any]:
    """Return what a column of a new row is, with the parameters of `row_parameters` in it."""
    return _TIMES.get(name, sa.bindparam(f"{_PREFIX}{name}", type_=jobs.c[name].type))


#: Stores a row from its parameters. Made once: to build it takes longer than to run it.
INSERT_JOB = insert(jobs).values({name: column_of(name) for name in (*_PLAIN, *_TIMES)})


def row_parameters(new: NewJob) -> dict[str, Any]:
    """Return the parameters of a new row."""
    request = new.request
    values = {
        "id": new.id,
        "tenant": new.tenant,
        "queue": new.queue,
        "model": request.model,
        "preset_name": new.preset.name,
        "preset_version": new.preset.version,
        "request": request.model_dump(mode="json"),
        "metadata": dict(new.metadata),
        "priority": request.priority,
        "iterations": request.iterations,
        "predicted_s": new.predicted_s,
        "megapixel_iterations": request.megapixel_iterations,
        "idempotency_key": new.idempotency_key,
        "body_sha256": new.body_sha256,
        "webhook": new.webhook and webhook_values(new.webhook),
        "endpoint_id": new.webhook and endpoint_id_of(new.tenant, new.webhook.url),
        "retry_of": new.retry_of,
        "key_id": new.key_id,
        "traceparent": new.traceparent,
        "batch_id": new.batch and new.batch.id,
        "batch_index": new.batch and new.batch.index,
        "not_before": request.not_before,
        "head_start": timedelta(seconds=AGEING_S * request.priority),
        "deadline": timedelta(seconds=request.deadline_s),
    }
    return {f"{_PREFIX}{name}": value for name, value in values.items()}


def read_accepted(new: NewJob, row: sa.Row[Any]) -> Job:
    """Return a job as its new row stands, which has little in it that was not known."""
    return Job(
        id=new.id,
        tenant=new.tenant,
        status=JobStatus(row.status),
        request=new.request,
        preset=new.preset,
        metadata=new.metadata,
        created_at=row.created_at,
        started_at=None,
        finished_at=None,
        deadline_at=row.deadline_at,
        cancel_requested=False,
        attempt=0,
        iteration=0,
        predicted_s=new.predicted_s,
        queue_position=row.queue_position,
        queue_eta_s=row.queue_eta_s,
        unschedulable=explain_unserved(row.model) if row.is_unserved else None,
        error_code=None,
        error_message=None,
        execution=None,
        webhook=new.webhook,
        retry_of=new.retry_of,
        batch=new.batch,
    )
