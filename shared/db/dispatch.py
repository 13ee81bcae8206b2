"""Which queued jobs are announced in Redis, decided in SQL.

The backlog stays in SQL, where priority and fairness can be decided late; Redis holds only a window
of it. Any number of processes may pick at once: a queue is picked by one transaction at a time, and
tenants with a limit by one transaction of all queues.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from shared.db.presence import is_live
from shared.db.tables import jobs, tenants, workers
from shared.job import JobStatus

#: Announced jobs for each slot of a live worker: one running, one waiting behind it.
WINDOW_PER_SLOT = 2
#: Announced jobs of a queue that nobody serves at the moment, so that a new worker finds some.
MIN_WINDOW = 8
#: Most jobs of one pick; a window with more room is filled by several.
MAX_PICK = 64
#: Most jobs of one transaction that become free to be picked since their time has come.
MAX_RELEASED = 1000


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message to be sent: informs of a job, never of its prompt."""

    job_id: str
    queue: str
    parameters: Mapping[str, Any]


_WAITING_QUEUES = sa.text("""
WITH RECURSIVE queues AS (
    -- One index probe for each queue, however many jobs it has.
    (SELECT queue FROM jobs
      WHERE status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL
      ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.queue FROM jobs
             WHERE status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL
               AND jobs.queue > queues.queue
             ORDER BY jobs.queue LIMIT 1)
      FROM queues WHERE queues.queue IS NOT NULL
)
SELECT queue FROM queues WHERE queue IS NOT NULL
""")

_PICK = sa.text("""
WITH RECURSIVE heads AS (
    -- The first job of each tenant that waits: one index probe for each, however many jobs it has.
    (SELECT tenant, virtual_birth, id, predicted_s FROM jobs
      WHERE queue = :queue
        AND status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL
      ORDER BY tenant, virtual_birth, id LIMIT 1)
    UNION ALL
    SELECT head.* FROM heads
     CROSS JOIN LATERAL (
        SELECT jobs.tenant, jobs.virtual_birth, jobs.id, jobs.predicted_s FROM jobs
         WHERE queue = :queue
           AND status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL
           AND jobs.tenant > heads.tenant
         ORDER BY jobs.tenant, jobs.virtual_birth, jobs.id LIMIT 1
     ) AS head
), under_way AS MATERIALIZED (
    -- Two parts, since each of them has an index that holds no other rows.
    SELECT tenant, predicted_s, megapixel_iterations FROM jobs WHERE status = 'running'
    UNION ALL
    SELECT tenant, predicted_s, megapixel_iterations FROM jobs
     WHERE status = 'queued' AND dispatched_at IS NOT NULL
), unit AS (
    -- Seconds where all is predicted, else megapixel-iterations for all: never some of each.
    SELECT NOT EXISTS (SELECT FROM under_way WHERE predicted_s IS NULL)
       AND NOT EXISTS (SELECT FROM heads WHERE predicted_s IS NULL) AS is_seconds
), loads AS (
    SELECT tenant, count(*) AS jobs, sum(predicted_s) AS s, sum(megapixel_iterations) AS mpi
      FROM under_way GROUP BY tenant
), front AS (
    -- A tenant whose first job is not among the first ones has none among them.
    SELECT heads.tenant, coalesce(loads.s, 0) AS s, coalesce(loads.mpi, 0) AS mpi,
           least(:room, tenants.max_running - coalesce(loads.jobs, 0)) AS room
      FROM heads
      LEFT JOIN loads ON loads.tenant = heads.tenant
      LEFT JOIN tenants ON tenants.id = heads.tenant
     WHERE tenants.max_running IS NULL OR tenants.max_running > coalesce(loads.jobs, 0)
     ORDER BY CASE WHEN (SELECT is_seconds FROM unit) THEN coalesce(loads.s, 0)
                   ELSE coalesce(loads.mpi, 0) END,
              heads.virtual_birth, heads.id
     LIMIT :room
), candidates AS (
    -- Each after the work of its tenant that is under way or goes before it.
    SELECT next.id, next.virtual_birth, next.predicted_s,
           front.s + coalesce(sum(next.predicted_s) OVER before, 0) AS after_s,
           front.mpi + coalesce(sum(next.megapixel_iterations) OVER before, 0) AS after_mpi
      FROM front
      CROSS JOIN LATERAL (
        SELECT id, virtual_birth, predicted_s, megapixel_iterations FROM jobs
         WHERE queue = :queue AND jobs.tenant = front.tenant
           AND status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL
         ORDER BY virtual_birth, id LIMIT front.room
      ) AS next
    WINDOW before AS (PARTITION BY front.tenant ORDER BY next.virtual_birth, next.id
                      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), first AS (
    SELECT id FROM candidates
     ORDER BY CASE WHEN (SELECT is_seconds FROM unit)
                    AND NOT EXISTS (SELECT FROM candidates WHERE predicted_s IS NULL)
                   THEN after_s ELSE after_mpi END,
              virtual_birth, id
     LIMIT :room
)
UPDATE jobs SET dispatched_at = now()
 -- An array, which is looked up by key whatever the planner thinks of its size.
 WHERE id = ANY (ARRAY(SELECT id FROM first))
   AND status = 'queued' AND dispatched_at IS NULL AND held_until IS NULL
RETURNING id, queue, model, preset_name, request
""")


