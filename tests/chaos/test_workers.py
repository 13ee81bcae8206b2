"""Workers die, freeze and are cut off; what they ran runs elsewhere, and ends once."""

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from bench.cluster import wait_until
from shared.errors import ErrorCode
from shared.job import MAX_LOST_ALONE, SUSPECTED_AFTER, JobStatus
from tests.chaos.programs import POISON, poisonable_worker, read_steps, telling_worker
from tests.chaos.system import (
    LEASE_S,
    LONG,
    PATIENCE_S,
    QUEUE,
    REDISPATCH_S,
    SLACK_S,
    STEP_S,
    TICK_S,
    WORKERS,
    System,
)


def other(worker: str) -> str:
    """Name the other of the two workers."""
    return next(name for name in WORKERS if name != worker)


def lost_leases(system: System) -> int:
    return sum(job.lost_leases for job in system.history().jobs.values())


def test_a_killed_workers_job_runs_elsewhere_within_two_leases(system: System) -> None:
    job_id = system.submit(steps=2 * LONG)
    victim = system.wait_for_progress(job_id)
    system.cluster.kill(victim)
    killed_at = time.monotonic()
    system.wait_for(job_id, lambda job: job.attempt == 2)
    assert time.monotonic() - killed_at < 2 * LEASE_S
    (job,) = system.wait([job_id])
    assert job.status is JobStatus.SUCCEEDED
    assert system.worker_of(job_id) == other(victim)


def test_a_message_that_dies_with_its_worker_is_sent_again(system: System) -> None:
    system.cluster.kill("worker-2")
    for _ in range(5):
        # Frozen while it waits in BRPOP, it is given the message and never reads it.
        system.cluster.freeze("worker-1")
        job_id = system.insert()
        announced = sa.text("SELECT dispatched_at FROM jobs WHERE id = :id")
        with system.database.connect() as connection:
            # No bound of this test, only where it begins.
            wait_until(
                lambda: connection.execute(announced, {"id": job_id}).scalar_one(),  # noqa: B023
                timeout_s=PATIENCE_S,
            )
        if system.queue.length(QUEUE) == 0:
            break
        # Redis had given up waiting for it: another try.
        system.cluster.thaw("worker-1")
        system.wait([job_id])
    else:
        pytest.fail("the message never went to the frozen worker")
    system.cluster.kill("worker-1")
    system.revive()
    bound_s = REDISPATCH_S + TICK_S + SLACK_S
    job = system.wait_for(job_id, lambda job: job.attempt == 1, timeout_s=bound_s)
    assert job.attempt == 1


def test_a_worker_that_wakes_up_after_its_lease_changes_nothing(system: System) -> None:
    job_id = system.submit(steps=LONG + LONG // 2)
    zombie = system.wait_for_progress(job_id)
    system.cluster.freeze(zombie)
    frozen_at = time.monotonic()
    system.wait_for(job_id, lambda job: job.attempt == 2 and job.iteration > 0)
    time.sleep(max(frozen_at + 1.6 * LEASE_S - time.monotonic(), 0))
    system.cluster.thaw(zombie)
    wait_until(
        lambda: "result_discarded" in system.cluster.read_log(zombie),
        timeout_s=STEP_S + LEASE_S / 3 + SLACK_S,
    )
    (job,) = system.wait([job_id])
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert system.worker_of(job_id) == other(zombie)


def test_a_worker_cut_off_from_postgresql_stops_before_its_lease_ends(
    system: System, tmp_path: Path
) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
        system.start(worker, program=telling_worker(worker, tmp_path / worker))
    for worker in WORKERS:
        system.cluster.wait_until_ready(worker)
    began = time.monotonic()
    job_id = system.submit(steps=LONG + LONG // 2)
    victim = system.wait_for_progress(job_id)
    system.links[victim].postgres.black_hole()
    cut_at = time.monotonic()
    system.wait_for(job_id, lambda job: job.attempt == 2 and job.iteration > 0)
    assert system.worker_of(job_id) == other(victim)
    last_step_at = read_steps(tmp_path / victim, since=began)[-1]
    assert last_step_at - cut_at < 0.9 * LEASE_S + STEP_S + SLACK_S
    # No step of the two overlaps.
    assert last_step_at < read_steps(tmp_path / other(victim), since=began)[0]
    (job,) = system.wait([job_id])
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)


def test_a_worker_that_is_told_to_stop_hands_its_job_back_at_once(system: System) -> None:
    job_id = system.submit(steps=2 * LONG)
    victim = system.wait_for_progress(job_id)
    system.cluster.terminate(victim)
    assert system.cluster.wait_for_end(victim, timeout_s=STEP_S + 2 + SLACK_S) == 0
    system.wait_for(job_id, lambda job: job.attempt == 2, timeout_s=TICK_S + SLACK_S)
    system.wait([job_id])
    assert lost_leases(system) == 0


def test_a_message_that_comes_ten_times_runs_a_job_once(system: System) -> None:
    system.cluster.kill("dispatcher")
    job_id = system.insert()
    for _ in range(10):
        system.queue.announce(QUEUE, job_id, {})
    (job,) = system.wait([job_id])
    wait_until(lambda: system.queue.length(QUEUE) == 0, timeout_s=10)
    assert (job.status, system.get(job_id).attempt) == (JobStatus.SUCCEEDED, 1)


@pytest.mark.slow
def test_a_job_that_kills_its_workers_fails_and_the_others_succeed(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
        system.start(worker, program=poisonable_worker(worker))
    innocent = [system.submit(steps=LONG // 2) for _ in range(4)]
    poison = system.submit(prompt=POISON)
    losses = SUSPECTED_AFTER + MAX_LOST_ALONE
    deadline = time.monotonic() + (losses + SUSPECTED_AFTER) * (LEASE_S + TICK_S + 2 * SLACK_S)
    while not all(system.status(job_id).is_terminal for job_id in system.accepted):
        assert time.monotonic() < deadline
        for worker in WORKERS:
            if not system.cluster.is_running(worker):
                system.start(worker, program=poisonable_worker(worker))
        time.sleep(0.1)
    assert system.get(poison).error_code is ErrorCode.WORKER_LOST
    told = system.history().jobs
    assert told[poison].lost_alone == MAX_LOST_ALONE
    assert {system.status(job_id) for job_id in innocent} == {JobStatus.SUCCEEDED}
    # Only what ran beside it before it was suspected was lost.
    assert all(told[job_id].lost_leases <= SUSPECTED_AFTER for job_id in innocent)
