"""Workers die, freeze and are cut off; what they ran runs elsewhere, and ends once."""

import time

from shared.job import JobStatus
from tests.chaos.system import LEASE_S, LONG, WORKERS, System

#: What a claim may take on a machine that has other things to do, in seconds.
QUEUE_WAIT_S = 1.0


def other(worker: str) -> str:
    """Name the other of the two workers."""
    return next(name for name in WORKERS if name != worker)


def test_a_killed_workers_job_runs_elsewhere_within_two_leases(system: System) -> None:
    job_id = system.submit(steps=LONG)
    victim = system.wait_for_progress(job_id)
    system.cluster.kill(victim)
    killed_at = time.monotonic()
    system.wait_for(job_id, lambda job: job.attempt == 2)
    assert time.monotonic() - killed_at < 2 * LEASE_S
    (job,) = system.wait([job_id])
    assert job.status is JobStatus.SUCCEEDED
    assert system.worker_of(job_id) == other(victim)
