"""Take back what nobody looks after any more."""

import sqlalchemy as sa

from shared.db.tables import attempts, jobs
from shared.errors import ErrorCode
from shared.job import MAX_LOST_LEASES, AttemptOutcome, JobStatus, status_after_lost_lease

#: Most rows of one transaction; what is left comes with the next.
BATCH = 200


class RescueRepository:
    """Find jobs past their lease or their deadline. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take_back_expired_leases(self) -> dict[str, JobStatus]:
        """Move on every running job whose lease ran out; returns where each of them went."""
        expired = (
            sa.select(jobs.c.id, jobs.c.attempt, jobs.c.lost_leases, jobs.c.cancel_requested_at)
            .where(jobs.c.status == JobStatus.RUNNING, jobs.c.lease_until < sa.func.now())
            .limit(BATCH)
            # A row that is being finished right now is none of ours.
            .with_for_update(skip_locked=True)
        )
        moved = {}
        with self._engine.begin() as connection:
            for row in connection.execute(expired).all():
                status = status_after_lost_lease(
                    lost_leases=row.lost_leases + 1,
                    cancel_requested=row.cancel_requested_at is not None,
                )
                self._take_back(connection, row.id, attempt=row.attempt, status=status)
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
                    .where(attempts.c.job_id.in_(ids), attempts.c.ended_at.is_(None))
                    .values(ended_at=sa.func.now(), outcome=AttemptOutcome.FAILED)
                )
        return ids

    def _take_back(
        self, connection: sa.Connection, job_id: str, *, attempt: int, status: JobStatus
    ) -> None:
        changes = {
            "status": status,
            "lost_leases": jobs.c.lost_leases + 1,
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
                f"{MAX_LOST_LEASES} workers were lost while they ran this job"
            )
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(changes))
        connection.execute(
            attempts.update()
            .where(attempts.c.job_id == job_id, attempts.c.attempt == attempt)
            .values(ended_at=sa.func.now(), outcome=AttemptOutcome.LOST)
        )
