"""No dispatcher, one or two; and who comes first when there is more to do than can be done."""

import time

import pytest
import sqlalchemy as sa

from shared.db.dispatch import WINDOW_PER_SLOT
from shared.errors import ErrorCode
from shared.job import JobStatus
from tests.chaos.system import LEASE_S, LONG, SLACK_S, TICK_S, WORKERS, System

SLOTS = 4


@pytest.mark.slow
def test_without_a_dispatcher_jobs_run_and_lost_ones_wait_for_it(system: System) -> None:
    system.cluster.kill("dispatcher")
    (job,) = system.wait([system.submit()])
    assert job.status is JobStatus.SUCCEEDED
    job_id = system.submit(steps=LONG)
    system.cluster.kill(system.wait_for_progress(job_id))
    time.sleep(1.2 * LEASE_S)
    assert (system.status(job_id), system.get(job_id).attempt) == (JobStatus.RUNNING, 1)
    system.revive()
    system.wait_for(job_id, lambda job: job.attempt == 2, timeout_s=TICK_S + 2 * SLACK_S)


def test_two_dispatchers_run_no_job_twice(system: System) -> None:
    system.start("dispatcher-2")
    system.cluster.wait_until_ready("dispatcher-2")
    job_ids = [system.insert() for _ in range(30)]
    system.sample()
    assert {job.attempt for job in system.wait(job_ids)} == {1}


def test_the_deadline_ends_a_job_that_no_worker_takes(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    job_id = system.submit(deadline_s=1)
    job = system.wait_for(
        job_id, lambda job: job.status.is_terminal, timeout_s=1 + TICK_S + SLACK_S
    )
    assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.DEADLINE_EXCEEDED)


def insert_many(system: System, number: int, *, tenant: str) -> None:
    """Store so many copies of a job at once."""
    like = system.insert(tenant=tenant, steps=20)
    columns = (
        "tenant, queue, model, preset_name, preset_version, request, metadata, priority, "
        "iterations, megapixel_iterations"
    )
    statement = (
        f"INSERT INTO jobs (id, virtual_birth, deadline_at, {columns}) "
        "SELECT 'job_' || md5(:like || n), virtual_birth + n * interval '1 microsecond', "
        f"deadline_at, {columns} FROM jobs, "
        "generate_series(2, :number) AS n WHERE id = :like"
    )
    with system.database.begin() as connection:
        connection.execute(sa.text(statement), {"like": like, "number": number})


def forget_workers(system: System) -> None:
    """Take the slots of killed workers out of the window, as a minute of silence does."""
    with system.database.begin() as connection:
        connection.execute(sa.text("DELETE FROM workers"))


def cancel_waiting(system: System) -> None:
    statement = "UPDATE jobs SET status = 'canceled', finished_at = now() WHERE status = 'queued'"
    with system.database.begin() as connection:
        connection.execute(sa.text(statement))


def count_started(system: System, tenant: str) -> int:
    query = "SELECT count(*) FROM jobs WHERE tenant = :tenant AND attempt > 0"
    with system.database.connect() as connection:
        return int(connection.execute(sa.text(query), {"tenant": tenant}).scalar_one())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("waiting", "fields"),
    [(10_000, {"tenant": "small"}), (1_000, {"tenant": "large", "priority": 9})],
    ids=["another tenant's", "an urgent one"],
)
def test_a_job_behind_a_crowd_starts_with_the_next_free_slots(
    system: System, waiting: int, fields: dict[str, object]
) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    forget_workers(system)
    insert_many(system, waiting, tenant="large")
    system.start("worker-1", LATENTQ_WORKER_SLOTS=str(SLOTS))
    try:
        system.wait_for(system.accepted[0], lambda job: job.attempt > 0)
        before = count_started(system, "large")
        job_id = system.insert(**fields)
        system.wait_for(job_id, lambda job: job.attempt > 0)
        # What was announced before it, what runs, and what went on while this looked.
        allowed = 8 + WINDOW_PER_SLOT * SLOTS + 2 * SLOTS
        assert count_started(system, "large") - before <= allowed
    finally:
        cancel_waiting(system)
