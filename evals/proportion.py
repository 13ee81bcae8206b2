"""Shares with the interval that their sample size allows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: Standard errors of a 95 % interval.
Z = 1.96


@dataclass(frozen=True, slots=True)
class Proportion:
    """How many of how many."""

    hits: int
    count: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> "Proportion":
        """Count outcomes."""
        values = list(outcomes)
        return cls(sum(values), len(values))

    @property
    def share(self) -> float:
        """From 0 to 1; 0 of nothing."""
        return self.hits / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval. Source: Wilson (1927)."""
        if not self.count:
            return 0.0, 1.0
        n, p = self.count, self.share
        center = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(center - half, 0.0), min(center + half, 1.0)
