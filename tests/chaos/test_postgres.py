"""PostgreSQL goes away; nothing is accepted meanwhile, and nothing that was is lost."""

import time

import pytest

from shared.job import JobStatus
from tests.chaos.system import LEASE_S, LONG, WORKERS, System


def test_a_postgresql_that_dies_is_told_to_clients_and_loses_nothing(system: System) -> None:
    job_ids = [system.submit(steps=LONG) for _ in range(3)]
    system.wait_for_progress(job_ids[0])
    system.kill_server(system.servers.postgres)
    refused = system.post()
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    system.start_server(system.servers.postgres)
    job_ids.append(system.submit())
    assert {job.status for job in system.wait(job_ids)} == {JobStatus.SUCCEEDED}


def test_jobs_outlive_an_outage_shorter_than_their_lease(system: System) -> None:
    job_id = system.submit(steps=LONG)
    system.wait_for_progress(job_id)
    for worker in WORKERS:
        system.links[worker].postgres.refuse()
    time.sleep(LEASE_S / 3)
    for worker in WORKERS:
        system.links[worker].postgres.heal()
    (job,) = system.wait([job_id])
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)


@pytest.mark.slow
def test_a_slow_postgresql_delays_and_harms_nobody(system: System) -> None:
    for links in system.links.values():
        links.postgres.delay(0.02)
    job_ids = [system.submit() for _ in range(3)]
    assert {job.status for job in system.wait(job_ids)} == {JobStatus.SUCCEEDED}
