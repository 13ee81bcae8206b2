import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy as sa

from shared.db.jobs import JobRepository
from shared.db.leases import Beat, LeaseRepository
from shared.db.rescue import RescueRepository
from shared.errors import ErrorCode
from shared.job import (
    MAX_LOST_ALONE,
    MAX_LOST_LEASES,
    MAX_UNSTORED,
    SUSPECTED_AFTER,
    Artifact,
    Claim,
    JobStatus,
    Lease,
    NewJob,
    Success,
)

NewJobs = Callable[..., NewJob]

RESULT = Success(
    artifacts=(Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100),),
    iterations=4,
    execution={"worker": "w"},
)


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def leases(database: sa.Engine) -> LeaseRepository:
    return LeaseRepository(database, lease_s=60)


@pytest.fixture
def rescue(database: sa.Engine) -> RescueRepository:
    return RescueRepository(database)


@pytest.fixture
def claim(jobs: JobRepository, leases: LeaseRepository, make_job: NewJobs) -> Claim:
    job, _ = jobs.insert(make_job())
    return claim_again(leases, job.id)


def claim_again(leases: LeaseRepository, job_id: str) -> Claim:
    claim = leases.claim(job_id, worker="w")
    assert claim is not None
    return claim


def expire(database: sa.Engine, column: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(f"UPDATE jobs SET {column} = now() - interval '1 second'"))


def test_twenty_workers_and_one_job_make_one_claim(
    jobs: JobRepository, leases: LeaseRepository, make_job: NewJobs
) -> None:
    job, _ = jobs.insert(make_job())
    with ThreadPoolExecutor(20) as pool:
        claims = list(pool.map(lambda n: leases.claim(job.id, worker=f"w{n}"), range(20)))
    assert sum(claim is not None for claim in claims) == 1
    assert jobs.get("tenant", job.id).attempt == 1


