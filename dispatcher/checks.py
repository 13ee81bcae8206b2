"""Which states are bad, how bad this one is, and what to do about it.

`latentq doctor` prints a line for each check, and the dispatcher shows a gauge for each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dispatcher.situation import DatabaseState, Situation
from shared.db.diagnosis import QueueState, Snapshot, WorkerState
from shared.job import MAX_LOST_ALONE

#: A clock may differ from the database's by so much before it is told, in seconds. Links that are
#: signed by a clock that is wrong by a quarter of an hour do not work.
CLOCK_SKEW_S = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How bad it is: 0 where nothing is wrong."""

    amount: float
    detail: str
    is_bad: bool


@dataclass(frozen=True, slots=True)
class Check:
    """A bad state that can be told."""

    name: str
    #: What the amount counts.
    meaning: str
    remedy: str
    #: None while it cannot be known.
    judge: Callable[[Situation], Verdict | None]

    @property
    def metric(self) -> str:
        """The name of its gauge."""
        return f"latentq_{self.name}"


def _count(amount: int, detail: str) -> Verdict:
    return Verdict(amount, detail, is_bad=amount > 0)


def _flag(is_bad: bool, bad: str, good: str) -> Verdict:
    return Verdict(float(is_bad), bad if is_bad else good, is_bad=is_bad)


def _from_database(
    judge: Callable[[DatabaseState], Verdict],
) -> Callable[[Situation], Verdict | None]:
    return lambda now: None if now.database is None else judge(now.database)


def _from_snapshot(
    judge: Callable[[Snapshot], Verdict],
) -> Callable[[Situation], Verdict | None]:
    def judge_situation(now: Situation) -> Verdict | None:
        if now.database is None or now.database.snapshot is None:
            return None
        return judge(now.database.snapshot)

    return judge_situation


def _judge_postgresql(now: Situation) -> Verdict:
    return _flag(now.database is None, now.database_trouble, "PostgreSQL answers")


def _judge_migrations(database: DatabaseState) -> Verdict:
    missing = "the schema is not the one of this version"
    return _flag(database.is_migration_missing, missing, "the schema is current")


def _judge_redis(now: Situation) -> Verdict:
    return _flag(now.redis is None, now.redis_trouble, "Redis answers")


def _judge_eviction(now: Situation) -> Verdict | None:
    if now.redis is None:
        return None
    policy = now.redis.eviction_policy
    return _flag(policy != "noeviction", f"maxmemory-policy is {policy}", "Redis evicts nothing")


def _judge_persistence(now: Situation) -> Verdict | None:
    if now.redis is None:
        return None
    forgets = "there is no append-only file, or it cannot be written"
    return _flag(not now.redis.is_persistent, forgets, "Redis writes an append-only file")


def _judge_store(now: Situation) -> Verdict:
    trouble = now.store_trouble
    return _flag(trouble is not None, str(trouble), "the object store and its bucket answer")


def _judge_dispatchers(snapshot: Snapshot) -> Verdict:
    alive = f"{snapshot.dispatchers} alive"
    return _flag(snapshot.dispatchers == 0, "no dispatcher was heard of lately", alive)


def _judge_leases(snapshot: Snapshot) -> Verdict:
    stale = snapshot.stale_leases
    return _count(stale, f"{stale} running jobs whose lease ran out and was not taken back")


def _judge_dead_letters(snapshot: Snapshot) -> Verdict:
    detail = f"{snapshot.dead_letters} jobs lost their workers until they failed, in the last day"
    if snapshot.dead_letter_ids:
        detail = f"{detail}: {', '.join(snapshot.dead_letter_ids)}"
    return _count(snapshot.dead_letters, detail)


def _judge_deliveries(snapshot: Snapshot) -> Verdict:
    dead = snapshot.dead_deliveries
    return _count(dead, f"{dead} webhooks were given up")


def _judge_unschedulable(snapshot: Snapshot) -> Verdict:
    waiting = {
        queue.queue: queue.waiting
        for queue in snapshot.queues
        if queue.waiting and not _serving(snapshot, [queue.queue])
    }
    total = sum(waiting.values())
    detail = f"{total} jobs wait for a queue that no live worker serves"
    return _count(total, f"{detail}: {', '.join(waiting)}" if waiting else detail)


def _judge_models(now: Situation) -> Verdict | None:
    if now.database is None or now.database.snapshot is None:
        return None
    snapshot = now.database.snapshot
    unserved = [model for model, queues in now.queues.items() if not _serving(snapshot, queues)]
    alive = f"{len(snapshot.workers)} workers alive, {snapshot.silent_workers} fell silent"
    if unserved:
        return _count(len(unserved), f"no live worker serves {', '.join(unserved)}; {alive}")
    return _count(0, f"every model is served; {alive}")


def _judge_unclaimed(snapshot: Snapshot) -> Verdict:
    stuck = [queue for queue in snapshot.queues if queue.unclaimed and _is_room(snapshot, queue)]
    total = sum(queue.unclaimed for queue in stuck)
    detail = f"{total} jobs were announced long ago, and workers with room do not take them"
    names = ", ".join(queue.queue for queue in stuck)
    return _count(total, f"{detail}: {names}" if names else detail)


