"""What a queued job waits for: the jobs ahead of it, and the workers that get them done."""

from typing import Any

import sqlalchemy as sa

from shared.db.presence import is_live
from shared.db.tables import jobs, workers
from shared.job import AGEING_S, JobStatus

# Spelled out, not bound: a prepared statement shall still find the indexes of these states.
QUEUED: sa.ColumnElement[str] = sa.literal_column(f"'{JobStatus.QUEUED}'")
RUNNING: sa.ColumnElement[str] = sa.literal_column(f"'{JobStatus.RUNNING}'")
#: For how long a job could have run, in seconds: what its priority adds to its age is left out.
WAITED_S: sa.ColumnElement[float] = sa.cast(
    sa.extract("epoch", sa.func.now() - jobs.c.virtual_birth) - AGEING_S * jobs.c.priority,
    sa.Double,
)

#: How many jobs ahead are counted before an answer that nobody asked for may not wait for more.
FEW_AHEAD = 100
#: And before one that somebody did.
MANY_AHEAD = 10_000


def select_outlook(
    job: sa.FromClause = jobs, *, max_ahead: int | None = None
) -> sa.Select[tuple[Any, ...]]:
    """Select jobs with `queue_position`, `queue_eta_s` and `is_unserved`.

    `job` may stand for the table: rows with those of its columns that decide the place in a queue.

    The position counts the jobs of the queue that will be picked earlier. The seconds are those
    until these and what runs of the model are done, by the workers that serve the queue: null if
    none does, or if nothing is known of any of that work. A job that nothing was predicted for
    counts as the others do. Both are null unless the job is queued, may run, and has fewer than
    `max_ahead` before it: to count takes time. One that is queued and that no live worker would
    take is unserved.
    """
    queued = queued_ahead(job)
    if max_ahead is not None:
        queued = queued.limit(max_ahead)
    work = sa.union_all(sa.select(queued.subquery("queued")), running_beside(job)).subquery("work")
    ahead = (
        sa.select(
            sa.func.count().filter(work.c.is_queued).label("position"),
            sa.func.count().label("num_jobs"),
            (sa.func.avg(work.c.left_s) * sa.func.count()).label("left_s"),
        )
        .select_from(work)
        .lateral("ahead")
    )
    num_workers = sa.select(sa.func.count()).where(serves(job)).correlate(job).scalar_subquery()
    left_s = sa.case((ahead.c.num_jobs == 0, 0.0), else_=ahead.c.left_s)
    is_queued = job.c.status == JobStatus.QUEUED
    has_place = sa.and_(is_queued, job.c.held_until.is_(None))
    if max_ahead is not None:
        has_place = sa.and_(has_place, ahead.c.position < max_ahead)
    return sa.select(
        job,
        sa.case((has_place, ahead.c.position)).label("queue_position"),
        sa.case((has_place, left_s / sa.func.nullif(num_workers, 0))).label("queue_eta_s"),
        sa.and_(is_queued, num_workers == 0).label("is_unserved"),
    ).select_from(job.join(ahead, sa.true()))


def serves(job: sa.FromClause) -> sa.ColumnElement[bool]:
    """Tell, of a row of `workers`, whether it lives and takes from the queue of a job."""
    return sa.and_(job.c.queue == sa.func.any(workers.c.queues), is_live())


def queued_ahead(job: sa.FromClause) -> sa.CompoundSelect[tuple[object, ...]]:
    """Select the jobs of the queue that stand before one: those in Redis, and those born earlier.

    Those that wait for a time are in nobody's way. Two halves, since each has an index that holds
    no other rows.
    """
    other = jobs.alias("other")
    is_older = sa.tuple_(other.c.virtual_birth, other.c.id) < sa.tuple_(
        job.c.virtual_birth, job.c.id
    )
    is_waiting = job.c.dispatched_at.is_(None)
    announced = sa.and_(other.c.dispatched_at.is_not(None), sa.or_(is_waiting, is_older))
    waiting = sa.and_(
        other.c.dispatched_at.is_(None), other.c.held_until.is_(None), is_waiting, is_older
    )
    return sa.union_all(
        *(
            sa.select(
                sa.true().label("is_queued"),
                other.c.dispatched_at.is_not(None).label("is_sent"),
                other.c.predicted_s.label("left_s"),
            )
            .where(
                job.c.status == QUEUED,
                other.c.queue == job.c.queue,
                other.c.status == QUEUED,
                is_ahead,
            )
            .correlate(job)
            for is_ahead in (announced, waiting)
        )
    )


def running_beside(job: sa.FromClause) -> sa.Select[bool, bool, float]:
    """Select what runs on the devices that serve the queue, with the rest of its work."""
    other = jobs.alias("running")
    return (
        sa.select(
            sa.false().label("is_queued"),
            sa.true().label("is_sent"),
            left_s_of(other).label("left_s"),
        )
        .where(job.c.status == QUEUED, other.c.model == job.c.model, other.c.status == RUNNING)
        .correlate(job)
    )


def left_s_of(job: sa.FromClause) -> sa.ColumnElement[float]:
    """Compute how many seconds of its predicted work a job has left."""
    share_done = sa.cast(job.c.iteration, sa.Double) / job.c.iterations
    left_s: sa.ColumnElement[float] = job.c.predicted_s * (
        1 - sa.func.least(sa.func.coalesce(share_done, 0.0), 1.0)
    )
    return left_s
