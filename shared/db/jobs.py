"""Jobs as their owners see them. Every query is scoped by tenant, here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.dispatch import is_live
from shared.db.rows import read_artifacts, read_job
from shared.db.tables import jobs, workers
from shared.errors import Conflict, NotFound
from shared.job import AGEING_S, Job, JobStatus, NewJob

_TIME = sa.TIMESTAMP(timezone=True)


class CancelOutcome(StrEnum):
    """What a wish to cancel came to."""

    #: The job was queued, or canceled already: it will not run.
    CANCELED = "canceled"
    #: The job runs; its worker stops it at the next step boundary.
    REQUESTED = "requested"
    #: The job had succeeded or failed before.
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class JobCursor:
    """Where a page ended: the last job's place in the order of creation."""

    created_at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Which jobs a list shows; None means any."""

    status: JobStatus | None = None
    model: str | None = None
    preset: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class JobRepository:
    """Submit, read and cancel jobs. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def insert(self, new: NewJob) -> tuple[Job, bool]:
        """Store an accepted job; returns it and whether it had been stored before.

        Raises:
            Conflict: The idempotency key was used with another body.
        """
        now, not_before = sa.func.now(), sa.bindparam("not_before", new.request.not_before, _TIME)
        head_start = timedelta(seconds=AGEING_S * new.request.priority)
        statement = (
            insert(jobs)
            .values(
                id=new.id,
                tenant=new.tenant,
                queue=new.queue,
                model=new.request.model,
                preset_name=new.preset.name,
                preset_version=new.preset.version,
                request=new.request.model_dump(mode="json"),
                metadata=dict(new.metadata),
                priority=new.request.priority,
                megapixel_iterations=new.request.megapixel_iterations,
                iterations=new.request.iterations,
                predicted_s=new.predicted_s,
                idempotency_key=new.idempotency_key,
                body_sha256=new.body_sha256,
                deadline_at=now + timedelta(seconds=new.request.deadline_s),
                # A job that may not run yet does not grow older than others meanwhile.
                virtual_birth=sa.func.greatest(now, not_before) - head_start,
                held_until=sa.case((not_before > now, not_before)),
            )
            # Waits for a concurrent insert of the same key, and then finds it below.
            .on_conflict_do_nothing(index_elements=["tenant", "idempotency_key"])
            .returning(jobs.c.id)
        )
        with self._engine.begin() as connection:
            is_replay = connection.execute(statement).scalar_one_or_none() is None
            is_this_job = (
                sa.and_(
                    jobs.c.tenant == new.tenant,
                    jobs.c.idempotency_key == new.idempotency_key,
                    jobs.c.body_sha256 == new.body_sha256,
                )
                if is_replay
                else jobs.c.id == new.id
            )
            job = _read(connection, is_this_job)
        if job is None:
            raise Conflict(
                "this Idempotency-Key came with another body before", code="idempotency_key_reused"
            )
        return job, is_replay

    def get(self, tenant: str, job_id: str) -> Job:
        """Read a job.

        Raises:
            NotFound: The tenant has no such job.
        """
        with self._engine.connect() as connection:
            job = _read(connection, jobs.c.tenant == tenant, jobs.c.id == job_id)
        if job is None:
            raise NotFound("there is no such job")
        return job

    def page(
        self, tenant: str, *, limit: int, after: JobCursor | None, filters: JobFilters
    ) -> list[Job]:
        """Read up to `limit` jobs, newest first, that come after a cursor.

        Their place in the queue is left out: it would cost a count for each.
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

    def ping(self) -> None:
        """Raise SQLAlchemy's OperationalError if PostgreSQL does not answer."""
        with self._engine.connect() as connection:
            connection.execute(sa.select(1))


def _read(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Job | None:
    query = sa.select(jobs, _queue_position(), _is_unserved()).where(*conditions)
    row = connection.execute(query).one_or_none()
    return None if row is None else read_job(row, read_artifacts(connection, [row.id])[row.id])


def _conditions(filters: JobFilters) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if filters.status is not None:
        conditions.append(jobs.c.status == filters.status)
    if filters.model is not None:
        conditions.append(jobs.c.model == filters.model)
    if filters.preset is not None:
        conditions.append(jobs.c.preset_name == filters.preset)
    if filters.created_after is not None:
        conditions.append(jobs.c.created_at > filters.created_after)
    if filters.created_before is not None:
        conditions.append(jobs.c.created_at < filters.created_before)
    if filters.metadata:
        conditions.append(jobs.c.metadata.contains(dict(filters.metadata)))
    return conditions


def _queue_position() -> sa.Label[Any]:
    """Count the jobs before one in its queue: those in Redis, and those born virtually earlier.

    Those that wait for a time are in nobody's way, and have no place themselves.
    """
    ahead = jobs.alias("ahead")
    is_queued = sa.and_(ahead.c.queue == jobs.c.queue, ahead.c.status == JobStatus.QUEUED)
    is_waiting = jobs.c.dispatched_at.is_(None)
    is_older = sa.tuple_(ahead.c.virtual_birth, ahead.c.id) < sa.tuple_(
        jobs.c.virtual_birth, jobs.c.id
    )
    # Two counts, since each of them has an index that holds no other rows.
    announced = _count_of(
        is_queued, ahead.c.dispatched_at.is_not(None), sa.or_(is_waiting, is_older)
    )
    waiting = _count_of(
        is_queued, ahead.c.dispatched_at.is_(None), ahead.c.held_until.is_(None), is_older
    )
    has_place = sa.and_(jobs.c.status == JobStatus.QUEUED, jobs.c.held_until.is_(None))
    return sa.case(
        (sa.and_(has_place, is_waiting), announced + waiting), (has_place, announced)
    ).label("queue_position")


def _is_unserved() -> sa.Label[bool]:
    """Tell whether a job is queued and no live worker takes from its queue."""
    is_served = sa.exists().where(jobs.c.queue == sa.any_(workers.c.queues), is_live())
    return sa.and_(jobs.c.status == JobStatus.QUEUED, ~is_served.correlate(jobs)).label(
        "is_unserved"
    )


def _count_of(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).where(*conditions).correlate(jobs).scalar_subquery()
