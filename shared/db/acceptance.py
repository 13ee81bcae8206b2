"""Jobs about to be accepted, as rows of `jobs`."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from shared.db.rows import explain_unserved, webhook_values
from shared.db.tables import jobs
from shared.db.webhooks import endpoint_id_of
from shared.job import AGEING_S, Job, JobStatus, NewJob

#: Columns that are stored as they come.
_PLAIN = (
    "id", "tenant", "queue", "model", "preset_name", "preset_version", "request", "metadata",
    "priority", "iterations", "predicted_s", "megapixel_iterations", "idempotency_key",
    "body_sha256", "webhook", "endpoint_id", "retry_of", "key_id", "batch_id", "batch_index",
    "traceparent",
)  # fmt: skip
#: The rows of a statement, in one parameter: its text is the same for one and for many.
_new = (
    sa.func.jsonb_to_recordset(sa.bindparam("rows", type_=JSONB))
    .table_valued(
        *(sa.column(name, jobs.c[name].type) for name in _PLAIN),
        sa.column("not_before", sa.TIMESTAMP(timezone=True)),
        sa.column("head_start_s", sa.Double),
        sa.column("deadline_s", sa.Double),
    )
    .render_derived(name="new", with_types=True)
)
# Null is no time: what is left is the other one.
_STARTS_AT = sa.func.greatest(sa.func.now(), _new.c.not_before)
_SECOND = sa.text("interval '1 second'")

#: Columns that the database's clock has a part in.
_TIMES: dict[str, sa.ColumnElement[Any]] = {
    # A job that may not run yet does not grow older than others meanwhile.
    "virtual_birth": _STARTS_AT - _new.c.head_start_s * _SECOND,
    "held_until": sa.case((sa.func.now() < _new.c.not_before, _new.c.not_before)),
    "deadline_at": _STARTS_AT + _new.c.deadline_s * _SECOND,
}
#: What decides where a row stands in its queue.
PLACE_COLUMNS = ("id", "queue", "model", "virtual_birth", "held_until")
#: That, and what the database adds to a new row.
TOLD_COLUMNS = (*PLACE_COLUMNS, "status", "dispatched_at", "created_at", "deadline_at")


def column_of(name: str) -> sa.ColumnElement[Any]:
    """Return what a column of a new row is, in a statement that takes `rows_parameter`."""
    return _TIMES[name] if name in _TIMES else _new.c[name]


_STORED = (*_PLAIN, *_TIMES)
#: Stores the rows of its parameter. Made once: to build it takes longer than to run it.
INSERT_JOBS = insert(jobs).from_select(_STORED, sa.select(*map(column_of, _STORED)))


def rows_parameter(together: Sequence[NewJob]) -> dict[str, Any]:
    """Return the parameter that holds new rows."""
    return {"rows": [_row_of(new) for new in together]}


def _row_of(new: NewJob) -> dict[str, Any]:
    request = new.request
    return {
        "id": new.id,
        "tenant": new.tenant,
        "queue": new.queue,
        "model": request.model,
        "preset_name": new.preset.name,
        "preset_version": new.preset.version,
        # A version before this one refuses names that it does not know, at jobs that ask for
        # nothing by them too.
        "request": request.model_dump(mode="json", exclude_none=True),
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
        "not_before": request.not_before and request.not_before.isoformat(),
        "head_start_s": AGEING_S * request.priority,
        "deadline_s": request.deadline_s,
    }


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