class DispatchRepository:
    """Pick jobs to announce. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def release_due(self) -> int:
        """Let jobs whose `not_before` has come be picked; returns how many."""
        due = (
            sa.select(jobs.c.id)
            .where(jobs.c.status == JobStatus.QUEUED, jobs.c.held_until <= sa.func.now())
            .order_by(jobs.c.held_until)
            .limit(MAX_RELEASED)
            .with_for_update(skip_locked=True)
        )
        statement = (
            jobs.update()
            # An array: what is IN may run once for each row, past the limit.
            .where(
                jobs.c.id == sa.func.any(sa.func.array(due.scalar_subquery())),
                jobs.c.status == JobStatus.QUEUED,
            )
            .values(held_until=None)
        )
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount

    def waiting_queues(self) -> list[str]:
        """List the queues that hold jobs which may be picked."""
        with self._engine.connect() as connection:
            return list(connection.scalars(_WAITING_QUEUES))

    def pick(self, queue: str) -> list[Announcement]:
        """Mark as many jobs of a queue announced as its window has room for, and return them.

        At most `MAX_PICK` of them. The tenant with the least work under way goes first; of its own
        jobs, and between tenants with equal work, the one born virtually first.
        """
        with self._engine.begin() as connection:
            if not _lock(connection, f"pick {queue}"):
                return []
            room = connection.scalar(_room(queue))
            if room is None or room <= 0:
                return []
            if connection.scalar(_HAS_LIMITS):
                # Jobs picked of another queue at the same time count as well.
                connection.execute(_LOCK_LIMITS)
            values = {"queue": queue, "room": min(room, MAX_PICK)}
            rows = connection.execute(_PICK, values).all()
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


_HAS_LIMITS = sa.select(sa.exists().where(tenants.c.max_running.is_not(None)))
_LOCK_LIMITS = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("limits of tenants")))


def _lock(connection: sa.Connection, name: str) -> bool:
    """Take a lock until the transaction ends, unless somebody holds it."""
    lock = sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtext(name)))
    return bool(connection.scalar(lock))


def _room(queue: str) -> sa.Select[int]:
    """Compute how many more jobs of a queue may be announced."""
    slots = (
        sa.select(sa.func.coalesce(sa.func.sum(workers.c.slots), 0))
        .where(workers.c.queues.contains([queue]), is_live())
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
    shown = ("sampler", "schedule", "steps", "guidance", "width", "height", "duration_s")
    # A picture has a size, a sound a duration.
    parameters = {name: row.request[name] for name in shown if name in row.request}
    parameters |= {"model": row.model, "preset": row.preset_name}
    return Announcement(job_id=row.id, queue=row.queue, parameters=parameters)
