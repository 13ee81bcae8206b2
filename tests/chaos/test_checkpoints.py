"""Workers die in the middle of jobs of the real model, which go on elsewhere: the same files."""

import itertools
import random
import time
from functools import partial
from typing import Any

import pytest

import worker.main
from bench.cluster import wait_until
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import CONSISTENCY, DIFFUSION_SAMPLERS, find_refusal, max_steps
from shared.crash_point import EXIT_CODE, CrashPoint
from shared.job import MAX_LOST_ALONE, SUSPECTED_AFTER, JobStatus
from shared.storage import checkpoints_prefix
from shared.vocab import Sampler, Schedule
from tests.chaos.system import LONG, PATIENCE_S, WORKERS, System

#: Shorter than in other scenarios: each of them waits for several leases to run out.
LEASE_S = 1.5
#: A state is stored this often, in seconds.
CHECKPOINT_S = 0.2
VARIABLES = {"LATENTQ_LEASE_S": f"{LEASE_S}", "LATENTQ_CHECKPOINT_S": f"{CHECKPOINT_S}"}
KILLS = 50
SPEC = Catalog.load(CATALOG).models["demo"]


def start_real(system: System, name: str) -> None:
    """Start a worker with the real model."""
    program = partial(worker.main.main, name=name)
    system.start(name, program=program, LATENTQ_DEVICE="cpu", **VARIABLES)


@pytest.fixture
def real(system: System) -> System:
    """The system, its workers with the real model."""
    for name in WORKERS:
        system.cluster.kill(name)
        start_real(system, name)
    for name in WORKERS:
        system.cluster.wait_until_ready(name)
    return system


def files_of(system: System, job_id: str) -> list[str]:
    (job,) = system.wait([job_id])
    assert job.status is JobStatus.SUCCEEDED, job.error_message
    return [artifact.sha256 for artifact in job.artifacts]


def is_under_way(system: System, job_id: str) -> bool:
    """Tell whether a job runs, and has a state in the store to go on from."""
    job = system.get(job_id)
    if job.status.is_terminal:
        return True
    return job.iteration > 0 and bool(system.store.list_all(checkpoints_prefix(job_id)))


def kill_in_the_middle(system: System, job_ids: list[str], rng: random.Random) -> None:
    """Kill the worker that runs one of the jobs, at a random step of it."""
    for job_id in job_ids:
        wait_until(lambda: is_under_way(system, job_id), timeout_s=PATIENCE_S)  # noqa: B023
    time.sleep(rng.uniform(0, 2 * CHECKPOINT_S))
    running = [job_id for job_id in job_ids if system.status(job_id) is JobStatus.RUNNING]
    if running:
        system.cluster.kill(system.worker_of(rng.choice(running)))


def test_a_worker_is_killed_and_the_files_are_the_same(real: System) -> None:
    bodies: list[dict[str, Any]] = [
        {"sampler": "dpmpp_2m_sde", "schedule": "karras", "num_outputs": 2},
        {"sampler": "unipc", "guidance": 3},
    ]
    for number, body in enumerate(bodies):
        body |= {"steps": 20, "determinism": "exact", "seed": 9_000_000 + 10 * number}
    whole = [real.submit(**body) for body in bodies]
    expected = [files_of(real, job_id) for job_id in whole]
    broken = [real.submit(**body) for body in bodies]
    kill_in_the_middle(real, broken, random.Random(1))
    assert [files_of(real, job_id) for job_id in broken] == expected
    resumed = [real.get(job_id) for job_id in broken if real.get(job_id).attempt > 1]
    assert resumed
    assert all(job.resumed_at for job in resumed)
    assert not any(real.store.list_all(checkpoints_prefix(job_id)) for job_id in broken)


