"""How long jobs take from arrival to picture, by policy and load."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.arrivals import VirtualClock, poisson_arrivals
from bench.mix import Kind, kind_of
from bench.policies import Arrival, pick_first, serve_engine, serve_groups
from shared.request import GenerationRequest
from worker.engine import Engine

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
        ranked = sorted(latencies)
        p95 = ranked[math.ceil(0.95 * len(ranked)) - 1]
        return cls(len(ranked), statistics.fmean(ranked) / unit_s, p95 / unit_s)


#: By load and policy; a policy that was left out is missing.
Round = dict[tuple[float, str], Latency]


def measure_services(
    jobs: Sequence[GenerationRequest], run: Callable[[Sequence[GenerationRequest]], None]
) -> dict[Kind, float]:
    """Measure how long a job of each kind takes alone, in CPU seconds."""
    seen: dict[Kind, list[float]] = {}
    for job in jobs:
        start = time.process_time()
        run([job])
        seen.setdefault(kind_of(job), []).append(time.process_time() - start)
    return {kind: statistics.fmean(times) for kind, times in seen.items()}


def measure_round(
    traces: Mapping[float, Sequence[GenerationRequest]],
    services: Mapping[Kind, float],
    engine: Engine,
    *,
    run_static: Serve | None,
    seed: int,
) -> Round:
    """Serve each load's jobs, arriving at the same moments, by each policy.

    FIFO serves a job in the time that its kind takes alone, whatever the load, so its jobs are not
    run once more. The mean of these times is the unit, and its inverse the sequential capacity.
    """
    unit_s = statistics.fmean(services.values())  # a mix holds each kind equally often
    measured = {}
    for load, jobs in traces.items():
        moments = poisson_arrivals(load / unit_s, len(jobs), seed=seed)
        arrivals = [Arrival(at, job) for at, job in zip(moments, jobs, strict=True)]
        by_policy = {FIFO: fifo_latencies(arrivals, [services[kind_of(job)] for job in jobs])}
        if run_static is not None:
            by_policy[STATIC] = run_static(arrivals)
        by_policy[ENGINE] = serve_engine(arrivals, engine, VirtualClock())
        for policy, latencies in by_policy.items():
            measured[load, policy] = Latency.of(latencies, unit_s)
    return measured


def fifo_latencies(arrivals: Sequence[Arrival], services: Sequence[float]) -> list[float]:
    """Say how long each job takes if they are served one by one, each in its own time in s."""
    left = iter(services)
    used = 0.0

    def serve_next(_job: Sequence[GenerationRequest]) -> None:
        nonlocal used
        used += next(left)

    return serve_groups(arrivals, pick_first, serve_next, VirtualClock(lambda: used))
