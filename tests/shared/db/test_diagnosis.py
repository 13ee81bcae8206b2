from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from shared.db.diagnosis import (
    MAX_IDS,
    UNKNOWN_JOB_S,
    DiagnosisRepository,
    QueueState,
    Snapshot,
    WorkerState,
    backlog_s,
)
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.presence import DispatcherRepository, Pace, WorkerRepository
from shared.db.read_only import ReadOnlyRepository
from shared.errors import ErrorCode
from shared.holding import Stock
from shared.job import NewJob
from shared.webhook import Webhook

NewJobs = Callable[..., NewJob]
QUEUE = "demo.interactive"
STATE = WorkerState(
    "b",
    (QUEUE,),
    slots=4,
    clock_offset_s=None,
    device="cpu",
)
NOTHING = Snapshot(
    queues=(),
    workers=(),
    silent_workers=0,
    dispatchers=0,
    stale_leases=0,
    dead_letters=0,
    dead_letter_ids=(),
    dead_deliveries=0,
    overdue_deletions=0,
)


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def diagnosis(database: sa.Engine) -> DiagnosisRepository:
    return DiagnosisRepository(database)


def run_sql(database: sa.Engine, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(statement))


def test_where_nothing_is_nothing_is_counted(diagnosis: DiagnosisRepository) -> None:
    assert diagnosis.look() == NOTHING


def test_it_is_seen_that_nothing_may_be_changed(
    diagnosis: DiagnosisRepository, database: sa.Engine
) -> None:
    notice = ReadOnlyRepository(database).turn_on("a backup")
    assert diagnosis.look() == replace(NOTHING, read_only=notice)


