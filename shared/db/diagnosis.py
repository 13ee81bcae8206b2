"""How everything stands, in counts: what `latentq doctor` and the metrics of bad states look at."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from shared.db.outlook import WAITED_S, left_s_of
from shared.db.presence import Pace, is_live
from shared.db.read_only import ReadOnlyNotice, find_notice
from shared.db.tables import attempts, deletions, dispatchers, jobs, workers
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
#: A job of a model of which nothing is known counts as so much of a device, in seconds: enough for
#: an autoscaler to start the first worker, which measures.
UNKNOWN_JOB_S = 1.0
#: How far back ended jobs are counted, in seconds.
RECENT_S = 600.0
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
    #: In Redis, and taken by no worker yet.
    announced: int = 0
    #: Until their time, and waiting for nothing else.
    held: int = 0
    #: Time of a device that those which wait or run still need, as far as it was predicted.
    predicted_s: float = 0.0
    #: Those of them that nothing was predicted for.
    unpredicted: int = 0
    #: For how long the one that has waited longest could have run, in seconds.
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that was heard of lately."""

    id: str
    queues: tuple[str, ...]
    slots: int
    #: By how much its clock is ahead of the database's, in seconds; None if it did not say.
    clock_offset_s: float | None
    #: The kind of device that it has.
    device: str = ""
    #: Those of its queues whose models it holds in memory.
    warm_queues: tuple[str, ...] = ()
    running: int = 0
    #: Between its last two heartbeats.
    pace: Pace = field(default_factory=Pace)
    #: Since the last one, in seconds.
    silent_s: float = 0.0


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
    pending_deliveries: int = 0
    #: None while the service takes changes.
    read_only: ReadOnlyNotice | None = None


def backlog_s(queues: Iterable[QueueState]) -> float:
    """Sum up the work of a model's queues, in seconds of a device.

    A job that nothing was predicted for counts as the others do.
    """
    found = list(queues)
    predicted_s = sum(queue.predicted_s for queue in found)
    unpredicted = sum(queue.unpredicted for queue in found)
    num_known = sum(queue.waiting + queue.running for queue in found) - unpredicted
    return predicted_s + unpredicted * (predicted_s / num_known if num_known else UNKNOWN_JOB_S)


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
                workers=tuple(_read_worker(row) for row in connection.execute(_WORKERS)),
                silent_workers=connection.execute(_SILENT_WORKERS).scalar_one(),
                dispatchers=connection.execute(_DISPATCHERS).scalar_one(),
                stale_leases=connection.execute(_STALE_LEASES).scalar_one(),
                dead_letters=dead_letters.total,
                dead_letter_ids=tuple(dead_letters.ids or ()),
                dead_deliveries=connection.execute(_DEAD_DELIVERIES).scalar_one(),
                overdue_deletions=connection.execute(_OVERDUE_DELETIONS).scalar_one(),
                pending_deliveries=connection.execute(_PENDING_DELIVERIES).scalar_one(),
                read_only=find_notice(connection),
            )

    def recent_ends(self) -> dict[str, int]:
        """Count the jobs that ended within the last `RECENT_S`, by how."""
        with self._engine.connect() as connection:
            counts = {row.status: row.ended for row in connection.execute(_RECENT_ENDS)}
        return {status: counts.get(status, 0) for status in JobStatus if status.is_terminal}


def _read_worker(row: sa.Row[Any]) -> WorkerState:
    return WorkerState(
        id=row.id,
        queues=tuple(row.queues),
        slots=row.slots,
        clock_offset_s=row.clock_offset_s,
        device=row.device,
        warm_queues=tuple(row.warm_queues),
        running=row.running,
        pace=Pace(
            rows_per_forward=row.rows_per_forward,
            iterations_per_s=row.iterations_per_s,
            forward_share=row.forward_share,
            memory_bytes=row.memory_bytes,
        ),
        silent_s=max(float(row.silent_s), 0.0),
    )


def _ago(seconds: float) -> sa.ColumnElement[datetime]:
    return sa.func.now() - timedelta(seconds=seconds)


def _or_zero(value: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    return sa.func.greatest(sa.func.coalesce(value, 0.0), 0.0)


_COUNT = sa.func.count()
_IS_QUEUED = jobs.c.status == JobStatus.QUEUED
_IS_RUNNING = jobs.c.status == JobStatus.RUNNING
_IS_FREE = jobs.c.held_until.is_(None)
_LEFT_S = left_s_of(jobs)
_QUEUES = (
    sa.select(
        jobs.c.queue,
        jobs.c.model,
        _COUNT.filter(_IS_QUEUED, _IS_FREE).label("waiting"),
        _COUNT.filter(_IS_QUEUED, jobs.c.dispatched_at < _ago(UNCLAIMED_S)).label("unclaimed"),
        _COUNT.filter(_IS_RUNNING).label("running"),
        _COUNT.filter(_IS_QUEUED, jobs.c.dispatched_at.is_not(None)).label("announced"),
        _COUNT.filter(_IS_QUEUED, ~_IS_FREE).label("held"),
        _or_zero(sa.func.sum(_LEFT_S).filter(_IS_FREE)).label("predicted_s"),
        _COUNT.filter(_IS_FREE, _LEFT_S.is_(None)).label("unpredicted"),
        _or_zero(sa.func.max(WAITED_S).filter(_IS_QUEUED, _IS_FREE)).label("oldest_s"),
    )
    .where(jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
    .group_by(jobs.c.queue, jobs.c.model)
    .order_by(jobs.c.queue)
)
_WORKERS = (
    sa.select(
        workers,
        sa.select(_COUNT)
        .where(attempts.c.process == workers.c.id, attempts.c.ended_at.is_(None))
        .scalar_subquery()
        .label("running"),
        sa.extract("epoch", sa.func.now() - workers.c.heartbeat_at).label("silent_s"),
    )
    .where(is_live())
    .order_by(workers.c.id)
)
_RECENT_ENDS = (
    sa.select(jobs.c.status, _COUNT.label("ended"))
    .where(
        jobs.c.status.in_([status for status in JobStatus if status.is_terminal]),
        jobs.c.finished_at > _ago(RECENT_S),
    )
    .group_by(jobs.c.status)
)
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
_PENDING_DELIVERIES = (
    sa.select(_COUNT).select_from(deliveries).where(deliveries.c.status == DeliveryStatus.PENDING)
)
_OVERDUE_DELETIONS = (
    sa.select(_COUNT)
    .select_from(deletions)
    .where(deletions.c.requested_at < _ago(OVERDUE_DELETION_S))
)
