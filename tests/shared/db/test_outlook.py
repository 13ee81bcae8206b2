from collections.abc import Callable

import pytest
import sqlalchemy as sa

from shared.db.jobs import JobFilters, JobRepository
from shared.db.leases import Beat, LeaseRepository
from shared.db.outlook import FEW_AHEAD, MANY_AHEAD
from shared.db.presence import WorkerRepository
from shared.job import Job, NewJob

NewJobs = Callable[..., NewJob]
QUEUES = ["demo.interactive", "demo.batch"]


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def leases(database: sa.Engine) -> LeaseRepository:
    return LeaseRepository(database, lease_s=60)


@pytest.fixture
def submit(jobs: JobRepository, make_job: NewJobs) -> Callable[..., Job]:
    return lambda **fields: jobs.insert(make_job(**fields))[0]


Submit = Callable[..., Job]


def serve(database: sa.Engine, *names: str) -> None:
    for name in names:
        WorkerRepository(database).beat(name, device="cpu", queues=QUEUES, slots=8)


def eta_s(jobs: JobRepository, job: Job) -> float | None:
    return jobs.get("tenant", job.id).queue_eta_s


def test_the_work_ahead_is_shared_by_the_workers_that_live(
    jobs: JobRepository, submit: Submit, database: sa.Engine
) -> None:
    first, second = submit(predicted_s=6.0), submit(predicted_s=4.0)
    urgent, last = submit(predicted_s=1.0, priority=9), submit(predicted_s=100.0)
    other = submit(predicted_s=100.0, queue="demo.batch")
    assert eta_s(jobs, last) is None  # nobody serves it
    serve(database, "a", "b")
    order = (urgent, first, second, last, other)
    assert [eta_s(jobs, job) for job in order] == [0.0, 0.5, 3.5, 5.5, 0.0]
    with database.begin() as connection:
        connection.execute(
            sa.text("UPDATE workers SET heartbeat_at = now() - interval '1 hour' WHERE id = 'a'")
        )
    assert eta_s(jobs, last) == 11.0
    WorkerRepository(database).beat("c", device="cpu", queues=["other.batch"], slots=8)
    assert eta_s(jobs, last) == 11.0


def test_what_runs_counts_by_what_is_left_of_it(
    jobs: JobRepository, leases: LeaseRepository, submit: Submit, database: sa.Engine
) -> None:
    serve(database, "a")
    # Of the other class too: the same devices run it.
    running = submit(predicted_s=8.0, steps=4, queue="demo.batch")
    elsewhere = submit(predicted_s=8.0, model="other", queue="other.batch")
    claims = [leases.claim(job.id, worker="a") for job in (running, elsewhere)]
    waiting = submit(predicted_s=5.0)
    assert eta_s(jobs, waiting) == 8.0
    assert claims[0] is not None
    leases.beat([Beat(claims[0].lease.token, 3)])
    assert eta_s(jobs, waiting) == 2.0
    leases.beat([Beat(claims[0].lease.token, 9)])  # more than there are
    assert eta_s(jobs, waiting) == 0.0
    assert jobs.get("tenant", running.id).queue_eta_s is None


def test_jobs_without_a_prediction_count_as_those_with_one(
    jobs: JobRepository, submit: Submit, database: sa.Engine
) -> None:
    serve(database, "a")
    first = submit()
    second = submit(predicted_s=3.0)
    third = submit(predicted_s=5.0)
    fourth = submit()
    assert eta_s(jobs, first) == 0.0
    assert eta_s(jobs, second) is None  # nothing is known of what is ahead
    assert eta_s(jobs, third) == 6.0
    assert eta_s(jobs, fourth) == 12.0


def test_announced_jobs_are_ahead_as_well(
    jobs: JobRepository, submit: Submit, database: sa.Engine
) -> None:
    serve(database, "a")
    announced, waiting = submit(predicted_s=2.0), submit(predicted_s=2.0)
    with database.begin() as connection:
        statement = sa.text("UPDATE jobs SET dispatched_at = now() WHERE id = :id")
        connection.execute(statement, {"id": announced.id})
    shown = jobs.get("tenant", waiting.id)
    assert (shown.queue_position, shown.queue_eta_s) == (1, 2.0)
    assert jobs.get("tenant", announced.id).queue_position == 0


def test_more_jobs_ahead_than_are_worth_counting_are_not_counted(
    jobs: JobRepository, submit: Submit, database: sa.Engine
) -> None:
    serve(database, "a")
    first = submit(predicted_s=0.5)
    copy = sa.text("""
        INSERT INTO jobs (id, tenant, queue, model, preset_name, preset_version, request, metadata,
                          priority, megapixel_iterations, predicted_s, deadline_at, virtual_birth)
        SELECT id || n, tenant, queue, model, preset_name, preset_version, request, metadata,
               priority, megapixel_iterations, predicted_s, deadline_at, virtual_birth
          FROM jobs, generate_series(1, :count) AS n WHERE id = :id
    """)

    def add(count: int) -> None:
        with database.begin() as connection:
            connection.execute(copy, {"id": first.id, "count": count})

    add(FEW_AHEAD - 2)
    last_told = submit(predicted_s=0.5)
    assert (last_told.queue_position, last_told.queue_eta_s) == (FEW_AHEAD - 1, (FEW_AHEAD - 1) / 2)
    untold = submit(predicted_s=0.5)
    assert (untold.queue_position, untold.queue_eta_s) == (None, None)
    assert untold.unschedulable is None
    # Who asks has more of them counted.
    told = jobs.get("tenant", untold.id)
    assert (told.queue_position, told.queue_eta_s) == (FEW_AHEAD, FEW_AHEAD / 2)
    with database.begin() as connection:
        connection.execute(
            sa.text("DELETE FROM jobs WHERE id NOT IN (:a, :b)"), {"a": first.id, "b": untold.id}
        )
    add(MANY_AHEAD - 1)
    assert jobs.get("tenant", untold.id).queue_position is None


def test_lists_leave_it_out(jobs: JobRepository, submit: Submit, database: sa.Engine) -> None:
    serve(database, "a")
    submit(predicted_s=2.0)
    (listed,) = jobs.page("tenant", limit=9, after=None, filters=JobFilters())
    assert (listed.queue_position, listed.queue_eta_s) == (None, None)
    assert listed.predicted_s == 2.0


@pytest.mark.parametrize("predicted_s", [0.0, -1.0])
def test_the_database_refuses_what_no_job_takes(submit: Submit, predicted_s: float) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="ck_jobs_predicted"):
        submit(predicted_s=predicted_s)


@pytest.mark.parametrize("predicted_s", [float("nan"), float("inf")])
def test_the_database_refuses_what_is_no_number(submit: Submit, predicted_s: float) -> None:
    with pytest.raises(sa.exc.DataError):
        submit(predicted_s=predicted_s)
