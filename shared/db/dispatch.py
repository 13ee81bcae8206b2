"""Which queued jobs are announced in Redis, decided in SQL.

The backlog stays in SQL, where priority and fairness can be decided late; Redis holds only a window
of it. Any number of processes may pick at once: a queue is picked by one transaction at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from shared.db.tables import jobs, workers
from shared.job import JobStatus

#: A worker that has not been heard of for this long gives its queues no more room, in seconds.
WORKER_SILENCE_S = 60
#: Announced jobs for each slot of a live worker: one running, one waiting behind it.
WINDOW_PER_SLOT = 2
#: Announced jobs of a queue that nobody serves at the moment, so that a new worker finds some.
MIN_WINDOW = 8


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message to be sent: informs of a job, never of its prompt."""

    job_id: str
    queue: str
    parameters: Mapping[str, Any]


_PICK = sa.text("""
WITH RECURSIVE tenants AS (
    -- One index probe for each tenant that waits, however many jobs it has.
    (SELECT tenant FROM jobs
      WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL
      ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.tenant FROM jobs
             WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL
               AND jobs.tenant > tenants.tenant
             ORDER BY jobs.tenant LIMIT 1)
      FROM tenants WHERE tenants.tenant IS NOT NULL
), in_flight AS (
    SELECT tenant, count(*) AS jobs FROM jobs
     WHERE status = 'running' OR (status = 'queued' AND dispatched_at IS NOT NULL)
     GROUP BY tenant
), candidates AS (
    SELECT head.*,
           coalesce(in_flight.jobs, 0) + row_number() OVER (
             PARTITION BY head.tenant ORDER BY head.priority DESC, head.created_at, head.id) AS turn
      FROM tenants
      CROSS JOIN LATERAL (
        SELECT id, jobs.tenant, priority, created_at FROM jobs
         WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL
           AND jobs.tenant = tenants.tenant
         ORDER BY priority DESC, created_at, id LIMIT :room
      ) AS head
      LEFT JOIN in_flight ON in_flight.tenant = head.tenant
)
UPDATE jobs SET dispatched_at = now()
 WHERE id IN (SELECT id FROM candidates ORDER BY priority DESC, turn, created_at, id LIMIT :room)
   AND status = 'queued' AND dispatched_at IS NULL
RETURNING id, queue, model, preset_name, request
""")


class DispatchRepository:
    """Pick jobs to announce. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def waiting_queues(self) -> list[str]:
        """List the queues that hold jobs which have not been announced."""
        query = (
            sa.select(jobs.c.queue)
            .where(jobs.c.status == JobStatus.QUEUED, jobs.c.dispatched_at.is_(None))
            .distinct()
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def pick(self, queue: str) -> list[Announcement]:
        """Mark as many jobs of a queue announced as its window has room for, and return them.

        The order is priority, then each tenant's turn, then age.
        """
        with self._engine.begin() as connection:
            lock = sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtext(f"pick {queue}")))
            if not connection.execute(lock).scalar_one():
                return []
            room = connection.scalar(_room(queue))
            if room is None or room <= 0:
                return []
            rows = connection.execute(_PICK, {"queue": queue, "room": room}).all()
        return [_announce(row) for row in rows]

    def announced(self) -> dict[str, int]:
        """Count, for each queue, the jobs that were announced and not claimed."""
        query = (
            sa.select(jobs.c.queue, sa.func.count().label("announced"))
            .where(jobs.c.status == JobStatus.QUEUED, jobs.c.dispatched_at.is_not(None))
            .group_by(jobs.c.queue)
        )
        with self._engine.connect() as connection:
            return {row.queue: row.announced for row in connection.execute(query)}

    def pick_stale(self, queue: str, *, older_than_s: float) -> list[Announcement]:
        """Return the jobs of a queue announced so long ago that the message may be lost."""
        statement = (
            jobs.update()
            .where(
                jobs.c.queue == queue,
                jobs.c.status == JobStatus.QUEUED,
                jobs.c.dispatched_at < sa.func.now() - timedelta(seconds=older_than_s),
            )
            .values(dispatched_at=sa.func.now())
            .returning(jobs.c.id, jobs.c.queue, jobs.c.model, jobs.c.preset_name, jobs.c.request)
        )
        with self._engine.begin() as connection:
            return [_announce(row) for row in connection.execute(statement)]


def _room(queue: str) -> sa.Select[int]:
    """Compute how many more jobs of a queue may be announced."""
    slots = (
        sa.select(sa.func.coalesce(sa.func.sum(workers.c.slots), 0))
        .where(
            workers.c.queues.contains([queue]),
            workers.c.heartbeat_at > sa.func.now() - timedelta(seconds=WORKER_SILENCE_S),
        )
        .scalar_subquery()
    )
    announced = (
        sa.select(sa.func.count())
        .where(
            jobs.c.queue == queue,
            jobs.c.status == JobStatus.QUEUED,
            jobs.c.dispatched_at.is_not(None),
        )
        .scalar_subquery()
    )
    return sa.select(sa.func.greatest(WINDOW_PER_SLOT * slots, MIN_WINDOW) - announced)


def _announce(row: sa.Row[Any]) -> Announcement:
    shown = ("sampler", "schedule", "steps", "guidance", "width", "height")
    parameters = {name: row.request[name] for name in shown}
    parameters |= {"model": row.model, "preset": row.preset_name}
    return Announcement(job_id=row.id, queue=row.queue, parameters=parameters)
