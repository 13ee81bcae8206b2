"""Jobs as their owners see them. Every query is scoped by tenant, here and nowhere else."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from shared.db.acceptance import read_accepted, rows_parameter
from shared.db.cursor import Cursor
from shared.db.deletions import delete_jobs
from shared.db.forecast import Forecast, forecast
from shared.db.joint_insert import ACCEPT, JointInsert
from shared.db.outlook import FEW_AHEAD, MANY_AHEAD, select_outlook
from shared.db.quotas import take_quota
from shared.db.rows import read_artifacts, read_job
from shared.db.tables import attempts, jobs
from shared.db.uploads import lock_inputs
from shared.db.webhooks import ensure_endpoint
from shared.errors import Conflict, NotFound
from shared.job import Attempt, AttemptOutcome, Job, JobStamp, JobStatus, NewJob


class CancelOutcome(StrEnum):
    """What a wish to cancel came to."""

    #: The job was queued, or canceled already: it will not run.
    CANCELED = "canceled"
    #: The job runs; its worker stops it at the next step boundary.
    REQUESTED = "requested"
    #: The job had succeeded or failed before.
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Which jobs a list shows; None means any."""

    status: JobStatus | None = None
    model: str | None = None
    preset: str | None = None
    batch: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class JobRepository:
    """Submit, read, cancel and delete jobs. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        # For what is one statement: to begin and to commit would be journeys of their own.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._joint = JointInsert(engine)

    def insert(self, new: NewJob) -> tuple[Job, bool]:
        """Store an accepted job; returns it and whether it had been stored before.

        Raises:
            Conflict: The idempotency key was used with another body.
            InvalidRequest: An upload that the request names is there no longer.
            QuotaExceeded: Its key has too many jobs already.
        """
        has_inputs = bool(new.request.init_image or new.request.mask)
        with (self._single if _is_one_statement(new) else self._engine).begin() as connection:
            if has_inputs:
                lock_inputs(connection, new.tenant, new.request)
            if new.webhook is not None:
                ensure_endpoint(connection, new.tenant, new.webhook.url)
            take_quota(connection, [new])
            while True:
                # Waits for a concurrent insert of the same key, and then finds it below.
                row = connection.execute(ACCEPT, rows_parameter([new])).one_or_none()
                if row is not None:
                    return read_accepted(new, row), False
                names = {"tenant": new.tenant, "key": new.idempotency_key}
                row = connection.execute(_BY_KEY, names).one_or_none()
                if row is not None:
                    if row.body_sha256 != new.body_sha256:
                        raise Conflict(
                            "this Idempotency-Key came with another body before",
                            code="idempotency_key_reused",
                        )
                    return _complete(connection, row), True
                # The job that had the key was deleted between the statements.

    async def insert_soon(self, new: NewJob) -> Job | None:
        """Store a job together with those that come at the same moment.

        None if it is one that `insert` must store: it needs a transaction of its own, or its key
        was used before.
        """
        if not _is_one_statement(new):
            return None
        row = await asyncio.wrap_future(self._joint.insert(new))
        return None if row is None else read_accepted(new, row)

    def forecast(self, new: NewJob) -> Forecast:
        """Tell where a job would stand if it were accepted now; nothing is stored."""
        with self._engine.connect() as connection:
            return forecast(connection, new)

    def get(self, tenant: str, job_id: str) -> Job:
        """Read a job.

        Raises:
            NotFound: The tenant has no such job.
        """
        with self._single.connect() as connection:
            row = connection.execute(_OWN, {"tenant": tenant, "id": job_id}).one_or_none()
            if row is None:
                raise NotFound("there is no such job")
            return _complete(connection, row)

    def get_stamp(self, tenant: str, job_id: str) -> JobStamp:
        """Read only what tells whether a job has changed, by its primary key.

        Raises:
            NotFound: The tenant has no such job.
        """
        with self._single.connect() as connection:
            row = connection.execute(_STAMP, {"tenant": tenant, "id": job_id}).one_or_none()
        if row is None:
            raise NotFound("there is no such job")
        return JobStamp(JobStatus(row.status), row.attempt, row.iteration)

    def attempts(self, tenant: str, job_id: str) -> list[Attempt]:
        """Read every run of a job, the first one first.

        Raises:
            NotFound: The tenant has no such job.
        """
        self.get(tenant, job_id)
        query = sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.attempt)
        with self._engine.connect() as connection:
            return [
                Attempt(
                    attempt=row.attempt,
                    worker=row.worker,
                    started_at=row.started_at,
                    ended_at=row.ended_at,
                    outcome=row.outcome and AttemptOutcome(row.outcome),
                    is_alone=row.is_alone,
                    iteration=row.iteration,
                    exit_reason=row.exit_reason,
                )
                for row in connection.execute(query)
            ]

    def page(
        self, tenant: str, *, limit: int, after: Cursor | None, filters: JobFilters
    ) -> list[Job]:
        """Read up to `limit` jobs, newest first, that come after a cursor.

        Their place in the queue, and when they will leave it, is left out: it would cost a count
        for each.
        """
        query = sa.select(jobs).where(jobs.c.tenant == tenant, *_conditions(filters))
        if after is not None:
            query = query.where(
                sa.tuple_(jobs.c.created_at, jobs.c.id) < sa.tuple_(after.created_at, after.id)
            )
        query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            found = read_artifacts(connection, [row.id for row in rows])
            return [read_job(row, found[row.id]) for row in rows]

    def request_cancel(self, tenant: str, job_id: str) -> tuple[Job, CancelOutcome]:
        """Cancel a queued job at once, or ask the worker of a running one to stop.

        Raises:
            NotFound: The tenant has no such job.
        """
        queued = jobs.c.status == JobStatus.QUEUED
        statement = (
            jobs.update()
            .where(
                jobs.c.tenant == tenant,
                jobs.c.id == job_id,
                jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]),
            )
            .values(
                status=sa.case((queued, JobStatus.CANCELED), else_=jobs.c.status),
                finished_at=sa.case((queued, sa.func.now())),
                dispatched_at=None,
                cancel_requested_at=sa.func.coalesce(jobs.c.cancel_requested_at, sa.func.now()),
            )
        )
        with self._engine.begin() as connection:
            connection.execute(statement)
        job = self.get(tenant, job_id)
        match job.status:
            case JobStatus.CANCELED:
                return job, CancelOutcome.CANCELED
            case JobStatus.QUEUED | JobStatus.RUNNING:
                return job, CancelOutcome.REQUESTED
            case _:
                return job, CancelOutcome.FINISHED

    def delete(self, tenant: str, job_id: str) -> None:
        """Delete a job that has ended, with its prompt; its objects are deleted soon.

        Raises:
            Conflict: It has not ended.
            NotFound: The tenant has no such job.
        """
        is_this_job = (jobs.c.tenant == tenant, jobs.c.id == job_id)
        while True:
            with self._engine.begin() as connection:
                if delete_jobs(connection, *is_this_job):
                    return
            job = self.get(tenant, job_id)
            if not job.status.is_terminal:
                detail = f"the job is {job.status}; cancel it first, and wait until it has ended"
                raise Conflict(detail, code="job_not_finished")
            # It has ended between the two looks.

    def count_waiting(self, *, most: int) -> int:
        """Count the queued jobs of all tenants, as far as `most`."""
        queued = sa.select(1).where(jobs.c.status == JobStatus.QUEUED).limit(most).subquery()
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(queued)).scalar_one()

    def ping(self) -> None:
        """Raise SQLAlchemy's OperationalError if PostgreSQL does not answer."""
        with self._engine.connect() as connection:
            connection.execute(sa.select(1))


