"""Take one mechanism away, and a scenario or the checker must notice: else they prove nothing.

That of the unique row of an event stands with the other tests of webhooks.
"""

import time
from pathlib import Path

import pytest
import redis

from bench.cluster import Program, wait_until
from tests.chaos.ablations import (
    dispatcher_without_redispatch,
    dispatcher_without_rescuer,
    late_acking_worker,
    trusting_worker,
    unfenced_worker,
    unguarded_worker,
)
from tests.chaos.history import check
from tests.chaos.programs import POISON, read_steps
from tests.chaos.system import (
    LEASE_S,
    LONG,
    QUEUE,
    REDISPATCH_S,
    SLACK_S,
    TICK_S,
    WORKERS,
    System,
)


def exchange(system: System, name: str, program: Program, **variables: str) -> None:
    system.cluster.kill(name)
    system.start(name, program=program, **variables)
    system.cluster.wait_until_ready(name)


def test_without_fencing_the_checker_finds_what_a_late_worker_did(system: System) -> None:
    for worker in WORKERS:
        exchange(system, worker, unfenced_worker(worker))
    job_id = system.submit(steps=4 * LONG)
    zombie = system.wait_for_progress(job_id)
    system.cluster.freeze(zombie)
    system.wait_for(job_id, lambda job: job.attempt == 2 and job.iteration > 0)
    system.cluster.thaw(zombie)
    log = "job_handed_back"
    wait_until(lambda: log in system.cluster.read_log(zombie), timeout_s=LEASE_S)
    assert "I4" in {violation.invariant for violation in check(system.history())}
    system.abandon()


def test_without_redispatch_a_lost_message_is_a_lost_job(system: System) -> None:
    exchange(system, "dispatcher", dispatcher_without_redispatch)
    for worker in WORKERS:
        system.cluster.kill(worker)
    system.submit()
    wait_until(lambda: system.queue.length(QUEUE) == 1, timeout_s=10)
    with redis.Redis.from_url(system.servers.redis_url) as client:
        client.flushall()
    time.sleep(REDISPATCH_S + TICK_S + SLACK_S)
    assert system.queue.length(QUEUE) == 0
    system.abandon()


@pytest.mark.slow
def test_without_the_rescuer_a_killed_workers_job_stays(system: System) -> None:
    exchange(system, "dispatcher", dispatcher_without_rescuer)
    job_id = system.submit(steps=LONG)
    system.cluster.kill(system.wait_for_progress(job_id))
    time.sleep(2 * LEASE_S)
    assert system.get(job_id).attempt == 1
    system.abandon()


@pytest.mark.slow
def test_without_self_fencing_two_workers_run_a_job_at_once(system: System, tmp_path: Path) -> None:
    for worker in WORKERS:
        exchange(system, worker, unguarded_worker(worker, tmp_path / worker))
    began = time.monotonic()
    job_id = system.submit(steps=5 * LONG)
    victim = system.wait_for_progress(job_id)
    system.links[victim].postgres.black_hole()
    system.wait_for(job_id, lambda job: job.attempt == 2 and job.iteration > 0)
    (other,) = set(WORKERS) - {victim}
    last_step_at = read_steps(tmp_path / victim, since=began)[-1]
    assert last_step_at > read_steps(tmp_path / other, since=began)[0]
    system.abandon()


@pytest.mark.slow
def test_without_quarantine_a_poison_job_takes_others_with_it(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    innocent = [system.submit(steps=10 * LONG) for _ in range(3)]
    system.submit(prompt=POISON)
    deadline = time.monotonic() + 60
    # More than a job may lose before what kills the workers runs alone.
    while max(system.history().jobs[job_id].lost_leases for job_id in innocent) < 4:
        assert time.monotonic() < deadline
        if not system.cluster.is_running("worker-1"):
            system.start("worker-1", program=trusting_worker("worker-1"))
        time.sleep(0.2)
    system.abandon()


@pytest.mark.slow
def test_with_late_acks_a_full_worker_takes_nothing_after_redis_was_down(system: System) -> None:
    for worker in WORKERS:
        system.cluster.kill(worker)
    system.start("worker-1", program=late_acking_worker("worker-1"), LATENTQ_WORKER_SLOTS="1")
    last = system.submit(steps=LONG)
    system.wait_for_progress(last)
    system.kill_server(system.servers.valkey)
    system.wait([last])
    # The worker acknowledges after the row says so, and shall find nobody.
    time.sleep(SLACK_S)
    system.start_server(system.servers.valkey)
    job_id = system.submit()
    time.sleep(30 + SLACK_S)
    assert system.get(job_id).attempt == 0
    system.abandon()
