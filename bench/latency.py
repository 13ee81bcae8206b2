"""How long jobs take from arrival to picture, by policy and load."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.arrivals import draw_typical_trace
from bench.mix import Kind, draw_jobs, kind_of
from bench.percentile import percentile
from bench.policies import Arrival
from shared.catalog import ModelSpec
from shared.request import GenerationRequest

FIFO, STATIC, ENGINE = "FIFO", "static", "engine"
POLICIES = (FIFO, STATIC, ENGINE)

#: Serves arrivals; returns each job's latency in seconds.
Serve = Callable[[Sequence[Arrival]], list[float]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of a trace of jobs, in mean times of one job alone."""

    num_jobs: int
    mean: float
    p95: float

    @classmethod
    def of(cls, latencies: Sequence[float], unit_s: float) -> "Latency":
        """Sum up seconds."""
        mean, p95 = statistics.fmean(latencies), percentile(latencies, 0.95)
        return cls(len(latencies), mean / unit_s, p95 / unit_s)


#: By load and policy; a policy that was left out is missing.
Round = dict[tuple[float, str], Latency]


def measure_services(
    jobs: Sequence[GenerationRequest],
    run: Callable[[Sequence[GenerationRequest]], None],
    *,
    seconds: Callable[[], float] = time.process_time,
) -> dict[Kind, float]:
    """Measure how long a job of each kind takes alone."""
    seen: dict[Kind, list[float]] = {}
    for job in jobs:
        start = seconds()
        run([job])
        seen.setdefault(kind_of(job), []).append(seconds() - start)
    return {kind: statistics.fmean(times) for kind, times in seen.items()}


def measure_round(
    counts: Mapping[float, int],
    services: Mapping[Kind, float],
    spec: ModelSpec,
    *,
    run_engine: Serve,
    run_static: Serve | None,
    number: int,
) -> Round:
    """Serve each load's count of jobs, arriving at the same moments, by each policy.

    FIFO serves a job in the time that its kind takes alone, whatever the load, so its jobs are not
    run once more. The mean of these times is the unit, and its inverse the sequential capacity.
    """
    unit_s = statistics.fmean(services.values())  # each kind is equally likely
    measured = {}
    for load, count in counts.items():
        trace = draw_typical_trace(load / unit_s, count, services, number=number)
        jobs = draw_jobs(spec, trace.kinds, seed=number)
        arrivals = [Arrival(at, job) for at, job in zip(trace.moments, jobs, strict=True)]
        by_policy = {FIFO: trace.fifo(services)}
        if run_static is not None:
            by_policy[STATIC] = run_static(arrivals)
        by_policy[ENGINE] = run_engine(arrivals)
        for policy, latencies in by_policy.items():
            measured[load, policy] = Latency.of(latencies, unit_s)
    return measured