def test_jobs_that_have_not_ended_are_counted_by_queue(
    jobs: JobRepository, diagnosis: DiagnosisRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    running, old, young, later, canceled = (jobs.insert(make_job())[0].id for _ in range(5))
    jobs.insert(make_job(queue="other.batch"))
    LeaseRepository(database, lease_s=60).claim(running, worker="w")
    jobs.request_cancel("tenant", canceled)
    run_sql(database, f"UPDATE jobs SET dispatched_at = now() WHERE id = '{young}'")
    minutes = "now() - interval '2 minutes'"
    run_sql(database, f"UPDATE jobs SET dispatched_at = {minutes} WHERE id = '{old}'")
    run_sql(database, f"UPDATE jobs SET held_until = now() + interval '1 day' WHERE id = '{later}'")
    first, second = diagnosis.look().queues
    assert first.oldest_s < 60
    assert (replace(first, oldest_s=0), replace(second, oldest_s=0)) == (
        QueueState(
            QUEUE,
            "demo",
            waiting=2,
            unclaimed=1,
            running=1,
            announced=2,
            held=1,
            unpredicted=3,
        ),
        QueueState("other.batch", "demo", waiting=1, unclaimed=0, running=0, unpredicted=1),
    )


def test_workers_and_dispatchers_are_alive_or_silent(
    diagnosis: DiagnosisRepository, database: sa.Engine
) -> None:
    workers, dispatchers = WorkerRepository(database), DispatcherRepository(database)
    for name in ("dead", "a", "b"):
        workers.beat(name, device="cpu", queues=[QUEUE], slots=4)
        dispatchers.beat(name)
    for table in ("workers", "dispatchers"):
        long_ago = "heartbeat_at - interval '2 minutes'"
        run_sql(database, f"UPDATE {table} SET heartbeat_at = {long_ago} WHERE id = 'dead'")
    workers.beat(
        "a", device="cpu", queues=[QUEUE], slots=4, clock=datetime.now(UTC) - timedelta(hours=1)
    )
    seen = diagnosis.look()
    assert (seen.silent_workers, seen.dispatchers) == (1, 2)
    late, untold = seen.workers
    assert untold == replace(STATE, silent_s=untold.silent_s)
    assert untold.silent_s < 60
    assert late.clock_offset_s == pytest.approx(-3600, abs=5)


def test_a_lease_is_stale_when_nobody_took_it_back(
    jobs: JobRepository, diagnosis: DiagnosisRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    leases = LeaseRepository(database, lease_s=60)
    for _ in range(2):
        leases.claim(jobs.insert(make_job())[0].id, worker="w")
    run_sql(database, "UPDATE jobs SET lease_until = now() - interval '5 seconds'")
    assert diagnosis.look().stale_leases == 0
    run_sql(database, "UPDATE jobs SET lease_until = now() - interval '11 seconds'")
    assert diagnosis.look().stale_leases == 2


def test_the_latest_dead_letters_are_named(
    jobs: JobRepository, diagnosis: DiagnosisRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    leases = LeaseRepository(database, lease_s=60)
    job_ids = [jobs.insert(make_job())[0].id for _ in range(MAX_IDS + 3)]
    for number, job_id in enumerate(job_ids):
        claimed = leases.claim(job_id, worker="w")
        assert claimed is not None
        code = ErrorCode.INTERNAL if number == 0 else ErrorCode.WORKER_LOST
        leases.fail(claimed.lease, code, "lost")
    long_ago = "now() - interval '25 hours'"
    run_sql(database, f"UPDATE jobs SET finished_at = {long_ago} WHERE id = '{job_ids[1]}'")
    seen = diagnosis.look()
    assert seen.dead_letters == MAX_IDS + 1
    assert list(seen.dead_letter_ids) == job_ids[: -MAX_IDS - 1 : -1]


def test_what_was_given_up_or_is_overdue_is_counted(
    jobs: JobRepository, diagnosis: DiagnosisRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    told, deleted = make_job(webhook=Webhook("https://receiver.example.test/")), make_job()
    for new in (told, deleted):
        jobs.insert(new)
        jobs.request_cancel("tenant", new.id)
    jobs.delete("tenant", deleted.id)
    seen = diagnosis.look()
    assert (seen.dead_deliveries, seen.overdue_deletions) == (0, 0)
    run_sql(database, "UPDATE deliveries SET status = 'dead'")
    run_sql(database, "UPDATE deletions SET requested_at = now() - interval '61 minutes'")
    seen = diagnosis.look()
    assert (seen.dead_deliveries, seen.overdue_deletions) == (1, 1)


@pytest.mark.parametrize("offset_s", [-3600, 0, 60])
def test_a_clock_is_compared_with_the_databases(
    diagnosis: DiagnosisRepository, offset_s: float
) -> None:
    measured = diagnosis.clock_offset_s(lambda: datetime.now(UTC) + timedelta(seconds=offset_s))
    assert measured == pytest.approx(offset_s, abs=2)


def test_a_worker_is_seen_with_its_pace_and_its_jobs(
    jobs: JobRepository, diagnosis: DiagnosisRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    pace = Pace(rows_per_forward=6.5, iterations_per_s=80, forward_share=0.93, memory_bytes=2**30)
    WorkerRepository(database).beat(
        "w@host:1",
        device="cpu x",
        queues=[QUEUE, "b"],
        slots=4,
        stock=Stock(warm_queues=(QUEUE,)),
        pace=pace,
    )
    leases = LeaseRepository(database, lease_s=60)
    for process in ("w@host:1", "w@host:1", "w@host:2"):
        leases.claim(jobs.insert(make_job())[0].id, worker="w", process=process)
    (seen,) = diagnosis.look().workers
    assert (seen.pace, seen.running) == (pace, 2)
    assert (seen.device, seen.warm_queues) == ("cpu x", (QUEUE,))


def test_jobs_that_ended_lately_are_counted_by_how(
    jobs: JobRepository, diagnosis: DiagnosisRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    ids = [jobs.insert(make_job())[0].id for _ in range(3)]
    for job_id in ids[1:]:
        jobs.request_cancel("tenant", job_id)
    run_sql(
        database,
        f"UPDATE jobs SET finished_at = now() - interval '11 minutes' WHERE id = '{ids[2]}'",
    )
    assert diagnosis.recent_ends() == {"succeeded": 0, "failed": 0, "canceled": 1}


def test_work_that_nothing_is_known_of_counts_as_the_rest_does() -> None:
    known = QueueState("a", "m", waiting=3, unclaimed=0, running=1, predicted_s=6, unpredicted=1)
    unknown = QueueState("b", "m", waiting=2, unclaimed=0, running=0, unpredicted=2)
    assert backlog_s([known, unknown]) == 6 + 3 * 2
    assert backlog_s([unknown]) == 2 * UNKNOWN_JOB_S
    assert backlog_s([]) == 0
