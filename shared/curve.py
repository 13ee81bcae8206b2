"""What work takes by its amount: a curve through measured points, and where it bends."""

from collections.abc import Mapping

#: The knee is at the fewest rows that reach this share of the best throughput.
KNEE_SHARE = 0.98
#: Least ratio of the best throughput to that of one job for which jobs share a forward.
MIN_GAIN = 1.15


class Curve:
    """Milliseconds against an amount, mostly rows of a forward: more never takes less time."""

    def __init__(self, measured: Mapping[int, tuple[float, float]]) -> None:
        """`measured` holds milliseconds and weight of each amount, of one at least."""
        self._points = _fit_monotone(measured)

    def ms(self, amount: int) -> float:
        """Interpolate; outside of what was measured, time is in proportion to the amount."""
        (low, ms_low), (high, ms_high) = self._points[0], self._points[-1]
        if amount <= low:
            return ms_low * amount / low
        if amount >= high:
            return ms_high * amount / high
        for right, ms_right in self._points[1:]:
            if amount <= right:
                return ms_low + (ms_right - ms_low) * (amount - low) / (right - low)
            low, ms_low = right, ms_right
        raise AssertionError("the amount lies between the first and the last point")

    def best(self, max_rows: int) -> float:
        """Return the best throughput up to a row count, in rows per millisecond.

        Between two points throughput rises or falls throughout, so the best is at one of them.
        """
        counts = {max_rows} | {rows for rows, _ in self._points if rows <= max_rows}
        return max(rows / self.ms(rows) for rows in counts)

    def knee(self, max_rows: int) -> int:
        """Return the fewest rows whose throughput is nearly the best."""
        enough = KNEE_SHARE * self.best(max_rows)
        return next(rows for rows in range(1, max_rows + 1) if rows / self.ms(rows) >= enough)

    def gains_from_batching(self, *, job_rows: int, max_rows: int) -> bool:
        """Tell whether jobs of some rows get through faster together than one after the other."""
        return self.best(max_rows) * self.ms(job_rows) / job_rows >= MIN_GAIN


def cap_rows(knee: int, *, job_rows: int, max_rows: int) -> int:
    """Return the most rows of a forward: those of whole jobs up to the knee."""
    return min(-(-knee // job_rows) * job_rows, max_rows)


def _fit_monotone(measured: Mapping[int, tuple[float, float]]) -> list[tuple[int, float]]:
    """Make times that never fall with the amount, by pooling neighbors that violate it.

    Source: Ayer et al. (1955), the pool-adjacent-violators algorithm.
    """
    pools: list[tuple[list[int], float, float]] = []
    for amount in sorted(measured):
        amounts, (ms, weight) = [amount], measured[amount]
        while pools and pools[-1][1] > ms:
            below, ms_below, weight_below = pools.pop()
            ms = (ms * weight + ms_below * weight_below) / (weight + weight_below)
            amounts, weight = below + amounts, weight + weight_below
        pools.append((amounts, ms, weight))
    return [(amount, ms) for amounts, ms, _ in pools for amount in amounts]
