"""When which jobs come, and a clock on which nobody has to wait for them."""

import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.mix import KINDS, Kind

#: Traces of which the most typical one is served.
CANDIDATES = 200


@dataclass(frozen=True, slots=True)
class Trace:
    """Kinds of jobs and the moments at which they come, in seconds."""

    moments: Sequence[float]
    kinds: Sequence[Kind]

    def fifo(self, services: Mapping[Kind, float]) -> list[float]:
        """Say how long each job takes if they are served one by one, each in its kind's time."""
        latencies, free_at = [], 0.0
        for moment, kind in zip(self.moments, self.kinds, strict=True):
            free_at = max(free_at, moment) + services[kind]
            latencies.append(free_at - moment)
        return latencies


def draw_trace(rate: float, count: int, *, seed: int) -> Trace:
    """Draw jobs that come at a mean rate per second, each of any kind."""
    rng = random.Random(seed)  # noqa: S311 # the same jobs everywhere
    return Trace(poisson_arrivals(rate, count, seed=seed), rng.choices(KINDS, k=count))


def draw_typical_trace(
    rate: float, count: int, services: Mapping[Kind, float], *, number: int
) -> Trace:
    """Draw many traces, and return the one that is most like all of them to a queue.

    Queues differ much: near its capacity one burst decides what a short trace is about, and no few
    of them can be averaged. Each `number` has candidates of its own.
    """
    seeds = range(CANDIDATES * number, CANDIDATES * (number + 1))
    traces = [draw_trace(rate, count, seed=seed) for seed in seeds]
    means = [statistics.fmean(trace.fifo(services)) for trace in traces]
    typical = statistics.fmean(means)
    return min(zip(traces, means, strict=True), key=lambda one: abs(one[1] - typical))[0]


def poisson_arrivals(rate: float, count: int, *, seed: int) -> list[float]:
    """Draw the moments, in seconds, at which so many jobs come at a mean rate per second."""
    rng = random.Random(seed)  # noqa: S311 # the same arrivals everywhere
    return list(itertools.accumulate(rng.expovariate(rate) for _ in range(count)))


class VirtualClock:
    """CPU time that was used since the start, and the idle time that was skipped.

    It stands still while other programs have the core, so that a busy machine distorts nothing but
    its caches. One thread may skip while no other has work to do.
    """

    def __init__(self, cpu: Callable[[], float] = time.process_time) -> None:
        self._cpu = cpu
        self._start = cpu()
        self._skipped = 0.0

    def now(self) -> float:
        """Return the seconds since the start."""
        return self._cpu() - self._start + self._skipped

    def skip_to(self, moment: float) -> None:
        """Let idle time pass until a moment; one that has passed changes nothing."""
        self._skipped += max(moment - self.now(), 0.0)
