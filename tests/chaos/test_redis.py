"""Redis dies, freezes, forgets and fills up; jobs are late, and none is lost."""

import time

import pytest
import redis

from shared.job import JobStatus
from shared.queue import SOCKET_TIMEOUT_S
from tests.chaos.system import LONG, QUEUE, REDISPATCH_S, SLACK_S, TICK_S, WORKERS, System

#: Celery's longest pause before it tries again, and how often redis-py asks if a server is there.
BACK_OFF_S = 30.0
HEALTH_CHECK_S = 5.0


def client_of(system: System) -> "redis.Redis":
    return redis.Redis.from_url(system.servers.redis_url)


def test_a_redis_that_dies_and_forgets_everything_loses_nothing(system: System) -> None:
    running = [system.submit(steps=LONG // 2) for _ in range(4)]
    system.wait_for_progress(running[0])
    system.kill_server(system.servers.valkey)
    waiting = [system.submit() for _ in range(4)]
    system.forget_redis()
    system.start_server(system.servers.valkey)
    jobs = system.wait([*running, *waiting], timeout_s=BACK_OFF_S + REDISPATCH_S + SLACK_S)
    assert {(job.status, job.attempt) for job in jobs} == {(JobStatus.SUCCEEDED, 1)}


def test_a_redis_that_was_emptied_is_filled_again(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    job_ids = [system.submit() for _ in range(4)]
    with client_of(system) as client:
        client.flushall()
    emptied_at = time.monotonic()
    while system.queue.length(QUEUE) < len(job_ids):
        assert time.monotonic() - emptied_at < REDISPATCH_S + TICK_S + SLACK_S
        time.sleep(0.05)
    system.revive()
    assert {job.attempt for job in system.wait(job_ids)} == {1}


@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_no_request_waits_for_a_redis_that_is_frozen(system: System, seconds: float) -> None:
    system.submit()
    system.freeze_server(system.servers.valkey)
    frozen_at = time.monotonic()
    slowest_s = 0.0
    while time.monotonic() - frozen_at < seconds:
        began = time.monotonic()
        system.submit()
        slowest_s = max(slowest_s, time.monotonic() - began)
        time.sleep(0.1)
    # Whoever waited for Redis would have waited for its time-out.
    assert slowest_s < SOCKET_TIMEOUT_S / 2
    system.thaw_server(system.servers.valkey)


def test_a_redis_that_is_full_delays_jobs(system: System) -> None:
    with client_of(system) as client:
        client.config_set("maxmemory", 1)
        job_id = system.submit()
        time.sleep(2 * TICK_S)
        assert system.get(job_id).attempt == 0
        client.config_set("maxmemory", 0)
    (job,) = system.wait([job_id], timeout_s=REDISPATCH_S + TICK_S + 5 * SLACK_S)
    assert job.status is JobStatus.SUCCEEDED


@pytest.mark.slow
def test_a_connection_that_died_in_silence_is_noticed(system: System) -> None:
    for worker in WORKERS:
        system.links[worker].redis.half_open()
    bound_s = SLACK_S + 2 * HEALTH_CHECK_S + SOCKET_TIMEOUT_S + REDISPATCH_S
    job_id = system.submit()
    # The bound is that of being heard of again: how long the job then runs is none of Redis'.
    system.wait_for(job_id, lambda job: job.status is not JobStatus.QUEUED, timeout_s=bound_s)
    (job,) = system.wait([job_id])
    assert job.status is JobStatus.SUCCEEDED


@pytest.mark.slow
def test_a_full_worker_whose_jobs_end_while_redis_is_down_takes_more(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    system.start("worker-1", LATENTQ_WORKER_SLOTS="1")
    last = system.submit(steps=LONG)
    system.wait_for_progress(last)
    system.kill_server(system.servers.valkey)
    system.wait([last])
    system.start_server(system.servers.valkey)
    (job,) = system.wait([system.submit()], timeout_s=BACK_OFF_S + SLACK_S)
    assert job.status is JobStatus.SUCCEEDED
