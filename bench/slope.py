"""Whether a figure grows: a line through its samples, with the error of its slope."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Standard errors by which a slope may differ from zero and still be none.
NUM_ERRORS = 3.0
#: A line takes two samples of its own, and its error at least one more.
MIN_INDEPENDENT = 3.0


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per unit of x, and its standard error."""

    value: float
    error: float

    def is_growth(self, *, tolerance: float) -> bool:
        """Tell whether it is above zero by more than its noise, and by enough to matter.

        Memory moves in steps of pages and arenas: a run that is flat but for one step late in it
        has a slope, so growth up to `tolerance` is none.
        """
        return self.value > max(NUM_ERRORS * self.error, tolerance)


def fit_slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Fit a line by least squares.

    Neighbours are alike where a figure moves in steps, so the error counts only as many samples as
    the correlation of neighbours leaves independent. Source: Santer et al. (2000), "Statistical
    significance of trends and trend differences", the adjusted standard error.

    Raises:
        ValueError: There are fewer than four samples.
    """
    if len(x) < 4:
        raise ValueError("a slope and its error take four samples")
    mean = statistics.fmean(x)
    spread = sum((value - mean) ** 2 for value in x)
    slope, intercept = statistics.linear_regression(x, y)
    residuals = [right - slope * left - intercept for left, right in zip(x, y, strict=True)]
    squares = sum(residual**2 for residual in residuals)
    if squares == 0:
        return Slope(slope, 0.0)
    alike = sum(a * b for a, b in itertools.pairwise(residuals)) / squares
    alike = max(alike, 0.0)
    independent = max(len(x) * (1 - alike) / (1 + alike), MIN_INDEPENDENT)
    return Slope(slope, math.sqrt(squares / (independent - 2) / spread))