def every_cell() -> list[tuple[Sampler, Schedule]]:
    """All samplers of the model, each on a schedule of its own choice."""
    samplers = [sampler for sampler in DIFFUSION_SAMPLERS if sampler not in CONSISTENCY]
    cells = []
    for number, sampler in enumerate(samplers):
        fit = [where for where in Schedule if find_refusal(sampler, where, SPEC) is None]
        cells.append((sampler, fit[number % len(fit)]))
    consistent = [(sampler, Schedule.NATIVE) for sampler in sorted(CONSISTENCY)]
    return [*cells, *consistent]


def exact_body(number: int, sampler: Sampler, schedule: Schedule) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "schedule": schedule,
        "allow_undistilled": sampler in CONSISTENCY,
        "steps": min(30, max_steps(sampler, schedule, SPEC, allow_undistilled=True)),
        "guidance": [1, 3][number % 2],
        "num_outputs": 1 + number % 2,
        "determinism": "exact",
        "seed": 9_100_000 + 10 * number,
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_workers_are_killed_fifty_times_and_every_file_is_the_same(real: System) -> None:
    rng = random.Random(7)
    bodies = [exact_body(number, *cell) for number, cell in enumerate(every_cell())]
    expected = [files_of(real, job_id) for job_id in [real.submit(**body) for body in bodies]]
    num_resumed = num_kills = 0
    for first in itertools.cycle(range(0, len(bodies), 2)):
        if num_kills == KILLS:
            break
        numbers = [first, (first + 1) % len(bodies)]
        job_ids = [real.submit(**bodies[number]) for number in numbers]
        kill_in_the_middle(real, job_ids, rng)
        for name in WORKERS:
            if not real.cluster.is_running(name):
                start_real(real, name)
                num_kills += 1
        assert [files_of(real, job_id) for job_id in job_ids] == [expected[n] for n in numbers]
        num_resumed += sum(real.get(job_id).resumed_at is not None for job_id in job_ids)
    assert num_resumed > KILLS / 2


@pytest.mark.slow
def test_workers_die_around_a_checkpoint_and_the_job_goes_on(system: System) -> None:
    points = (
        CrashPoint.BEFORE_CHECKPOINT_UPLOAD,
        CrashPoint.AFTER_CHECKPOINT_UPLOAD,
        CrashPoint.AFTER_CHECKPOINT_READ,
    )
    for name in WORKERS:
        system.cluster.kill(name)
    job_id = system.submit(steps=LONG)
    # One after the other, so that the last one finds what the one before it has stored.
    for point in points:
        name = f"worker-{point}"
        system.start(name, LATENTQ_CRASH_AT=point, **VARIABLES)
        assert system.cluster.wait_for_end(name, timeout_s=PATIENCE_S) == EXIT_CODE
    system.start(WORKERS[0], **VARIABLES)
    job = system.wait_for(job_id, lambda job: job.status.is_terminal)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, len(points) + 1)
    assert (job.resumed_at or 0) > 0
    told = system.history().jobs[job_id]
    assert (told.lost_leases, told.lost_alone) == (len(points), len(points) - SUSPECTED_AFTER)


@pytest.mark.slow
def test_a_state_that_kills_whoever_reads_it_is_left_aside_in_the_end(system: System) -> None:
    for name in WORKERS:
        system.cluster.kill(name)
    job_id = system.submit(steps=LONG)
    system.start("worker-first", LATENTQ_CRASH_AT=CrashPoint.AFTER_CHECKPOINT_UPLOAD, **VARIABLES)
    assert system.cluster.wait_for_end("worker-first", timeout_s=PATIENCE_S) == EXIT_CODE
    num_read = 0
    while not system.status(job_id).is_terminal:
        if not system.cluster.is_running("worker-reader"):
            system.start(
                "worker-reader", LATENTQ_CRASH_AT=CrashPoint.AFTER_CHECKPOINT_READ, **VARIABLES
            )
            num_read += 1
        time.sleep(0.1)
    job = system.get(job_id)
    assert (job.status, job.resumed_at) == (JobStatus.SUCCEEDED, None)
    # Suspected after the second loss; the last of the tries alone does not read it.
    assert job.attempt == num_read + 1 == SUSPECTED_AFTER + MAX_LOST_ALONE
