"""Jobs that are deleted: the row at once, its objects when the store is there.

The row goes in the transaction that notes its objects as to be deleted, so that a store that is
away, or a process that dies, leaves nothing behind that nobody knows of.
"""

from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa

from shared.db.tables import batches, deletions, jobs
from shared.job import JobStatus

TERMINAL = [status for status in JobStatus if status.is_terminal]


def delete_jobs(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[str]:
    """Delete the jobs that have ended and meet the conditions; returns their ids.

    Attempts and artifacts go with them, and batches of which they were the last. The transitions
    stay: they tell nothing of a request.
    """
    statement = jobs.delete().where(jobs.c.status.in_(TERMINAL), *conditions)
    deleted = connection.execute(statement.returning(jobs.c.id, jobs.c.batch_id)).all()
    if deleted:
        rows = [{"job_id": row.id} for row in deleted]
        connection.execute(deletions.insert(), rows)
    _delete_empty(connection, {row.batch_id for row in deleted if row.batch_id is not None})
    return [row.id for row in deleted]


def _delete_empty(connection: sa.Connection, batch_ids: Collection[str]) -> None:
    if not batch_ids:
        return
    touched = batches.c.id.in_(batch_ids)
    # Who deletes other jobs of the same batches at this moment comes before or after, in one order.
    connection.execute(
        sa.select(batches.c.id).where(touched).order_by(batches.c.id).with_for_update()
    )
    has_jobs = sa.exists().where(jobs.c.batch_id == batches.c.id)
    connection.execute(batches.delete().where(touched, ~has_jobs))


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
            # `=`, not IN: what is IN may run once for each row, and take another one each time.
            .where(deletions.c.job_id == due.scalar_subquery())
            .values(due_at=sa.func.now() + timedelta(seconds=retry_after_s))
            .returning(deletions.c.job_id)
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def finish(self, job_id: str) -> None:
        """Note that the objects of a job are no more."""
        with self._engine.begin() as connection:
            connection.execute(deletions.delete().where(deletions.c.job_id == job_id))
