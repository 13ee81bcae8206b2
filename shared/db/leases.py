"""Jobs as their workers see them: claimed for a time, every write fenced by the lease token."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
import structlog
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import ARRAY

from shared.crash_point import CrashPoint, reached
from shared.db.outlook import WAITED_S
from shared.db.rows import artifact_values
from shared.db.tables import artifacts, attempts, jobs, tenants
from shared.errors import ErrorCode
from shared.job import (
    MAX_UNSTORED,
    SUSPECTED_AFTER,
    AttemptOutcome,
    Claim,
    JobStatus,
    Lease,
    Success,
    status_after_lost_lease,
)
from shared.request import GenerationRequest

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat says of one running job."""

    token: UUID
    #: Forwards done so far.
    iteration: int
    #: How many of them another attempt had done; None if it began at the beginning.
    resumed_at: int | None = None


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

    def claim(self, job_id: str, *, worker: str, process: str | None = None) -> Claim | None:
        """Take a queued job; None if the message came late or twice and there is none to take.

        `worker` is a name for people, `process` tells this process from all others. A job that
        asks for what only a newer version knows stays announced: it is sent again, and that takes
        it.
        """
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
                resumed_at=None,
                lease_token=token,
                lease_until=sa.func.now() + self._lease,
            )
            .returning(
                jobs.c.tenant,
                jobs.c.request,
                jobs.c.attempt,
                jobs.c.deadline_at,
                jobs.c.lost_leases,
                jobs.c.traceparent,
                WAITED_S.label("waited_s"),
                jobs.c.lost_alone,
            )
        )
        with self._engine.connect() as connection, connection.begin() as transaction:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            try:
                request = GenerationRequest.model_validate(row.request)
            except ValidationError:
                transaction.rollback()
                log.warning("job_left_to_a_newer_version", job_id=job_id)
                return None
            lease = Lease(job_id=job_id, attempt=row.attempt, token=token)
            connection.execute(
                attempts.insert().values(
                    job_id=job_id,
                    attempt=row.attempt,
                    token=token,
                    worker=worker,
                    process=process,
                )
            )
        return Claim(
            lease=lease,
            tenant=row.tenant,
            request=request,
            deadline_at=row.deadline_at,
            is_suspected=row.lost_leases >= SUSPECTED_AFTER,
            waited_s=max(float(row.waited_s), 0.0),
            traceparent=row.traceparent,
            is_last_try=_is_last_try(row),
        )

    def decline(self, job_id: str) -> bool:
        """Leave a job that was announced to others: it is announced again at once."""
        statement = (
            jobs.update()
            .where(
                jobs.c.id == job_id,
                jobs.c.status == JobStatus.QUEUED,
                jobs.c.dispatched_at.is_not(None),
            )
            .values(dispatched_at=None)
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def is_suspected(self, job_id: str) -> bool:
        """Tell whether a queued job has lost so many workers that it must run alone."""
        query = sa.select(sa.true()).where(
            jobs.c.id == job_id,
            jobs.c.status == JobStatus.QUEUED,
            jobs.c.lost_leases >= SUSPECTED_AFTER,
        )
        with self._engine.connect() as connection:
            return connection.scalar(query) is not None

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
        told = list(beats)
        news = sa.func.unnest(
            sa.cast([beat.token for beat in told], ARRAY(sa.Uuid)),
            sa.cast([beat.iteration for beat in told], ARRAY(sa.Integer)),
            sa.cast([beat.resumed_at for beat in told], ARRAY(sa.Integer)),
        ).table_valued("token", "iteration", "resumed_at", name="news")
        news = news.render_derived()
        statement = (
            jobs.update()
            .where(jobs.c.lease_token == news.c.token, jobs.c.status == JobStatus.RUNNING)
            .values(
                lease_until=sa.func.now() + self._lease,
                iteration=news.c.iteration,
                resumed_at=news.c.resumed_at,
            )
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
            "resumed_at": success.resumed_at,
            "execution": dict(success.execution),
        }
        rows = [artifact_values(lease.job_id, artifact) for artifact in success.artifacts]
        with self._engine.begin() as connection:
            if not _end(connection, lease, AttemptOutcome.SUCCEEDED, changes):
                return False
            connection.execute(artifacts.insert(), rows)
            reached(CrashPoint.BEFORE_FINISH_COMMIT)
        reached(CrashPoint.AFTER_FINISH_COMMIT)
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
        with self._engine.begin() as connection:
            return _end(connection, lease, AttemptOutcome.RELEASED, _requeue())

    def put_off(self, lease: Lease, message: str) -> bool:
        """Hand a job back because the store was away; after `MAX_UNSTORED` times it fails for it.

        `message` is what its owner then reads.
        """
        unstored = (
            sa.select(sa.func.count())
            .where(attempts.c.job_id == jobs.c.id, attempts.c.outcome == AttemptOutcome.UNSTORED)
            .correlate(jobs)
            .scalar_subquery()
        )
        is_last = sa.and_(jobs.c.cancel_requested_at.is_(None), unstored + 1 >= MAX_UNSTORED)
        changes = _requeue()
        changes |= {
            "status": sa.case((is_last, JobStatus.FAILED), else_=changes["status"]),
            "finished_at": sa.case((is_last, sa.func.now()), else_=changes["finished_at"]),
            "started_at": sa.case((is_last, jobs.c.started_at), else_=changes["started_at"]),
            "error_code": sa.case((is_last, ErrorCode.STORAGE_UNAVAILABLE)),
            "error_message": sa.case((is_last, message)),
        }
        with self._engine.begin() as connection:
            return _end(connection, lease, AttemptOutcome.UNSTORED, changes)

    def abandon(self, leases: Iterable[Lease], *, reason: str) -> None:
        """Let the leases of a process that dies run out now, and note why it does.

        The rescuer takes the jobs back like those of any worker that was lost.
        """
        tokens = [lease.token for lease in leases]
        with self._engine.begin() as connection:
            connection.execute(
                attempts.update()
                .where(attempts.c.token.in_(tokens), attempts.c.ended_at.is_(None))
                .values(exit_reason=reason)
            )
            connection.execute(
                jobs.update()
                .where(jobs.c.lease_token.in_(tokens), jobs.c.status == JobStatus.RUNNING)
                .values(lease_until=sa.func.now())
            )


def _requeue() -> dict[str, Any]:
    """Send a job back to its queue, or end it if its owner wants that."""
    is_canceled = jobs.c.cancel_requested_at.is_not(None)
    return {
        "status": sa.case((is_canceled, JobStatus.CANCELED), else_=JobStatus.QUEUED),
        "finished_at": sa.case((is_canceled, sa.func.now())),
        "started_at": sa.case((is_canceled, jobs.c.started_at)),
        "iteration": 0,
    }


def _end(
    connection: sa.Connection, lease: Lease, outcome: AttemptOutcome, changes: dict[str, Any]
) -> bool:
    """Take a job out of `running`, if the lease still holds it."""
    is_held = (
        jobs.c.id == lease.job_id,
        jobs.c.status == JobStatus.RUNNING,
        jobs.c.lease_token == lease.token,
    )
    before = sa.select(jobs.c.id, jobs.c.iteration).where(*is_held).with_for_update().subquery()
    far = sa.func.greatest(before.c.iteration, jobs.c.iteration)
    statement = (
        jobs.update()
        .where(jobs.c.id == before.c.id, *is_held)
        .values({"finished_at": sa.func.now(), "lease_token": None, "lease_until": None} | changes)
        # The job begins anew; the attempt remembers how far it came, and from where.
        .returning(far.label("iteration"), jobs.c.resumed_at)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return False
    connection.execute(
        attempts.update()
        .where(attempts.c.job_id == lease.job_id, attempts.c.attempt == lease.attempt)
        .values(
            ended_at=sa.func.now(),
            outcome=outcome,
            iteration=row.iteration,
            resumed_at=row.resumed_at,
        )
    )
    return True


def _is_last_try(row: sa.Row[Any]) -> bool:
    """Tell whether a job fails if this attempt is lost, which is alone if it is suspected."""
    after = status_after_lost_lease(
        lost_leases=row.lost_leases + 1,
        lost_alone=row.lost_alone + (row.lost_leases >= SUSPECTED_AFTER),
        cancel_requested=False,
    )
    return after is JobStatus.FAILED
