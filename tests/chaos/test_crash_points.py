"""A process dies at the worst moment. Each point must be reached, or its test fails."""

import httpx
import pytest

from bench.cluster import wait_until
from shared.crash_point import EXIT_CODE, CrashPoint
from shared.job import JobStatus
from tests.chaos.system import (
    LEASE_S,
    PATIENCE_S,
    REDISPATCH_S,
    SLACK_S,
    TICK_S,
    WORKERS,
    System,
)

#: Points of a worker, in the order in which a job passes them.
OF_A_JOB = (
    CrashPoint.AFTER_CLAIM,
    CrashPoint.AFTER_UPLOAD,
    CrashPoint.BEFORE_FINISH_COMMIT,
    CrashPoint.AFTER_FINISH_COMMIT,
)


def test_workers_die_at_each_point_of_a_job_and_nothing_is_lost(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    victims = {f"worker-{point}": point for point in OF_A_JOB}
    for name, point in victims.items():
        system.start(name, LATENTQ_CRASH_AT=point)
    for name in victims:
        system.cluster.wait_until_ready(name)

    def are_dead() -> bool:
        return not any(system.cluster.is_running(name) for name in victims)

    while not are_dead():
        job_id = system.submit()
        wait_until(lambda: are_dead() or system.get(job_id).attempt > 0, timeout_s=PATIENCE_S)  # noqa: B023
    assert {system.cluster.wait_for_end(name) for name in victims} == {EXIT_CODE}
    system.revive()
    jobs = system.wait(system.accepted, timeout_s=3 * LEASE_S)
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert any(job.attempt > 1 for job in jobs)


def test_an_api_that_dies_before_it_answers_has_accepted_the_job_once(system: System) -> None:
    system.cluster.kill("api")
    system.start("api", LATENTQ_CRASH_AT=CrashPoint.AFTER_SUBMIT)
    system.cluster.wait_until_ready("api")
    seed = 8_000_001
    with pytest.raises(httpx.TransportError):
        system.post(key="order-1", seed=seed)
    assert system.cluster.wait_for_end("api") == EXIT_CODE
    system.revive()
    again = system.post(key="order-1", seed=seed)
    assert again.status_code == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert system.post(key="order-1", seed=seed).json()["id"] == again.json()["id"]
    (job, _) = system.wait(system.accepted)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)


def test_a_dispatcher_that_dies_before_it_publishes_delays_a_job(system: System) -> None:
    system.cluster.kill("dispatcher")
    system.start("dispatcher", LATENTQ_CRASH_AT=CrashPoint.AFTER_DISPATCH)
    job_id = system.insert()
    assert system.cluster.wait_for_end("dispatcher") == EXIT_CODE
    system.revive()
    bound_s = REDISPATCH_S + TICK_S + 2 * SLACK_S
    system.wait_for(job_id, lambda job: job.attempt == 1, timeout_s=bound_s)
    (job,) = system.wait([job_id])
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
