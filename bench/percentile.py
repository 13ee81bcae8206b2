"""What most of many measurements do not exceed."""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least of the values that this share of them does not exceed (nearest rank)."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
