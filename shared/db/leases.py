"""Jobs as their workers see them: claimed for a time, every write fenced by the lease token."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from shared.db.rows import artifact_values
from shared.db.tables import artifacts, attempts, jobs, tenants, workers
from shared.errors import ErrorCode
from shared.job import SUSPECTED_AFTER, AttemptOutcome, Claim, JobStatus, Lease, Success
from shared.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat says of one running job."""

    token: UUID
    #: Forwards done so far.
    iteration: int


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """What the database answers: leases still held, and those of them that shall be canceled."""

    held: frozenset[UUID]
    cancel_requested: frozenset[UUID]


class LeaseRepository:
    """Claim jobs, keep them, and end them. Each method is one transaction on the database's clock.

    A method that ends an attempt returns False when the lease was lost meanwhile: somebody else
    owns the job, and the caller throws its result away.
    """

    def __init__(self, engine: sa.Engine, *, lease_s: float) -> None:
        self._engine = engine
        self._lease = timedelta(seconds=lease_s)

    def claim(self, job_id: str, *, worker: str) -> Claim | None:
        """Take a queued job; None if the message came late or twice and there is none to take."""
        token = uuid4()
        has_limit = sa.exists().where(
            tenants.c.id == jobs.c.tenant, tenants.c.max_running.is_not(None)
        )
        statement = (
            jobs.update()
            .where(
                jobs.c.id == job_id,
                jobs.c.status == JobStatus.QUEUED,
                jobs.c.deadline_at > sa.func.now(),
                jobs.c.held_until.is_(None),
                # An old message of a job that was handed back must not get round the pick.
                sa.or_(jobs.c.dispatched_at.is_not(None), ~has_limit),
            )
            .values(
                status=JobStatus.RUNNING,
                dispatched_at=None,
                started_at=sa.func.now(),
                attempt=jobs.c.attempt + 1,
                iteration=0,
                lease_token=token,
                lease_until=sa.func.now() + self._lease,
            )
            .returning(
                jobs.c.tenant,
                jobs.c.request,
                jobs.c.attempt,
                jobs.c.deadline_at,
                jobs.c.lost_leases,
            )
        )
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            lease = Lease(job_id=job_id, attempt=row.attempt, token=token)
            connection.execute(
                attempts.insert().values(
                    job_id=job_id, attempt=row.attempt, token=token, worker=worker
                )
            )
        return Claim(
            lease=lease,
            tenant=row.tenant,
            request=GenerationRequest.model_validate(row.request),
            deadline_at=row.deadline_at,
            is_suspected=row.lost_leases >= SUSPECTED_AFTER,
        )

    def begin_alone(self, lease: Lease) -> bool:
        """Note that nothing else runs beside a suspected job."""
        statement = (
            attempts.update()
            .where(
                attempts.c.job_id == lease.job_id,
                attempts.c.token == lease.token,
                attempts.c.ended_at.is_(None),
            )
            .values(is_alone=True)
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def beat(self, beats: Iterable[Beat]) -> BeatAnswer:
        """Prolong the leases of a whole process and write its progress in one statement."""
        tokens, iterations = [], []
        for beat in beats:
            tokens.append(beat.token)
            iterations.append(beat.iteration)
        news = sa.func.unnest(
            sa.cast(tokens, ARRAY(sa.Uuid)), sa.cast(iterations, ARRAY(sa.Integer))
        ).table_valued("token", "iteration", name="news")
        news = news.render_derived()
        statement = (
            jobs.update()
            .where(jobs.c.lease_token == news.c.token, jobs.c.status == JobStatus.RUNNING)
            .values(lease_until=sa.func.now() + self._lease, iteration=news.c.iteration)
            .returning(jobs.c.lease_token, jobs.c.cancel_requested_at.is_not(None).label("cancel"))
        )
        with self._engine.begin() as connection:
            rows = connection.execute(statement).all()
        return BeatAnswer(
            held=frozenset(row.lease_token for row in rows),
            cancel_requested=frozenset(row.lease_token for row in rows if row.cancel),
        )

    def succeed(self, lease: Lease, success: Success) -> bool:
        """End a job with its results."""
        changes = {
            "status": JobStatus.SUCCEEDED,
            "iteration": success.iterations,
            "execution": dict(success.execution),
        }
        rows = [artifact_values(lease.job_id, artifact) for artifact in success.artifacts]
        with self._engine.begin() as connection:
            if not _end(connection, lease, AttemptOutcome.SUCCEEDED, changes):
                return False
            connection.execute(artifacts.insert(), rows)
            return True

    def fail(self, lease: Lease, code: ErrorCode, message: str) -> bool:
        """End a job with an error that its owner will read."""
        changes = {"status": JobStatus.FAILED, "error_code": code, "error_message": message}
        with self._engine.begin() as connection:
            return _end(connection, lease, AttemptOutcome.FAILED, changes)

    def cancel(self, lease: Lease) -> bool:
        """End a job as its owner asked."""
        with self._engine.begin() as connection:
            changes = {"status": JobStatus.CANCELED}
            return _end(connection, lease, AttemptOutcome.CANCELED, changes)

    def release(self, lease: Lease) -> bool:
        """Hand a job back unfinished; the attempt is not counted against it."""
        is_canceled = jobs.c.cancel_requested_at.is_not(None)
        changes = {
            "status": sa.case((is_canceled, JobStatus.CANCELED), else_=JobStatus.QUEUED),
            "finished_at": sa.case((is_canceled, sa.func.now())),
            "started_at": sa.case((is_canceled, jobs.c.started_at)),
            "iteration": 0,
        }
        with self._engine.begin() as connection:
            return _end(connection, lease, AttemptOutcome.RELEASED, changes)


def _end(
    connection: sa.Connection, lease: Lease, outcome: AttemptOutcome, changes: dict[str, Any]
) -> bool:
    """Take a job out of `running`, if the lease still holds it."""
    ended = connection.execute(
        jobs.update()
        .where(
            jobs.c.id == lease.job_id,
            jobs.c.status == JobStatus.RUNNING,
            jobs.c.lease_token == lease.token,
        )
        .values({"finished_at": sa.func.now(), "lease_token": None, "lease_until": None} | changes)
    )
    if ended.rowcount == 0:
        return False
    connection.execute(
        attempts.update()
        .where(attempts.c.job_id == lease.job_id, attempts.c.attempt == lease.attempt)
        .values(ended_at=sa.func.now(), outcome=outcome)
    )
    return True


class WorkerRepository:
    """Which workers are alive and what they serve."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def beat(
        self,
        worker_id: str,
        *,
        device: str,
        queues: list[str],
        slots: int,
        clock: datetime | None = None,
    ) -> None:
        """Say that a worker is alive, and what its clock shows, if it has one that matters."""
        ahead = sa.literal(clock, sa.TIMESTAMP(timezone=True)) - sa.func.clock_timestamp()
        values = {
            "id": worker_id,
            "device": device,
            "queues": queues,
            "slots": slots,
            "clock_offset_s": sa.extract("epoch", ahead),
        }
        statement = insert(workers).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_=values | {"heartbeat_at": sa.func.now()}
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def leave(self, worker_id: str) -> None:
        """Say that a worker has gone."""
        with self._engine.begin() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker_id))
