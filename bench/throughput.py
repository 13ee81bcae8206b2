"""How much an engine gets done while it has always more to do."""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from bench.arrivals import VirtualClock
from bench.mix import row_iterations, rows_of
from bench.policies import Arrival, Pick, serve_groups
from shared.request import GenerationRequest
from worker.engine import Engine, JobResult

#: Where an engine's time goes; what is left is the rest of Python, in all threads.
STAGES = ("forward", "scheduler", "encode", "decode")
#: Jobs that an engine holds in the steady state: more than fit into its forwards, 16 rows at most,
#: while some are encoded or decoded.
BACKLOG = 20


@dataclass(frozen=True, slots=True)
class Work:
    """What was done in how much CPU time, all threads together."""

    row_iterations: int
    cpu_s: float
    #: CPU seconds of each stage of an engine.
    stages_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows that went through the denoiser, per CPU second."""
        return self.row_iterations / self.cpu_s

    @property
    def shares(self) -> dict[str, float]:
        """Each stage's share of the CPU time, and what is left."""
        shares = {stage: seconds / self.cpu_s for stage, seconds in self.stages_s.items()}
        return shares | {"other Python": 1 - sum(shares.values())}

    def since(self, start: "Work") -> "Work":
        """Leave out what had been done before."""
        return Work(
            self.row_iterations - start.row_iterations,
            self.cpu_s - start.cpu_s,
            {stage: s - start.stages_s[stage] for stage, s in self.stages_s.items()},
        )


def measure_groups(
    jobs: Sequence[GenerationRequest],
    pick: Pick,
    run: Callable[[Sequence[GenerationRequest]], None],
    *,
    seconds: Callable[[], float] = time.process_time,
) -> Work:
    """Serve jobs that are all there from the start, a group after the other."""
    clock = VirtualClock(seconds)
    serve_groups([Arrival(0.0, job) for job in jobs], pick, run, clock)
    return Work(sum(map(row_iterations, jobs)), clock.now())


def measure_engine(
    engine: Engine,
    jobs: Sequence[GenerationRequest],
    *,
    seconds: Callable[[], float] = time.process_time,
) -> Work:
    """Keep an engine's backlog full, and measure from its first full turn to the last job's entry.

    Neither the first batches, all of jobs at their start, nor the last ones, which get ever
    smaller, are steady. The engine's own clock must count what `seconds` does, of one thread.

    Raises:
        ValueError: There are too few jobs for a steady state.
    """
    if len(jobs) <= 2 * BACKLOG:
        raise ValueError(f"a steady state takes more than {2 * BACKLOG} jobs")
    ended: queue.SimpleQueue[Future[JobResult]] = queue.SimpleQueue()
    futures: dict[str, Future[JobResult]] = {}
    for number, job in enumerate(jobs):
        if number >= BACKLOG:
            ended.get().result()
        if number == 2 * BACKLOG:
            start = _count_work(engine, jobs, futures, seconds())
        name = f"steady-{number}"
        futures[name] = engine.submit(name, job)
        futures[name].add_done_callback(ended.put)
    end = _count_work(engine, jobs, futures, seconds())
    for name in futures:
        engine.cancel(name)
    wait(futures.values())
    return end.since(start)


def _count_work(
    engine: Engine,
    jobs: Sequence[GenerationRequest],
    submitted: dict[str, Future[JobResult]],
    now: float,
) -> Work:
    """Sum up what was done so far of the jobs that were submitted."""
    under_way = engine.progress()
    done = sum(
        rows_of(job) * under_way.get(name, job.iterations)
        for name, job in zip(submitted, jobs, strict=False)
    )
    stages_s = {stage: getattr(engine.timings, f"{stage}_s") for stage in STAGES}
    return Work(done, now, stages_s)
