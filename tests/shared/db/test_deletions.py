from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from shared.db.deletions import DeletionRepository
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.errors import Conflict, ErrorCode, NotFound
from shared.job import Artifact, Claim, JobStatus, NewJob, Success

NewJobs = Callable[..., NewJob]
ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def deletions(database: sa.Engine) -> DeletionRepository:
    return DeletionRepository(database)


def claim(database: sa.Engine, job_id: str) -> tuple[LeaseRepository, Claim]:
    leases = LeaseRepository(database, lease_s=60)
    claimed = leases.claim(job_id, worker="w")
    assert claimed is not None
    return leases, claimed


def count(database: sa.Engine, table: str) -> int:
    with database.connect() as connection:
        rows: int = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
    return rows


def test_nothing_of_a_deleted_job_stays_but_its_transitions(
    jobs: JobRepository, deletions: DeletionRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    job, _ = jobs.insert(make_job(prompt="canary"))
    leases, claimed = claim(database, job.id)
    assert leases.succeed(claimed.lease, Success((ARTIFACT,), iterations=4, execution={}))
    jobs.delete("tenant", job.id)
    with pytest.raises(NotFound):
        jobs.get("tenant", job.id)
    with pytest.raises(NotFound):
        jobs.delete("tenant", job.id)
    assert [count(database, name) for name in ("jobs", "attempts", "artifacts")] == [0, 0, 0]
    assert count(database, "transitions") == 3
    with database.connect() as connection:
        rest = connection.execute(sa.text("SELECT * FROM transitions")).all()
        rest += connection.execute(sa.text("SELECT * FROM deletions")).all()
    assert "canary" not in str(rest)
    assert deletions.take_due(retry_after_s=60) == job.id


def test_a_job_that_has_not_ended_is_kept(
    jobs: JobRepository, deletions: DeletionRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    job, _ = jobs.insert(make_job())
    with pytest.raises(Conflict, match="queued; cancel it first") as caught:
        jobs.delete("tenant", job.id)
    assert caught.value.code == "job_not_finished"
    claim(database, job.id)
    with pytest.raises(Conflict, match="running; cancel it first"):
        jobs.delete("tenant", job.id)
    assert jobs.get("tenant", job.id).status is JobStatus.RUNNING
    assert deletions.take_due(retry_after_s=60) is None


def test_another_tenant_deletes_nothing(jobs: JobRepository, make_job: NewJobs) -> None:
    job, _ = jobs.insert(make_job())
    jobs.request_cancel("tenant", job.id)
    with pytest.raises(NotFound):
        jobs.delete("other", job.id)
    assert jobs.get("tenant", job.id).status is JobStatus.CANCELED


def test_a_job_is_deleted_once_however_many_ask(
    jobs: JobRepository, deletions: DeletionRepository, make_job: NewJobs
) -> None:
    job, _ = jobs.insert(make_job())
    jobs.request_cancel("tenant", job.id)

    def delete(_: int) -> bool:
        try:
            jobs.delete("tenant", job.id)
        except NotFound:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(delete, range(8))) == 1
    assert deletions.take_due(retry_after_s=60) == job.id


def test_a_job_that_ends_between_the_looks_is_deleted_all_the_same(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    job, _ = jobs.insert(make_job())
    leases, claimed = claim(database, job.id)

    def end(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM jobs"):
            leases.fail(claimed.lease, ErrorCode.INTERNAL, "broken")

    sa.event.listen(database, "after_cursor_execute", end)
    try:
        jobs.delete("tenant", job.id)
    finally:
        sa.event.remove(database, "after_cursor_execute", end)
    with pytest.raises(NotFound):
        jobs.get("tenant", job.id)


@pytest.fixture
def deleted(jobs: JobRepository, make_job: NewJobs) -> list[str]:
    """Jobs that are no more, in the order in which they went."""
    job_ids = [jobs.insert(make_job())[0].id for _ in range(3)]
    for job_id in job_ids:
        jobs.request_cancel("tenant", job_id)
        jobs.delete("tenant", job_id)
    return job_ids


def test_objects_that_nobody_said_are_gone_come_up_again_behind_the_others(
    deletions: DeletionRepository, deleted: list[str]
) -> None:
    first, second, third = deleted
    assert deletions.take_due(retry_after_s=0) == first
    assert deletions.take_due(retry_after_s=60) == second
    assert deletions.take_due(retry_after_s=60) == third
    assert deletions.take_due(retry_after_s=60) == first
    assert deletions.take_due(retry_after_s=60) is None


def test_one_job_is_taken_whatever_the_plan(
    deletions: DeletionRepository, deleted: list[str], database: sa.Engine
) -> None:
    @sa.event.listens_for(database, "begin")
    def plan_a_nested_loop(connection: sa.Connection) -> None:
        # As the planner chooses by itself now and then: what stands inside runs for every row.
        for method in ("hashjoin", "mergejoin", "material", "hashagg", "sort"):
            connection.exec_driver_sql(f"SET LOCAL enable_{method} = off")

    try:
        assert deletions.take_due(retry_after_s=60) == deleted[0]
    finally:
        sa.event.remove(database, "begin", plan_a_nested_loop)


def test_objects_that_are_gone_do_not_come_up_again(
    deletions: DeletionRepository, deleted: list[str], database: sa.Engine
) -> None:
    for job_id in [*deleted, deleted[0]]:
        deletions.finish(job_id)
    assert count(database, "deletions") == 0


def test_several_cleaners_take_different_jobs(
    deletions: DeletionRepository, deleted: list[str]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        takes = list(pool.map(lambda _: deletions.take_due(retry_after_s=60), range(8)))
    taken = [job_id for job_id in takes if job_id is not None]
    assert len(taken) == len(set(taken))
    while (job_id := deletions.take_due(retry_after_s=60)) is not None:
        taken.append(job_id)
    assert sorted(taken) == deleted