# Made once: to build them takes longer than to run them.
_BY_KEY = select_outlook(max_ahead=FEW_AHEAD).where(
    jobs.c.tenant == sa.bindparam("tenant"), jobs.c.idempotency_key == sa.bindparam("key")
)
_OWN = select_outlook(max_ahead=MANY_AHEAD).where(
    jobs.c.tenant == sa.bindparam("tenant"), jobs.c.id == sa.bindparam("id")
)
_STAMP = sa.select(jobs.c.status, jobs.c.attempt, jobs.c.iteration).where(
    jobs.c.tenant == sa.bindparam("tenant"), jobs.c.id == sa.bindparam("id")
)


def _is_one_statement(new: NewJob) -> bool:
    """Tell whether nothing has to be locked or counted before a job is stored."""
    has_inputs = bool(new.request.init_image or new.request.mask)
    return not has_inputs and new.webhook is None and not new.limits.counts_jobs


def _complete(connection: sa.Connection, row: sa.Row[Any]) -> Job:
    """Read a row with its artifacts, which only a job that has succeeded has."""
    if row.status != JobStatus.SUCCEEDED:
        return read_job(row)
    return read_job(row, read_artifacts(connection, [row.id])[row.id])


def _conditions(filters: JobFilters) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if filters.status is not None:
        conditions.append(jobs.c.status == filters.status)
    if filters.model is not None:
        conditions.append(jobs.c.model == filters.model)
    if filters.preset is not None:
        conditions.append(jobs.c.preset_name == filters.preset)
    if filters.batch is not None:
        conditions.append(jobs.c.batch_id == filters.batch)
    if filters.created_after is not None:
        conditions.append(jobs.c.created_at > filters.created_after)
    if filters.created_before is not None:
        conditions.append(jobs.c.created_at < filters.created_before)
    if filters.metadata:
        conditions.append(jobs.c.metadata.contains(dict(filters.metadata)))
    return conditions
