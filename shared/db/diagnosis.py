"""How everything stands, in counts: what `latentq doctor` and the metrics of bad states look at."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from shared.db.presence import is_live
from shared.db.tables import deletions, dispatchers, jobs, workers
from shared.db.webhook_tables import deliveries
from shared.errors import ErrorCode
from shared.job import JobStatus
from shared.webhook import DeliveryStatus

#: A dispatcher takes a lease back as soon as it runs out; one that is left for so long is not, in
#: seconds.
STALE_LEASE_S = 10.0
#: A message that no worker takes for so long while one is free is a bad sign, in seconds.
UNCLAIMED_S = 60.0
#: A dispatcher that has not been heard of for so long is none, in seconds.
DISPATCHER_SILENCE_S = 30.0
#: How far back lost jobs are counted, in seconds.
DEAD_LETTERS_S = 86_400.0
#: A job that was deleted has objects for this long at most unless something is wrong, in seconds.
OVERDUE_DELETION_S = 3600.0
#: Most ids that are told of each kind.
MAX_IDS = 5


@dataclass(frozen=True, slots=True)
class QueueState:
    """The jobs of a queue that have not ended."""

    queue: str
    model: str
    #: Free to be picked or announced already.
    waiting: int
    #: Announced for `UNCLAIMED_S` and longer.
    unclaimed: int
    running: int


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that was heard of lately."""

    id: str
    queues: tuple[str, ...]
    slots: int
    #: By how much its clock is ahead of the database's, in seconds; None if it did not say.
    clock_offset_s: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the database knows at one moment."""

    queues: tuple[QueueState, ...]
    #: Those that are alive.
    workers: tuple[WorkerState, ...]
    silent_workers: int
    dispatchers: int
    stale_leases: int
    dead_letters: int
    #: Some of them, the latest first.
    dead_letter_ids: tuple[str, ...]
    dead_deliveries: int
    overdue_deletions: int


class DiagnosisRepository:
    """Look at everything and change nothing."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def clock_offset_s(self, now: Callable[[], datetime]) -> float:
        """Measure by how much a clock is ahead of the database's, in seconds."""
        with self._engine.connect() as connection:
            before = now()
            there: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
            after = now()
        return (before + (after - before) / 2 - there).total_seconds()

    def look(self) -> Snapshot:
        """Count, in one transaction."""
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.connect() as connection:
            dead_letters = connection.execute(_DEAD_LETTERS).one()
            return Snapshot(
                queues=tuple(QueueState(**row._mapping) for row in connection.execute(_QUEUES)),
                workers=tuple(
                    WorkerState(row.id, tuple(row.queues), row.slots, row.clock_offset_s)
                    for row in connection.execute(_WORKERS)
                ),
                silent_workers=connection.execute(_SILENT_WORKERS).scalar_one(),
                dispatchers=connection.execute(_DISPATCHERS).scalar_one(),
                stale_leases=connection.execute(_STALE_LEASES).scalar_one(),
                dead_letters=dead_letters.total,
                dead_letter_ids=tuple(dead_letters.ids or ()),
                dead_deliveries=connection.execute(_DEAD_DELIVERIES).scalar_one(),
                overdue_deletions=connection.execute(_OVERDUE_DELETIONS).scalar_one(),
            )


def _ago(seconds: float) -> sa.ColumnElement[datetime]:
    return sa.func.now() - timedelta(seconds=seconds)


_COUNT = sa.func.count()
_IS_QUEUED = jobs.c.status == JobStatus.QUEUED
_IS_RUNNING = jobs.c.status == JobStatus.RUNNING
_QUEUES = (
    sa.select(
        jobs.c.queue,
        jobs.c.model,
        _COUNT.filter(_IS_QUEUED, jobs.c.held_until.is_(None)).label("waiting"),
        _COUNT.filter(_IS_QUEUED, jobs.c.dispatched_at < _ago(UNCLAIMED_S)).label("unclaimed"),
        _COUNT.filter(_IS_RUNNING).label("running"),
    )
    .where(jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
    .group_by(jobs.c.queue, jobs.c.model)
    .order_by(jobs.c.queue)
)
_WORKERS = sa.select(workers).where(is_live()).order_by(workers.c.id)
_SILENT_WORKERS = sa.select(_COUNT).select_from(workers).where(~is_live())
_DISPATCHERS = (
    sa.select(_COUNT)
    .select_from(dispatchers)
    .where(dispatchers.c.heartbeat_at > _ago(DISPATCHER_SILENCE_S))
)
_STALE_LEASES = (
    sa.select(_COUNT).select_from(jobs).where(_IS_RUNNING, jobs.c.lease_until < _ago(STALE_LEASE_S))
)
_LOST = (
    sa.select(jobs.c.id, jobs.c.finished_at)
    .where(
        jobs.c.status == JobStatus.FAILED,
        jobs.c.error_code == ErrorCode.WORKER_LOST,
        jobs.c.finished_at > _ago(DEAD_LETTERS_S),
    )
    .cte("lost")
)
_DEAD_LETTERS = sa.select(
    sa.select(_COUNT).select_from(_LOST).scalar_subquery().label("total"),
    sa.func.array(
        sa.select(_LOST.c.id).order_by(_LOST.c.finished_at.desc()).limit(MAX_IDS).scalar_subquery()
    ).label("ids"),
)
_DEAD_DELIVERIES = (
    sa.select(_COUNT).select_from(deliveries).where(deliveries.c.status == DeliveryStatus.DEAD)
)
_OVERDUE_DELETIONS = (
    sa.select(_COUNT)
    .select_from(deletions)
    .where(deletions.c.requested_at < _ago(OVERDUE_DELETION_S))
)
