"""When jobs come, and a clock on which nobody has to wait for them."""

import itertools
import random
import time
from collections.abc import Callable


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
