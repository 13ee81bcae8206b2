"""How long jobs take from arrival to picture, by policy and load."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.arrivals import VirtualClock, poisson_arrivals
from bench.policies import Arrival, pick_equals, pick_first, serve_engine, serve_groups
from bench.stock import StockPipeline
from shared.request import GenerationRequest
from worker.engine import Engine

#: Of what one job at a time can sustain.
LOADS = (0.5, 0.8, 1.2, 2.0)
FIFO, STATIC, ENGINE = "FIFO", "static", "engine"
POLICIES = (FIFO, STATIC, ENGINE)


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of a trace of jobs, in mean times of one job alone."""

    mean: float
    p95: float

    @classmethod
    def of(cls, latencies: Sequence[float], unit_s: float) -> "Latency":
        """Sum up seconds."""
        ranked = sorted(latencies)
        p95 = ranked[math.ceil(0.95 * len(ranked)) - 1]
        return cls(statistics.fmean(latencies) / unit_s, p95 / unit_s)


#: By load and policy; a policy that was left out is missing.
Round = dict[tuple[float, str], Latency]


def measure_round(
    jobs: Sequence[GenerationRequest],
    engine: Engine,
    stock: StockPipeline,
    *,
    max_rows: int,
    seed: int,
    with_static: bool,
) -> Round:
    """Serve the same jobs, arriving at the same moments, by each policy at each load.

    FIFO serves each job in the time it took alone, whatever the load, so its jobs are run once. The
    mean of these times is the unit, and its inverse the sequential capacity.
    """
    services = [_measure_service(job, stock) for job in jobs]
    unit_s = statistics.fmean(services)
    measured = {}
    for load in LOADS:
        moments = poisson_arrivals(load / unit_s, len(jobs), seed=seed)
        arrivals = [Arrival(at, job) for at, job in zip(moments, jobs, strict=True)]
        by_policy = {FIFO: fifo_latencies(arrivals, services)}
        if with_static:
            by_policy[STATIC] = serve_groups(
                arrivals,
                lambda waiting: pick_equals(waiting, max_rows=max_rows),
                stock.run,
                VirtualClock(),
            )
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


def _measure_service(job: GenerationRequest, stock: StockPipeline) -> float:
    start = time.process_time()
    stock.run([job])
    return time.process_time() - start