def _judge_clocks(database: DatabaseState) -> Verdict:
    offsets = {"this host": database.clock_offset_s}
    for worker in () if database.snapshot is None else database.snapshot.workers:
        if worker.clock_offset_s is not None:
            offsets[worker.id] = worker.clock_offset_s
    worst = max(offsets, key=lambda name: abs(offsets[name]))
    offset = offsets[worst]
    detail = f"the clock of {worst} is {abs(offset):.1f} s {_ahead(offset)} PostgreSQL's"
    return Verdict(abs(offset), detail, is_bad=abs(offset) > CLOCK_SKEW_S)


def _judge_deletions(snapshot: Snapshot) -> Verdict:
    overdue = snapshot.overdue_deletions
    return _count(overdue, f"{overdue} deleted jobs have results left in the store")


def _judge_read_only(snapshot: Snapshot) -> Verdict:
    notice = snapshot.read_only
    if notice is None:
        return _flag(False, "", "the service takes changes")
    since = f"{notice.since:%Y-%m-%d %H:%M} UTC"
    return _flag(True, f"read-only since {since}: {notice.reason}", "")


CHECKS: tuple[Check, ...] = (
    Check(
        "postgresql_unreachable",
        "1 if PostgreSQL does not answer",
        "start PostgreSQL, or correct LATENTQ_DATABASE_URL; no job is accepted without it",
        _judge_postgresql,
    ),
    Check(
        "migrations_missing",
        "1 if the schema is older than this version expects",
        "run latentq migrate with the newest version that is installed anywhere",
        _from_database(_judge_migrations),
    ),
    Check(
        "redis_unreachable",
        "1 if Redis does not answer",
        "start Redis, or correct LATENTQ_REDIS_URL; jobs are accepted and wait",
        _judge_redis,
    ),
    Check(
        "redis_evicts",
        "1 if Redis may drop messages when its memory is full",
        "set maxmemory-policy to noeviction, and share this Redis with no cache",
        _judge_eviction,
    ),
    Check(
        "redis_forgets",
        "1 if Redis has no append-only file or cannot write it",
        "set appendonly to yes, and see that the disk is not full; a restart delays jobs otherwise",
        _judge_persistence,
    ),
    Check(
        "store_unreachable",
        "1 if the object store or its bucket does not answer",
        "start the store, create the bucket, or correct the LATENTQ_S3_... variables",
        _judge_store,
    ),
    Check(
        "read_only",
        "1 while the operator has closed the service to changes",
        "run latentq read-only off when the maintenance is over; until then nothing is deleted "
        "from the store either",
        _from_snapshot(_judge_read_only),
    ),
    Check(
        "dispatchers_missing",
        "1 if no dispatcher is alive",
        "start latentq dispatcher, or look into its log: lost jobs are not taken back without it",
        _from_snapshot(_judge_dispatchers),
    ),
    Check(
        "stale_leases",
        "running jobs whose lease ran out and that nobody takes back",
        "look into the dispatcher's log: it takes them back five times a second",
        _from_snapshot(_judge_leases),
    ),
    Check(
        "dead_letters",
        "jobs that failed with worker_lost in the last day",
        f"read the workers' logs under these ids: each was lost {MAX_LOST_ALONE} times alone, so "
        "the job may be what kills them; submit it again when that is mended",
        _from_snapshot(_judge_dead_letters),
    ),
    Check(
        "undeliverable_webhooks",
        "deliveries of webhooks that were given up",
        "see that the receiver answers 2xx, then have them delivered again",
        _from_snapshot(_judge_deliveries),
    ),
    Check(
        "unschedulable_jobs",
        "jobs that wait for a queue which no live worker serves",
        "start a worker whose catalog has the model; the jobs end at their deadline otherwise",
        _from_snapshot(_judge_unschedulable),
    ),
    Check(
        "models_without_worker",
        "models of the catalog that no live worker serves",
        "start latentq worker with the same catalog, or take the model out of it",
        _judge_models,
    ),
    Check(
        "unclaimed_jobs",
        "jobs that were announced a minute ago or longer while workers have room",
        "restart the workers of the queue; one may have stopped consuming, or runs a suspected "
        "job alone",
        _from_snapshot(_judge_unclaimed),
    ),
    Check(
        "clock_skew_seconds",
        "the largest difference of a clock, a worker's or this host's, from PostgreSQL's",
        "run a time service (NTP) on every host; links may expire early or not work at all",
        _from_database(_judge_clocks),
    ),
    Check(
        "overdue_deletions",
        "jobs that were deleted over an hour ago and whose results are still stored",
        "see that the dispatcher may delete objects: its log tells what the store answers",
        _from_snapshot(_judge_deletions),
    ),
)


def _serving(snapshot: Snapshot, queues: Sequence[str]) -> list[WorkerState]:
    return [worker for worker in snapshot.workers if set(queues) & set(worker.queues)]


def _is_room(snapshot: Snapshot, queue: QueueState) -> bool:
    """Tell whether the workers of a queue run fewer jobs than they could."""
    serving = _serving(snapshot, [queue.queue])
    theirs = {name for worker in serving for name in worker.queues}
    running = sum(other.running for other in snapshot.queues if other.queue in theirs)
    return running < sum(worker.slots for worker in serving)


def _ahead(offset: float) -> str:
    return "ahead of" if offset > 0 else "behind"
