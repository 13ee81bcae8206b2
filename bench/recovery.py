"""`python -m bench.recovery`: how long is a job held up when something fails, and what is repeated?

Real processes and servers, real signals; the device is simulated, so that the machine has time for
everything else. Each trial waits until all is well again before the next one begins. What it costs
to repeat little is measured with the real model.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.exc import OperationalError

from bench.checkpoint_cost import RUN_S, RUN_S_QUICK, SLOTS, CheckpointCost, measure_cost
from bench.cluster import TENANT, Cluster, open_store, wait_until
from bench.frozen_redis import SUBMISSIONS, Submissions, compare_submissions, p99
from bench.gate import Gate
from bench.repeated_work import CHECKPOINT_S, Repetition, measure_repetition
from cli.standalone.child import Child
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from evals.report import JsonFile, PageFile, Report, Table
from latentq_client import Client
from shared.db.jobs import JobRepository
from shared.db.session import make_engine
from shared.job import Job, JobStatus

QUESTION = (
    "How long is a job held up when something fails, and how much work is repeated? Real "
    "processes, servers and signals; only the device is simulated. What the states of jobs cost is "
    "measured with the demo model."
)
#: That of `latentq up` would make every trial five times as long and the shares of it no other.
LEASE_S = 3.0
STEP_S = 0.03
TRIALS, TRIALS_QUICK = 10, 2
WORKERS = ("worker-1", "worker-2")
#: Steps of a job that outlives its trial, and of one that takes no time.
LONG, SHORT = 600, 1
#: Celery's longest pause between two tries to reach Redis, in seconds.
BACK_OFF_S = 30.0
#: What a worker may take to leave besides its step, in seconds.
LEAVE_S = 2.0
CANCEL_S = 0.1
PATIENCE_S = 60.0
#: What the submissions leave behind takes longer: some thousand jobs of a step each.
BACKLOG_S = 300.0
ROUNDS, ROUNDS_QUICK = 5, 1
#: As good as unchanged: the slowest of a hundred answers vary by so much from round to round.
UNCHANGED = 1.5
#: What the states of jobs may take of a worker's time.
CHECKPOINT_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured in several trials, in seconds."""

    seconds: list[float]
    at_most: float

    @property
    def worst(self) -> float:
        """The slowest trial, which is what the target is for."""
        return max(self.seconds)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured."""

    figures: Mapping[str, Figure]
    submissions: Submissions
    repetitions: list[Repetition]
    cost: CheckpointCost


class Trial:
    """A cluster, and what is done to it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._servers = cluster.servers
        # For reading only, and past the API.
        self._jobs = JobRepository(make_engine(cluster.servers.database_url))

    def wait_until_idle(self) -> None:
        """Wait until no job waits that the trials would have to wait for."""
        wait_until(lambda: self._jobs.count_waiting(most=1) == 0, timeout_s=BACKLOG_S)

    def kill_worker(self) -> float:
        """Time from a worker's death to its job's next step elsewhere."""
        job_id, worker = self._run_job()
        self._cluster.kill(worker)
        began = time.monotonic()
        self._wait(job_id, lambda job: job.attempt == 2 and job.iteration > (job.resumed_at or 0))
        return self._end(began, job_id)

    def restart_redis(self) -> float:
        """Time from Redis's return after 3 seconds to the start of a job that waited for it."""
        self._servers.valkey.kill()
        self._servers.valkey.wait(PATIENCE_S)
        job_id = self._submit(LONG)
        time.sleep(3)
        began = self._start_server(self._servers.valkey)
        self._wait(job_id, lambda job: job.attempt == 1)
        return self._end(began, job_id)

    def restart_postgres(self) -> float:
        """Time from PostgreSQL's return after a crash to the end of a new job."""
        self._servers.postgres.kill()
        self._servers.postgres.wait(PATIENCE_S)
        began = self._start_server(self._servers.postgres)
        job_id = self._submit(SHORT)
        self._wait(job_id, lambda job: job.status is JobStatus.SUCCEEDED)
        return self._end(began, job_id)

    def cancel(self, *, has_redis: bool) -> float:
        """Time from a cancel request to the job's end."""
        job_id, _ = self._run_job()
        if not has_redis:
            self._servers.valkey.kill()
            self._servers.valkey.wait(PATIENCE_S)
        began = time.monotonic()
        self._request_cancel(job_id)
        self._wait(job_id, lambda job: job.status is JobStatus.CANCELED)
        elapsed_s = time.monotonic() - began
        if not has_redis:
            self._start_server(self._servers.valkey)
            # Workers reach it again before the next trial needs them.
            again = self._submit(SHORT)
            self._wait(again, lambda job: job.status is JobStatus.SUCCEEDED)
        return elapsed_s

    def drain(self) -> float:
        """Time from SIGTERM to a worker's exit, with a job in hand."""
        job_id, worker = self._run_job()
        began = time.monotonic()
        self._cluster.terminate(worker)
        if self._cluster.wait_for_end(worker) != 0:
            raise RuntimeError(f"{worker} did not leave in order")
        return self._end(began, job_id)

    def _run_job(self) -> tuple[str, str]:
        """Start a long job; returns its id and the worker that runs it."""
        job_id = self._submit(LONG)
        self._wait(job_id, lambda job: job.iteration > 0)
        running = f'"job_id": "{job_id}"'
        (worker,) = [name for name in WORKERS if running in self._cluster.read_log(name)]
        return job_id, worker

    def _end(self, began: float, job_id: str) -> float:
        """Stop the watch, and make the cluster whole again."""
        elapsed_s = time.monotonic() - began
        if not self._read(job_id).status.is_terminal:
            self._request_cancel(job_id)
            self._wait(job_id, lambda job: job.status.is_terminal)
        for name in WORKERS:
            if not self._cluster.is_running(name):
                self._cluster.start(name)
                self._cluster.wait_until_ready(name)
        return elapsed_s

    def _submit(self, steps: int) -> str:
        with Client(self._cluster.base_url, self._cluster.api_key) as client:
            return client.submit("a red star", sampler="ddim", guidance=1, steps=steps).id

    def _request_cancel(self, job_id: str) -> None:
        with Client(self._cluster.base_url, self._cluster.api_key) as client:
            client.cancel(job_id)

    def _start_server(self, child: Child) -> float:
        """Start a server and wait until it serves; returns when it did."""
        child.start()
        child.wait_until_ready(threading.Event())
        return time.monotonic()

    def _read(self, job_id: str) -> Job:
        return self._jobs.get(TENANT, job_id)

    def _wait(self, job_id: str, condition: Callable[[Job], bool]) -> None:
        def holds() -> bool:
            try:
                return condition(self._read(job_id))
            except OperationalError:
                return False

        wait_until(holds, timeout_s=PATIENCE_S)


