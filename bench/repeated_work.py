"""How much work is done twice when a worker is killed in the middle of a job."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.cluster import TENANT, Cluster, wait_until
from bench.forward_log import read_forwards
from bench.simulated_device import run_worker
from latentq_client import Client
from shared.db.jobs import JobRepository
from shared.db.session import make_engine
from shared.job import Job, JobStatus

#: How often a state is stored, in seconds. The default would make every trial longer and the work
#: that is repeated the same share of an interval.
CHECKPOINT_S = 1.0
#: Forwards of a job, and after which share of it a worker is killed at the earliest and the latest.
ITERATIONS = 300
FROM, UNTIL = 0.2, 0.8
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Repetition:
    """What was run for one job whose worker was killed."""

    #: Forwards that the job needs, and that all of its workers did.
    iterations: int
    run: int
    #: The iteration that it went on from; None if it began anew.
    resumed_at: int | None

    @property
    def repeated(self) -> int:
        """Forwards that were done twice."""
        return self.run - self.iterations


class RepeatedWork:
    """A cluster whose workers count their forwards, killed one after the other."""

    def __init__(
        self, cluster: Cluster, workers: Sequence[str], folder: Path, *, step_s: float
    ) -> None:
        self._cluster = cluster
        self._step_s = step_s
        # Where each of them counts.
        self._tallies = {name: folder / f"{name}.forwards" for name in workers}
        self._jobs = JobRepository(make_engine(cluster.servers.database_url))
        self._random = random.Random(1)  # noqa: S311 # the same moments everywhere

    def start(self) -> None:
        """Start those of the workers that do not run, and wait until they serve."""
        missing = [name for name in self._tallies if not self._cluster.is_running(name)]
        for name in missing:
            program = partial(run_worker, name, self._step_s, self._tallies[name])
            variables = {"LATENTQ_CHECKPOINT_S": f"{CHECKPOINT_S:g}"}
            self._cluster.start(name, program=program, **variables)
        for name in missing:
            self._cluster.wait_until_ready(name)

    def kill_one(self) -> Repetition:
        """Kill the worker of a job at some moment, and count what all of them did for it."""
        self.start()
        before = self._count()
        with Client(self._cluster.base_url, self._cluster.api_key) as client:
            job = client.submit("a red star", sampler="ddim", guidance=1, steps=ITERATIONS)
        first = self._random.randint(round(FROM * ITERATIONS), round(UNTIL * ITERATIONS))
        self._wait(job.id, lambda job: job.iteration >= first)
        (run, *_) = self._jobs.attempts(TENANT, job.id)
        self._cluster.kill(run.worker)
        done = self._wait(job.id, lambda job: job.status is JobStatus.SUCCEEDED)
        return Repetition(done.request.iterations, self._count() - before, done.resumed_at)

    def stop(self) -> None:
        """Kill the workers."""
        for name in self._tallies:
            if self._cluster.is_running(name):
                self._cluster.kill(name)

    def _count(self) -> int:
        return sum(len(read_forwards(path)) for path in self._tallies.values())

    def _wait(self, job_id: str, condition: Callable[[Job], bool]) -> Job:
        def look() -> Job | None:
            job = self._jobs.get(TENANT, job_id)
            return job if condition(job) else None

        job = wait_until(look, timeout_s=PATIENCE_S)
        if job is None:
            raise AssertionError("it is true")
        return job


def measure_repetition(
    cluster: Cluster, workers: Sequence[str], folder: Path, *, step_s: float, num_trials: int
) -> list[Repetition]:
    """Run all trials, with workers of their own in place of those that run."""
    for name in workers:
        cluster.kill(name)
    work = RepeatedWork(cluster, workers, folder, step_s=step_s)
    trials = [work.kill_one() for _ in range(num_trials)]
    work.stop()
    return trials
