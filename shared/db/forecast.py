"""Where a job would stand if it were accepted now, and how early or late its turn may come."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from shared.db.acceptance import PLACE_COLUMNS, column_of, rows_parameter
from shared.db.outlook import (
    QUEUED,
    RUNNING,
    left_s_of,
    queued_ahead,
    running_beside,
    select_outlook,
    serves,
)
from shared.db.rows import explain_unserved
from shared.db.tables import jobs, workers
from shared.job import JobStatus, NewJob


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job of this moment would read of itself, and the bounds of its waiting in seconds."""

    position: int | None
    eta_s: float | None
    #: None where `eta_s` is.
    eta_low_s: float | None
    #: None too where nothing is known of some of the work that may come first.
    eta_high_s: float | None
    unschedulable: str | None


def forecast(connection: sa.Connection, new: NewJob) -> Forecast:
    """Look at the queue as a job would find it."""
    row = connection.execute(_select_forecast(), rows_parameter([new])).one()
    has_eta = row.queue_eta_s is not None
    return Forecast(
        position=row.queue_position,
        eta_s=row.queue_eta_s,
        eta_low_s=row.low_s if has_eta else None,
        eta_high_s=row.high_s if has_eta else None,
        unschedulable=explain_unserved(row.model) if row.is_unserved else None,
    )


@cache
def _select_forecast() -> sa.Select[Any]:
    columns = {name: column_of(name) for name in PLACE_COLUMNS} | {
        "status": sa.literal(JobStatus.QUEUED),
        "dispatched_at": sa.null(),
    }
    job = sa.select(
        *(sa.cast(value, jobs.c[name].type).label(name) for name, value in columns.items())
    ).subquery("hypothetical")
    num_workers = sa.select(sa.func.count()).where(serves(job)).correlate(job).scalar_subquery()
    share = sa.func.nullif(num_workers, 0)
    return select_outlook(job).add_columns(
        (_least_s(job) / share).label("low_s"), (_most_s(job) / share).label("high_s")
    )


def _least_s(job: sa.FromClause) -> sa.ScalarSelect[float]:
    """Compute the work that is over before a slot is free, at the earliest.

    What runs and what is in Redis cannot be overtaken; all else can, by the tenant with the least
    work under way. Of these jobs as many must end as there are beyond the other slots, in the best
    case the shortest. One that nothing was predicted for may take no time.
    """
    work = sa.union_all(queued_ahead(job), running_beside(job)).subquery("work")
    left_s = sa.func.coalesce(work.c.left_s, 0.0)
    sent = (
        sa.select(
            left_s.label("left_s"),
            sa.func.row_number().over(order_by=left_s).label("rank"),
            sa.func.count().over().label("num_jobs"),
        )
        .where(work.c.is_sent)
        .subquery("sent")
    )
    slots = (
        sa.select(sa.func.coalesce(sa.func.sum(workers.c.slots), 0))
        .where(serves(job))
        .correlate(job)
        .scalar_subquery()
    )
    must_end = sent.c.rank <= sent.c.num_jobs - slots + 1
    return sa.select(
        sa.func.coalesce(sa.func.sum(sent.c.left_s).filter(must_end), 0.0)
    ).scalar_subquery()


def _most_s(job: sa.FromClause) -> sa.ScalarSelect[float]:
    """Compute all the work that these workers may do first: what waits or runs in all their queues.

    Null if nothing was predicted for some of it. Three parts, since each has an index that holds no
    other rows.
    """
    theirs = sa.select(sa.func.unnest(workers.c.queues)).where(serves(job)).correlate(job)
    other = jobs.alias("any_other")
    is_theirs = other.c.queue.in_(theirs)
    is_announced = other.c.dispatched_at.is_not(None)
    parts = (
        (other.c.status == QUEUED, ~is_announced, other.c.held_until.is_(None), is_theirs),
        (other.c.status == QUEUED, is_announced, is_theirs),
        (other.c.status == RUNNING, sa.or_(is_theirs, other.c.model == job.c.model)),
    )
    work = sa.union_all(
        *(sa.select(left_s_of(other).label("left_s")).where(*part).correlate(job) for part in parts)
    ).subquery("any_work")
    is_all_known = sa.func.count() == sa.func.count(work.c.left_s)
    total_s = sa.func.coalesce(sa.func.sum(work.c.left_s), 0.0)
    return sa.select(sa.case((is_all_known, total_s))).select_from(work).scalar_subquery()
