"""A job is canceled wherever it is, and has one end."""

import time

import pytest

from latentq_client import ServiceRefused
from shared.job import JobStatus
from tests.chaos.system import LEASE_S, LONG, SLACK_S, STEP_S, WORKERS, System


def test_a_job_that_waits_is_canceled_at_once_and_never_runs(system: System) -> None:
    for worker in WORKERS:
        system.cluster.freeze(worker)
    job_id = system.submit()
    with system.client() as client:
        assert client.cancel(job_id).status == "canceled"
        assert client.cancel(job_id).status == "canceled"
    for worker in WORKERS:
        system.cluster.thaw(worker)
    # Whoever takes the messages in their order comes past the canceled one.
    system.wait([system.submit()])
    job = system.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.CANCELED, 0)


@pytest.mark.parametrize("has_redis", [True, False], ids=["by message", "by heartbeat"])
def test_a_job_that_runs_stops_soon(system: System, has_redis: bool) -> None:
    job_id = system.submit(steps=3 * LONG)
    worker = system.wait_for_progress(job_id)
    if not has_redis:
        system.links[worker].redis.black_hole()
    with system.client() as client:
        client.cancel(job_id)
    asked_at = time.monotonic()
    system.wait([job_id], timeout_s=STEP_S + LEASE_S / 3 + SLACK_S)
    assert system.status(job_id) is JobStatus.CANCELED
    if has_redis:
        # No heartbeat could have brought it: they have a third of a lease.
        assert time.monotonic() - asked_at < LEASE_S / 3


def test_a_cancel_and_an_end_at_once_have_one_winner(system: System) -> None:
    job_ids = [system.submit(steps=4 + n) for n in range(12)]
    system.wait_for(job_ids[0], lambda job: job.attempt > 0)
    refusals = {}
    with system.client() as client:
        for job_id in job_ids:
            try:
                client.cancel(job_id)
            except ServiceRefused as refusal:
                refusals[job_id] = refusal.code
    assert set(refusals.values()) <= {"job_already_finished"}
    assert {system.status(job_id) for job_id in refusals} <= {JobStatus.SUCCEEDED}
    ended = {job.status for job in system.wait(job_ids)}
    assert ended <= {JobStatus.SUCCEEDED, JobStatus.CANCELED}
