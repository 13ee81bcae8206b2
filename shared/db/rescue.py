"""Take back what nobody looks after any more."""

from typing import Any

import sqlalchemy as sa
import structlog

from shared.db.tables import attempts, jobs
from shared.errors import ErrorCode
from shared.job import AttemptOutcome, JobStatus, status_after_lost_lease

#: Most rows of one transaction; what is left comes with the next.
BATCH = 200

log = structlog.get_logger(__name__)


class RescueRepository:
    """Find jobs past their lease or their deadline. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take_back_expired_leases(self) -> dict[str, JobStatus]:
        """Move on every running job whose lease ran out; returns where each of them went."""
        expired = (
            sa.select(jobs, attempts.c.is_alone, attempts.c.worker)
            .join(
                attempts,
                sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.attempt == jobs.c.attempt),
            )
            .where(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until < sa.func.now())
            .limit(BATCH)
            # A row that is being finished right now is none of ours.
            .with_for_update(of=jobs, skip_locked=True)
        )
        moved = {}
        with self._engine.begin() as connection:
            for row in connection.execute(expired).all():
                status = status_after_lost_lease(
                    lost_leases=row.lost_leases + 1,
                    lost_alone=row.lost_alone + row.is_alone,
                    cancel_requested=row.cancel_requested_at is not None,
                )
                self._take_back(connection, row, status)
                log.info("lease_ran_out", job_id=row.id, attempt=row.attempt, worker=row.worker)
                moved[row.id] = status
        return moved

    def fail_past_deadline(self) -> list[str]:
        """Fail every job whose time, queue and run together, is over."""
        late = (
            sa.select(jobs.c.id)
            .where(
                jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]),
                jobs.c.deadline_at <= sa.func.now(),
            )
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            ids = list(connection.scalars(late))
            if ids:
                connection.execute(
                    jobs.update()
                    .where(jobs.c.id.in_(ids))
                    .values(
                        status=JobStatus.FAILED,
                        error_code=ErrorCode.DEADLINE_EXCEEDED,
                        error_message="the job's deadline passed before it was done",
                        finished_at=sa.func.now(),
                        dispatched_at=None,
                        lease_token=None,
                        lease_until=None,
                    )
                )
                connection.execute(
                    attempts.update()
                    .where(
                        attempts.c.job_id.in_(ids),
                        attempts.c.ended_at.is_(None),
                        jobs.c.id == attempts.c.job_id,
                    )
                    .values(
                        ended_at=sa.func.now(),
                        outcome=AttemptOutcome.FAILED,
                        iteration=jobs.c.iteration,
                    )
                )
        return ids

    def _take_back(self, connection: sa.Connection, row: sa.Row[Any], status: JobStatus) -> None:
        changes = {
            "status": status,
            "lost_leases": row.lost_leases + 1,
            "lost_alone": row.lost_alone + row.is_alone,
            "lease_token": None,
            "lease_until": None,
            "iteration": 0,
        }
        if status.is_terminal:
            changes["finished_at"] = sa.func.now()
        else:
            changes["started_at"] = None
        if status is JobStatus.FAILED:
            changes["error_code"] = ErrorCode.WORKER_LOST
            changes["error_message"] = (
                f"{row.lost_leases + 1} workers were lost while they ran this job, "
                f"{row.lost_alone + row.is_alone} of them while nothing else ran"
            )
        connection.execute(jobs.update().where(jobs.c.id == row.id).values(changes))
        connection.execute(
            attempts.update()
            .where(attempts.c.job_id == row.id, attempts.c.attempt == row.attempt)
            .values(ended_at=sa.func.now(), outcome=AttemptOutcome.LOST, iteration=row.iteration)
        )
