"""Jobs that are deleted: the row at once, its objects when the store is there.

The row goes in the transaction that notes its objects as to be deleted, so that a store that is
away, or a process that dies, leaves nothing behind that nobody knows of.
"""

from datetime import timedelta

import sqlalchemy as sa

from shared.db.tables import deletions, jobs
from shared.job import JobStatus

TERMINAL = [status for status in JobStatus if status.is_terminal]


def delete_jobs(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[str]:
    """Delete the jobs that have ended and meet the conditions; returns their ids.

    Attempts and artifacts go with them. The transitions stay: they tell nothing of a request.
    """
    statement = jobs.delete().where(jobs.c.status.in_(TERMINAL), *conditions).returning(jobs.c.id)
    job_ids = list(connection.scalars(statement))
    if job_ids:
        rows = [{"job_id": job_id} for job_id in job_ids]
        connection.execute(deletions.insert(), rows)
    return job_ids


class DeletionRepository:
    """Which jobs' objects are to be deleted. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take_due(self, *, retry_after_s: float) -> str | None:
        """Return the job whose objects have waited longest to be deleted; None if none is due.

        Unless `finish` is called, it is due again after `retry_after_s`.
        """
        due = (
            sa.select(deletions.c.job_id)
            .where(deletions.c.due_at <= sa.func.now())
            .order_by(deletions.c.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        statement = (
            deletions.update()
            .where(deletions.c.job_id.in_(due))
            .values(due_at=sa.func.now() + timedelta(seconds=retry_after_s))
            .returning(deletions.c.job_id)
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def finish(self, job_id: str) -> None:
        """Note that the objects of a job are no more."""
        with self._engine.begin() as connection:
            connection.execute(deletions.delete().where(deletions.c.job_id == job_id))
