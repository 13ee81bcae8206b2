"""Processes die; no accepted job is lost and none is delivered twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from shared.compatibility import CONSISTENCY, DIFFUSION_SAMPLERS
from shared.db.session import make_engine
from tests.fixtures.stack import LEASE_S, Stack, wait_until

JOBS = 20


def submit_twenty(stack: Stack) -> list[str]:
    samplers = [sampler for sampler in DIFFUSION_SAMPLERS if sampler not in CONSISTENCY]
    return [
        stack.submit(
            prompt="a small green frog",
            sampler=samplers[n % len(samplers)],
            steps=20 + n,
            guidance=1 + n % 3,
        )["id"]
        for n in range(JOBS)
    ]


def assert_all_succeeded_once(stack: Stack, job_ids: list[str]) -> None:
    jobs = stack.wait(job_ids)
    assert {job["status"] for job in jobs} == {"succeeded"}
    assert all(len(job["artifacts"]) == 1 for job in jobs)
    winners = sa.text(
        "SELECT job_id, count(*) FROM attempts WHERE outcome = 'succeeded' "
        "AND job_id = ANY(:ids) GROUP BY job_id"
    )
    database = make_engine(stack.connection["database_url"])
    with database.connect() as connection:
        counts = dict(connection.execute(winners, {"ids": job_ids}).all())
    database.dispose()
    assert counts == dict.fromkeys(job_ids, 1)


@pytest.mark.slow
def test_workers_killed_twice_in_the_middle_lose_nothing(stack: Stack) -> None:
    job_ids = submit_twenty(stack)
    for worker in ("worker-1", "worker-2"):
        stack.wait_for_progress(job_ids)
        stack.kill(worker)
    assert_all_succeeded_once(stack, job_ids)
    assert any((stack.get(job_id) or {}).get("attempt", 0) > 1 for job_id in job_ids)


@pytest.mark.slow  # tests/chaos has the same in less time
@pytest.mark.parametrize("victim", ["api", "dispatcher", "valkey", "seaweedfs", "postgres"])
def test_any_other_process_killed_in_the_middle_loses_nothing(stack: Stack, victim: str) -> None:
    job_ids = submit_twenty(stack)
    stack.wait_for_progress(job_ids)
    before = stack.connection["pids"][victim]
    stack.kill(victim)
    assert_all_succeeded_once(stack, job_ids)
    wait_until(lambda: stack.connection["pids"][victim] != before)


@pytest.mark.slow  # tests/chaos has the same in less time
def test_a_frozen_worker_that_wakes_up_changes_nothing(stack: Stack) -> None:
    job_ids = submit_twenty(stack)
    stack.wait_for_progress(job_ids)
    worker = stack.connection["pids"]["worker-1"]
    os.kill(worker, signal.SIGSTOP)
    try:
        stack.wait(job_ids)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert_all_succeeded_once(stack, job_ids)


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_hands_its_jobs_back(stack: Stack) -> None:
    job_ids = submit_twenty(stack)
    stack.wait_for_progress(job_ids)
    os.kill(stack.connection["pids"]["worker-1"], signal.SIGTERM)
    assert_all_succeeded_once(stack, job_ids)
    database = make_engine(stack.connection["database_url"])
    with database.connect() as connection:
        lost = connection.scalar(
            sa.text("SELECT sum(lost_leases) FROM jobs WHERE id = ANY(:ids)"), {"ids": job_ids}
        )
    database.dispose()
    assert lost == 0


@pytest.mark.slow
def test_a_second_host_needs_only_the_variables_and_one_command(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Stack(tmp_path / "data", workers=0) as stack:
        job_id = stack.submit(prompt="a small green frog", steps=4)["id"]
        variables = stack.variables()
        worker = subprocess.Popen(
            [Path(sys.executable).with_name("latentq"), "worker", "--name", "second-host"],
            cwd=elsewhere,
            env={"PATH": os.environ["PATH"], **variables},
            stderr=subprocess.DEVNULL,
        )
        try:
            (job,) = stack.wait([job_id])
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=LEASE_S + 10) == 0
    assert job["status"] == "succeeded"
    assert job["execution"]["worker"] == "second-host"
    assert not list(elsewhere.iterdir())
