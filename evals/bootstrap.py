"""Intervals of figures that are no shares of cases: draw the measured cases again, many times."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ROUNDS = 2000
#: Percentiles that a 95 % interval lies between.
ENDS = (2.5, 97.5)


def find_interval(
    statistic: Callable[[NDArray[np.intp]], float], count: int, *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of `count` cases. Source: Efron (1979).

    `statistic` is told the numbers of the cases that were drawn, some more than once, as often as
    there are cases: what was measured on the same cases stays together.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(count, size=count)) for _ in range(ROUNDS)]
    low, high = np.percentile(values, ENDS)
    return float(low), float(high)


def show(figure: float, interval: tuple[float, float], form: str) -> str:
    """Write a figure with its interval."""
    low, high = interval
    return f"{figure:{form}} ({low:{form}} to {high:{form}})"
