"""Jobs that are accepted together or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.acceptance import INSERT_JOBS, rows_parameter
from shared.db.quotas import take_quota
from shared.db.rows import read_artifacts, read_job
from shared.db.tables import batches, jobs
from shared.db.uploads import lock_inputs
from shared.db.webhooks import ensure_endpoint
from shared.errors import Conflict, InvalidRequest
from shared.job import Job, NewJob

#: What was asked for and cannot be: the places that no job has taken, each with its `errors`.
Skipped = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Jobs about to be accepted together; each carries the batch's id."""

    id: str
    tenant: str
    jobs: Sequence[NewJob]
    #: Where each of them stood in the body that asked for them.
    pointers: Sequence[str]
    skipped: Skipped = ()
    #: Client's Idempotency-Key and the hash of the body that came with it.
    idempotency_key: str | None = None
    body_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What is left of a batch: its jobs that were not deleted, in their order."""

    id: str
    jobs: Sequence[Job]
    skipped: Skipped


class BatchRepository:
    """Store jobs that came together. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def insert(self, new: NewBatch) -> tuple[Batch, bool]:
        """Store all jobs of a batch; returns it and whether it had been stored before.

        Where its jobs stand in the queue is left out, as in lists.

        Raises:
            Conflict: The idempotency key was used with another body.
            InvalidRequest: An upload that a request names is there no longer.
            QuotaExceeded: Their API key has too many jobs already, or has spent the day's budget.
        """
        statement = (
            insert(batches)
            .values(
                id=new.id,
                tenant=new.tenant,
                idempotency_key=new.idempotency_key,
                body_sha256=new.body_sha256,
                skipped=list(new.skipped),
            )
            # Waits for a concurrent insert of the same key, and then finds it below.
            .on_conflict_do_nothing(index_elements=["tenant", "idempotency_key"])
            .returning(batches.c.id)
        )
        is_same_key = (
            batches.c.tenant == new.tenant,
            batches.c.idempotency_key == new.idempotency_key,
        )
        with self._engine.begin() as connection:
            while True:
                if connection.execute(statement).scalar_one_or_none() is not None:
                    _store_jobs(connection, new)
                    return _read(connection, new.id), False
                row = connection.execute(sa.select(batches).where(*is_same_key)).one_or_none()
                if row is not None:
                    if row.body_sha256 != new.body_sha256:
                        raise Conflict(
                            "this Idempotency-Key came with another body before",
                            code="idempotency_key_reused",
                        )
                    return _read(connection, row.id), True
                # The last job of the batch that had the key was deleted between the statements.


def _store_jobs(connection: sa.Connection, new: NewBatch) -> None:
    take_quota(connection, new.jobs)
    locked = set()
    for job, pointer in zip(new.jobs, new.pointers, strict=True):
        inputs = (job.request.init_image, job.request.mask)
        if inputs in locked:
            continue
        locked.add(inputs)
        try:
            lock_inputs(connection, new.tenant, job.request)
        except InvalidRequest as refusal:
            raise refusal.within(pointer) from None
    # In one order for all: two batches would wait for each other's rows otherwise.
    for url in sorted({job.webhook.url for job in new.jobs if job.webhook is not None}):
        ensure_endpoint(connection, new.tenant, url)
    connection.execute(INSERT_JOBS, rows_parameter(new.jobs))


def _read(connection: sa.Connection, batch_id: str) -> Batch:
    batch = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).one()
    query = sa.select(jobs).where(jobs.c.batch_id == batch_id).order_by(jobs.c.batch_index)
    rows = connection.execute(query).all()
    found = read_artifacts(connection, [row.id for row in rows])
    return Batch(
        id=batch.id,
        jobs=[read_job(row, found[row.id]) for row in rows],
        skipped=batch.skipped,
    )