def measure(trial: Trial, num_trials: int) -> Mapping[str, Figure]:
    """Run all trials."""
    measured: dict[str, tuple[Callable[[], float], float]] = {
        "worker killed to its job running elsewhere": (trial.kill_worker, 2 * LEASE_S),
        "Redis back to consuming": (trial.restart_redis, BACK_OFF_S),
        "PostgreSQL back to a new job done": (trial.restart_postgres, BACK_OFF_S),
        "cancel to canceled": (partial(trial.cancel, has_redis=True), STEP_S + CANCEL_S),
        "cancel to canceled, Redis down": (
            partial(trial.cancel, has_redis=False),
            STEP_S + LEASE_S / 3,
        ),
        "SIGTERM to the worker's exit": (trial.drain, STEP_S + LEAVE_S),
    }
    return {
        name: Figure([run() for _ in range(num_trials)], at_most)
        for name, (run, at_most) in measured.items()
    }


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two trials of each.")] = False,
) -> None:
    """Print how long failures hold a job up."""
    num_trials = TRIALS_QUICK if quick else TRIALS
    with tempfile.TemporaryDirectory() as folder:
        found = _measure_in(Path(folder), num_trials, quick=quick)
    tables = [
        _table_of(found.figures, num_trials),
        _table_of_repetitions(found.repetitions),
        _table_of_cost(found.cost),
        _table_of_submissions(found.submissions),
    ]
    described = _describe(found)
    Report("How long failures hold a job up", QUESTION, tables, described).publish(
        "python -m bench.recovery", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = find_missed(found)
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets reached"
    print(f"{num_trials} trials of each failure: {verdict}")  # noqa: T201
    sys.exit(1 if missed else 0)


def find_missed(found: Findings) -> list[str]:
    """Name the figures whose worst trial misses its target, and what else misses its own."""
    gates = [Gate(name, one.worst, at_most=one.at_most) for name, one in found.figures.items()]
    gates.append(Gate("submissions, Redis frozen", found.submissions.p99_ratio, at_most=UNCHANGED))
    gates.append(Gate("share of checkpoints", found.cost.share, at_most=CHECKPOINT_SHARE))
    return [gate.name for gate in gates if not gate.passes]


def _measure_in(folder: Path, num_trials: int, *, quick: bool) -> Findings:
    rounds = ROUNDS_QUICK if quick else ROUNDS
    with DataDir(folder) as data_dir, Servers(data_dir) as servers:
        cluster = Cluster(
            servers, data_dir.logs, variables={"LATENTQ_LEASE_S": f"{LEASE_S:g}"}, step_s=STEP_S
        )
        with cluster:
            names = ("api", "dispatcher", *WORKERS)
            for name in names:
                cluster.start(name)
            for name in names:
                cluster.wait_until_ready(name)
            submissions = compare_submissions(cluster, rounds=rounds)
            trial = Trial(cluster)
            trial.wait_until_idle()
            figures = measure(trial, num_trials)
            repetitions = measure_repetition(
                cluster, WORKERS, folder, step_s=STEP_S, num_trials=num_trials
            )
        # Nothing else runs any more.
        cost = measure_cost(open_store(servers), run_s=RUN_S_QUICK if quick else RUN_S)
        return Findings(figures, submissions, repetitions, cost)


def _table_of(figures: Mapping[str, Figure], num_trials: int) -> Table:
    rows = [
        [
            name,
            f"{statistics.median(one.seconds):.3f}",
            f"{one.worst:.3f}",
            f"{one.at_most:g}",
            "" if one.worst <= one.at_most else "missed",
        ]
        for name, one in figures.items()
    ]
    title = f"Seconds, {num_trials} trials each, lease {LEASE_S:g} s, step {1000 * STEP_S:g} ms"
    return Table(title, ["from, to", "median", "worst", "at most", ""], rows)


def _table_of_repetitions(repetitions: Sequence[Repetition]) -> Table:
    iterations = repetitions[0].iterations
    runs = [one.run for one in repetitions]
    rows = [
        [name, f"{run:g}", f"{run - iterations:g}", f"{STEP_S * (run - iterations):.2f}"]
        for name, run in (("median", statistics.median(runs)), ("worst", max(runs)))
    ]
    title = (
        f"Iterations run for a job of {iterations} whose worker is killed, "
        f"{len(repetitions)} trials, a state stored each {CHECKPOINT_S:g} s"
    )
    return Table(title, ["", "run", "of them twice", "seconds"], rows)


def _table_of_cost(cost: CheckpointCost) -> Table:
    shares = {
        "copying, on the engine's thread": cost.copying_s / cost.total_s,
        "writing and storing, beside it": cost.storing_s / cost.total_s,
        f"both, at most {100 * CHECKPOINT_SHARE:g}": cost.share,
    }
    title = f"Percent of a worker's processor time that the states of {SLOTS} jobs take"
    rows = [[name, f"{100 * share:.3f}"] for name, share in shares.items()]
    return Table(title, ["", "%"], rows)


def _table_of_submissions(submissions: Submissions) -> Table:
    rows = []
    for state, seen in {"well": submissions.well, "frozen": submissions.frozen}.items():
        medians = [statistics.median(statistics.median(one) for one in seen)]
        medians.append(statistics.median(p99(one) for one in seen))
        rows.append([state, *(f"{1000 * seconds:.1f}" for seconds in medians)])
    ratio = f"p99 frozen / well {submissions.p99_ratio:.2f}, at most {UNCHANGED:g}"
    title = f"Milliseconds until 202, {len(submissions.well)} rounds of {SUBMISSIONS}; {ratio}"
    return Table(title, ["Redis", "median", "p99"], rows)


def _describe(found: Findings) -> dict[str, Any]:
    return {
        "lease_s": LEASE_S,
        "step_s": STEP_S,
        "figures": {name: asdict(figure) for name, figure in found.figures.items()},
        "submissions": asdict(found.submissions),
        "checkpoint_s": CHECKPOINT_S,
        "repetitions": [asdict(one) | {"repeated": one.repeated} for one in found.repetitions],
        "checkpoint_cost": asdict(found.cost) | {"share": found.cost.share},
    }


if __name__ == "__main__":
    typer.run(main)