def test_a_job_of_a_newer_version_stays_for_a_worker_that_can_read_it(
    jobs: JobRepository, leases: LeaseRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    job, _ = jobs.insert(make_job())

    def run(statement: str) -> None:
        with database.begin() as connection:
            connection.execute(sa.text(statement))

    def state() -> list[object]:
        with database.connect() as connection:
            (row,) = connection.execute(sa.text("SELECT * FROM jobs")).all()
            changes = "SELECT count(*) FROM transitions WHERE to_status <> 'queued'"
            return [*row, connection.execute(sa.text(changes)).scalar_one()]

    run("""UPDATE jobs SET dispatched_at = now(), request = request || '{"color": "new"}'""")
    before = state()
    assert leases.claim(job.id, worker="old") is None
    assert state() == before
    run("UPDATE jobs SET request = request - 'color'")
    assert claim_again(leases, job.id).lease.attempt == 1


def test_a_job_past_its_deadline_is_not_claimed(
    jobs: JobRepository, leases: LeaseRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    job, _ = jobs.insert(make_job())
    expire(database, "deadline_at")
    assert leases.claim(job.id, worker="w") is None


def test_success_is_written_once_with_its_artifacts(
    jobs: JobRepository, leases: LeaseRepository, claim: Claim
) -> None:
    assert leases.succeed(claim.lease, RESULT)
    assert not leases.succeed(claim.lease, RESULT)
    job = jobs.get("tenant", claim.lease.job_id)
    assert job.status is JobStatus.SUCCEEDED
    assert job.artifacts == RESULT.artifacts
    assert job.execution == RESULT.execution
    assert job.iteration == 4
    assert job.finished_at is not None


@pytest.mark.parametrize(
    "end",
    [
        lambda leases, lease: leases.succeed(lease, RESULT),
        lambda leases, lease: leases.fail(lease, ErrorCode.INTERNAL, "no"),
        lambda leases, lease: leases.cancel(lease),
        lambda leases, lease: leases.release(lease),
    ],
    ids=["succeed", "fail", "cancel", "release"],
)
def test_a_worker_whose_lease_was_taken_back_changes_nothing(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    claim: Claim,
    database: sa.Engine,
    end: Callable[[LeaseRepository, Lease], bool],
) -> None:
    expire(database, "lease_until")
    assert rescue.take_back_expired_leases() == {claim.lease.job_id: JobStatus.QUEUED}
    second = claim_again(leases, claim.lease.job_id)
    before = jobs.get("tenant", claim.lease.job_id)

    assert not end(leases, claim.lease)

    assert jobs.get("tenant", claim.lease.job_id) == before
    assert leases.succeed(second.lease, RESULT)
    assert jobs.get("tenant", claim.lease.job_id).attempt == 2


def test_a_heartbeat_prolongs_writes_progress_and_brings_cancel_requests(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    claim: Claim,
    database: sa.Engine,
) -> None:
    expire(database, "lease_until")
    stranger = uuid4()
    answer = leases.beat([Beat(claim.lease.token, 3), Beat(stranger, 1)])
    assert answer.held == {claim.lease.token}
    assert answer.cancel_requested == frozenset()
    assert rescue.take_back_expired_leases() == {}
    assert jobs.get("tenant", claim.lease.job_id).iteration == 3

    jobs.request_cancel("tenant", claim.lease.job_id)
    assert leases.beat([Beat(claim.lease.token, 3)]).cancel_requested == {claim.lease.token}


def test_an_attempt_remembers_where_it_went_on_and_the_next_one_begins_anew(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    database: sa.Engine,
    claim: Claim,
) -> None:
    job_id = claim.lease.job_id
    leases.beat([Beat(claim.lease.token, 2)])
    assert leases.release(claim.lease)
    leases.beat([Beat(claim_again(leases, job_id).lease.token, 3, resumed_at=2)])
    assert jobs.get("tenant", job_id).resumed_at == 2
    expire(database, "lease_until")
    rescue.take_back_expired_leases()
    last = claim_again(leases, job_id)
    assert jobs.get("tenant", job_id).resumed_at is None
    # It was too short for a heartbeat.
    assert leases.succeed(last.lease, dataclasses.replace(RESULT, resumed_at=3))
    told = [(one.resumed_at, one.iteration) for one in jobs.attempts("tenant", job_id)]
    assert told == [(None, 2), (2, 3), (3, RESULT.iterations)]
    assert jobs.get("tenant", job_id).resumed_at == 3


def test_a_deadline_keeps_where_an_attempt_went_on(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    database: sa.Engine,
    claim: Claim,
) -> None:
    leases.beat([Beat(claim.lease.token, 3, 2)])
    expire(database, "deadline_at")
    rescue.fail_past_deadline()
    (ran,) = jobs.attempts("tenant", claim.lease.job_id)
    assert (ran.resumed_at, ran.iteration) == (2, 3)


@pytest.mark.parametrize(
    ("lost_leases", "lost_alone", "is_last"),
    [
        (0, 0, False),
        (SUSPECTED_AFTER, 0, False),
        (SUSPECTED_AFTER + MAX_LOST_ALONE - 2, MAX_LOST_ALONE - 2, False),
        (SUSPECTED_AFTER + MAX_LOST_ALONE - 1, MAX_LOST_ALONE - 1, True),
        (MAX_LOST_LEASES - 2, 0, False),
        (MAX_LOST_LEASES - 1, 0, True),
    ],
)
def test_a_claim_tells_whether_another_loss_is_the_end(
    jobs: JobRepository,
    leases: LeaseRepository,
    make_job: NewJobs,
    database: sa.Engine,
    lost_leases: int,
    lost_alone: int,
    is_last: bool,
) -> None:
    job, _ = jobs.insert(make_job())
    with database.begin() as connection:
        connection.execute(
            sa.text("UPDATE jobs SET lost_leases = :lost, lost_alone = :alone"),
            {"lost": lost_leases, "alone": lost_alone},
        )
    assert claim_again(leases, job.id).is_last_try == is_last


def test_a_job_handed_back_runs_again_and_is_charged_nothing(
    jobs: JobRepository, leases: LeaseRepository, claim: Claim, database: sa.Engine
) -> None:
    for _ in range(MAX_LOST_LEASES + 2):
        assert leases.release(claim.lease)
        assert jobs.get("tenant", claim.lease.job_id).status is JobStatus.QUEUED
        claim = claim_again(leases, claim.lease.job_id)
    with database.connect() as connection:
        assert connection.scalar(sa.text("SELECT lost_leases FROM jobs")) == 0


def test_a_job_handed_back_after_a_cancel_request_is_canceled(
    jobs: JobRepository, leases: LeaseRepository, claim: Claim
) -> None:
    jobs.request_cancel("tenant", claim.lease.job_id)
    assert leases.release(claim.lease)
    assert jobs.get("tenant", claim.lease.job_id).status is JobStatus.CANCELED


def test_a_job_that_loses_every_worker_fails_in_the_end(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    claim: Claim,
    database: sa.Engine,
) -> None:
    job_id = claim.lease.job_id
    for _ in range(MAX_LOST_LEASES - 1):
        expire(database, "lease_until")
        assert rescue.take_back_expired_leases() == {job_id: JobStatus.QUEUED}
        claim_again(leases, job_id)
    expire(database, "lease_until")
    assert rescue.take_back_expired_leases() == {job_id: JobStatus.FAILED}
    job = jobs.get("tenant", job_id)
    assert job.error_code is ErrorCode.WORKER_LOST
    assert job.attempt == MAX_LOST_LEASES


def test_a_job_is_suspected_after_some_losses_and_fails_when_it_lost_workers_alone(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    claim: Claim,
    database: sa.Engine,
) -> None:
    job_id = claim.lease.job_id
    for _ in range(SUSPECTED_AFTER):
        assert not claim.is_suspected
        expire(database, "lease_until")
        rescue.take_back_expired_leases()
        claim = claim_again(leases, job_id)
    for _ in range(MAX_LOST_ALONE):
        assert claim.is_suspected
        assert leases.begin_alone(claim.lease)
        assert jobs.get("tenant", job_id).status is JobStatus.RUNNING
        expire(database, "lease_until")
        rescue.take_back_expired_leases()
        claim = leases.claim(job_id, worker="w") or claim
    job = jobs.get("tenant", job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.WORKER_LOST)
    assert job.attempt == SUSPECTED_AFTER + MAX_LOST_ALONE
    assert not leases.begin_alone(claim.lease)


def test_a_lost_job_that_was_to_be_canceled_is_canceled(
    jobs: JobRepository, rescue: RescueRepository, claim: Claim, database: sa.Engine
) -> None:
    jobs.request_cancel("tenant", claim.lease.job_id)
    expire(database, "lease_until")
    assert rescue.take_back_expired_leases() == {claim.lease.job_id: JobStatus.CANCELED}


@pytest.mark.parametrize("is_running", [False, True], ids=["queued", "running"])
def test_the_deadline_ends_a_job_without_any_worker(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    make_job: NewJobs,
    database: sa.Engine,
    is_running: bool,
) -> None:
    job, _ = jobs.insert(make_job())
    lease = claim_again(leases, job.id).lease if is_running else None
    expire(database, "deadline_at")
    assert rescue.fail_past_deadline() == [job.id]
    assert rescue.fail_past_deadline() == []
    ended = jobs.get("tenant", job.id)
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, ErrorCode.DEADLINE_EXCEEDED)
    if lease is not None:
        assert leases.beat([Beat(lease.token, 1)]).held == frozenset()
        assert not leases.succeed(lease, RESULT)


def test_two_rescuers_at_once_take_each_job_back_once(
    jobs: JobRepository,
    leases: LeaseRepository,
    rescue: RescueRepository,
    make_job: NewJobs,
    database: sa.Engine,
) -> None:
    for _ in range(30):
        job, _ = jobs.insert(make_job())
        claim_again(leases, job.id)
    expire(database, "lease_until")
    with ThreadPoolExecutor(4) as pool:
        moves = list(pool.map(lambda _: rescue.take_back_expired_leases(), range(4)))
    assert sum(len(moved) for moved in moves) == 30
    with database.connect() as connection:
        assert connection.scalar(sa.text("SELECT sum(lost_leases) FROM jobs")) == 30


def test_a_job_put_off_for_the_store_fails_for_it_in_the_end(
    jobs: JobRepository, leases: LeaseRepository, claim: Claim
) -> None:
    job_id = claim.lease.job_id
    for _ in range(MAX_UNSTORED - 1):
        assert leases.put_off(claim.lease, "the store is away")
        assert not leases.put_off(claim.lease, "the store is away")
        waiting = jobs.get("tenant", job_id)
        assert (waiting.status, waiting.error_code) == (JobStatus.QUEUED, None)
        assert (waiting.started_at, waiting.finished_at) == (None, None)
        claim = claim_again(leases, job_id)
    assert leases.put_off(claim.lease, "the store is away")
    failed = jobs.get("tenant", job_id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.STORAGE_UNAVAILABLE)
    assert failed.error_message == "the store is away"
    assert failed.finished_at is not None


def test_a_job_put_off_after_a_cancel_request_is_canceled(
    jobs: JobRepository, leases: LeaseRepository, claim: Claim
) -> None:
    jobs.request_cancel("tenant", claim.lease.job_id)
    assert leases.put_off(claim.lease, "the store is away")
    canceled = jobs.get("tenant", claim.lease.job_id)
    assert (canceled.status, canceled.error_code) == (JobStatus.CANCELED, None)


def test_the_leases_of_a_process_that_dies_run_out_at_once(
    leases: LeaseRepository, rescue: RescueRepository, claim: Claim, database: sa.Engine
) -> None:
    leases.beat([Beat(claim.lease.token, 3)])
    leases.abandon([claim.lease], reason="stalled")
    assert rescue.take_back_expired_leases() == {claim.lease.job_id: JobStatus.QUEUED}
    with database.connect() as connection:
        told = connection.execute(sa.text("SELECT outcome, iteration, exit_reason FROM attempts"))
        assert [tuple(row) for row in told] == [("lost", 3, "stalled")]
