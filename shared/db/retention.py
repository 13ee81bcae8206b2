"""What is kept no longer: old jobs, uploads that no job needs, results that nobody committed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.deletions import TERMINAL, delete_jobs
from shared.db.tables import (
    attempts,
    dispatchers,
    incoming_uploads,
    jobs,
    transitions,
    uploads,
    workers,
)
from shared.db.webhook_tables import deliveries, events
from shared.job import AttemptOutcome, JobStatus
from shared.webhook import DeliveryStatus

#: Most rows of one transaction; what is left comes with the next.
BATCH = 200


@dataclass(frozen=True, slots=True)
class StoredResult:
    """An object that an attempt of a job has written."""

    key: str
    job_id: str
    token: UUID
    modified_at: datetime


class RetentionRepository:
    """Delete what is old. Each method is one transaction on the database's clock."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def delete_ended_jobs(self, *, older_than_s: float) -> list[str]:
        """Delete jobs that ended so long ago; returns their ids, the objects are noted.

        One whose receiver has not been told yet is kept until that has come to an end.
        """
        old = (
            sa.select(jobs.c.id)
            .where(
                jobs.c.status.in_(TERMINAL),
                jobs.c.finished_at < _ago(older_than_s),
                ~sa.exists().where(
                    events.c.job_id == jobs.c.id,
                    deliveries.c.event_id == events.c.id,
                    deliveries.c.status == DeliveryStatus.PENDING,
                ),
            )
            .order_by(jobs.c.finished_at)
            .limit(BATCH)
            .with_for_update(of=jobs, skip_locked=True)
        )
        with self._engine.begin() as connection:
            return delete_jobs(connection, jobs.c.id.in_(list(connection.scalars(old))))

    def delete_tests(self, *, older_than_s: float) -> None:
        """Delete events that endpoints were tried with so long ago, unless one is on its way."""
        waits = sa.exists().where(
            deliveries.c.event_id == events.c.id, deliveries.c.status == DeliveryStatus.PENDING
        )
        old = (
            sa.select(events.c.id)
            .where(events.c.job_id.is_(None), events.c.created_at < _ago(older_than_s), ~waits)
            .limit(BATCH)
        )
        with self._engine.begin() as connection:
            connection.execute(events.delete().where(events.c.id.in_(old)))

    def expire_uploads(self, *, older_than_s: float) -> list[str]:
        """Keep new jobs from starting from old uploads that no waiting or running job needs.

        Returns the ids of the uploads, which `deleting_upload` returns from now on.
        """
        is_old = sa.and_(
            uploads.c.is_stored.is_(True),
            uploads.c.sent_at < _ago(older_than_s),
            uploads.c.id.not_in(_needed_uploads()),
        )
        old = sa.select(uploads.c.id).where(is_old).limit(BATCH).with_for_update(skip_locked=True)
        with self._engine.begin() as connection:
            upload_ids = list(connection.scalars(old))
            if not upload_ids:
                return []
            # Looks again, with the rows locked: a job may have been committed since the first look,
            # and none can be from here on.
            statement = (
                uploads.update()
                .where(uploads.c.id.in_(upload_ids), is_old)
                .values(is_stored=False)
                .returning(uploads.c.id)
            )
            return list(connection.scalars(statement))

    @contextmanager
    def deleting_upload(self, *, older_than_s: float) -> Iterator[tuple[str, str] | None]:
        """Give out tenant and id of an expired upload, and delete its row unless the body raises.

        Whoever sends the same bytes again meanwhile waits for the end, and finds no row. None if
        there is no such upload.
        """
        oldest = (
            sa.select(uploads.c.tenant, uploads.c.id)
            .where(uploads.c.is_stored.is_(False), uploads.c.sent_at < _ago(older_than_s))
            .order_by(uploads.c.sent_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            row = connection.execute(oldest).one_or_none()
            yield None if row is None else (row.tenant, row.id)
            if row is not None:
                connection.execute(uploads.delete().where(uploads.c.id == row.id))

    @contextmanager
    def deleting_incoming(self, *, older_than_s: float) -> Iterator[tuple[str, str] | None]:
        """Give out tenant and id of a file whose link ended so long ago, and delete its row.

        The row stays if the body raises. None if there is no such file.
        """
        oldest = (
            sa.select(incoming_uploads.c.tenant, incoming_uploads.c.id)
            .where(incoming_uploads.c.expires_at < _ago(older_than_s))
            .order_by(incoming_uploads.c.expires_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            row = connection.execute(oldest).one_or_none()
            yield None if row is None else (row.tenant, row.id)
            if row is not None:
                is_it = incoming_uploads.c.id == row.id
                connection.execute(incoming_uploads.delete().where(is_it))

    def find_orphans(self, results: Sequence[StoredResult], *, older_than_s: float) -> list[str]:
        """Return the keys of those results that nobody can ever see.

        Their attempt ended without success, or went with its job. An attempt that may still be
        alive keeps its results however old they are, and so does a job that this database has
        never seen: another one may use the same bucket.
        """
        found = _table_of(results)
        is_kept = sa.exists().where(
            attempts.c.job_id == found.c.job_id,
            attempts.c.token == found.c.token,
            sa.or_(attempts.c.ended_at.is_(None), attempts.c.outcome == AttemptOutcome.SUCCEEDED),
        )
        return self._find(found, is_kept, older_than_s=older_than_s)

    def find_useless(self, states: Sequence[StoredResult], *, older_than_s: float) -> list[str]:
        """Return the keys of those states whose job has ended or is gone: nobody goes on from them.

        A job that this database has never seen keeps its states.
        """
        found = _table_of(states)
        is_kept = sa.exists().where(
            jobs.c.id == found.c.job_id, jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
        )
        return self._find(found, is_kept, older_than_s=older_than_s)

    def forget_silent(self, *, silent_for_s: float) -> list[str]:
        """Delete the rows of workers and dispatchers that were silent for so long; returns ids."""
        with self._engine.begin() as connection:
            return [
                silent
                for table in (workers, dispatchers)
                for silent in connection.scalars(
                    table.delete()
                    .where(table.c.heartbeat_at < _ago(silent_for_s))
                    .returning(table.c.id)
                )
            ]

    def _find(
        self,
        found: sa.TableValuedAlias,
        is_kept: sa.ColumnElement[bool],
        *,
        older_than_s: float,
    ) -> list[str]:
        is_known = sa.exists().where(transitions.c.job_id == found.c.job_id)
        query = sa.select(found.c.key).where(
            found.c.modified_at < _ago(older_than_s), is_known, ~is_kept
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))


def _table_of(objects: Sequence[StoredResult]) -> sa.TableValuedAlias:
    return (
        sa.func.unnest(
            sa.cast([one.key for one in objects], ARRAY(sa.Text)),
            sa.cast([one.job_id for one in objects], ARRAY(sa.Text)),
            sa.cast([one.token for one in objects], ARRAY(sa.Uuid)),
            sa.cast([one.modified_at for one in objects], ARRAY(sa.TIMESTAMP(timezone=True))),
        )
        .table_valued("key", "job_id", "token", "modified_at", name="found")
        .render_derived()
    )


def _ago(seconds: float) -> sa.ColumnElement[datetime]:
    return sa.func.now() - timedelta(seconds=seconds)


def _needed_uploads() -> sa.CompoundSelect[str]:
    """Select the uploads of all jobs that have not ended: their ids tell tenants apart."""
    active = jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
    ids = [jobs.c.request[name]["id"].astext for name in ("init_image", "mask")]
    return sa.union_all(*(sa.select(id_).where(active, id_.is_not(None)) for id_ in ids))
