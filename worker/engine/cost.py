"""What a forward costs: milliseconds for each key and row count, learned while it runs."""

import statistics
import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

#: Least that a forward takes, in milliseconds, where a clock is too coarse to see it.
MIN_MS = 0.001
#: Weight of an observation once a row count is known.
EWMA_WEIGHT = 0.1
#: An observation further off than this many times counts as that many times: a hiccup.
OUTLIER_RATIO = 2.0
#: Observations whose median starts an average.
MEDIAN_OF = 3
#: The row cap is the fewest rows that reach this share of the best throughput.
KNEE_SHARE = 0.93
#: Least ratio of the best throughput to that of one job for which jobs share a forward.
MIN_GAIN = 1.15
#: Forwards above the knee after which the curve is believed.
TRIES = 6
#: Forwards after which what lies above the knee is tried again: the device may have changed.
STALE_AFTER = 1000


@dataclass(frozen=True, slots=True)
class Cost:
    """What is known of one key and row count."""

    key: Hashable
    rows: int
    ms: float
    samples: int


@dataclass(slots=True)
class _Average:
    """A running average that single outliers hardly move."""

    ms: float
    samples: int
    #: When it was last fed, in forwards of its key.
    seen_at: int
    first: list[float] = field(default_factory=list)

    def feed(self, ms: float) -> None:
        self.samples += 1
        if self.samples <= MEDIAN_OF:
            self.first.append(ms)
            self.ms = statistics.median(self.first)
            return
        clipped = min(max(ms, self.ms / OUTLIER_RATIO), self.ms * OUTLIER_RATIO)
        self.ms += EWMA_WEIGHT * (clipped - self.ms)


class _Curve:
    """Milliseconds against rows for one key: more rows never take less time."""

    def __init__(self) -> None:
        self._averages: dict[int, _Average] = {}
        self._fit: list[tuple[int, float]] = []
        self._forwards = 0
        self._tries = 0
        #: What the row cap was last, without trying.
        self._knee = 1

    def observe(self, rows: int, ms: float) -> None:
        ms = max(ms, MIN_MS)
        self._forwards += 1
        average = self._averages.get(rows)
        if average is None or self._forwards - average.seen_at > STALE_AFTER:
            average = self._averages[rows] = _Average(ms, 0, self._forwards)
        average.seen_at = self._forwards
        average.feed(ms)
        self._fit = []
        if rows > self._knee:
            self._tries += 1
        if self._forwards % STALE_AFTER == 0:
            self._tries = 0

    def put(self, rows: int, ms: float, samples: int) -> None:
        self._averages[rows] = _Average(max(ms, MIN_MS), max(samples, MEDIAN_OF), self._forwards)
        self._fit = []
        # One point alone says nothing about what more rows gain.
        self._tries = TRIES if len(self._averages) > 1 else 0

    @property
    def is_trying(self) -> bool:
        return self._tries < TRIES

    def ms(self, rows: int) -> float:
        """Interpolate; outside of what was measured, time is in proportion to rows."""
        points = self._points()
        (low, ms_low), (high, ms_high) = points[0], points[-1]
        if rows <= low:
            return ms_low * rows / low
        if rows >= high:
            return ms_high * rows / high
        for right, ms_right in points[1:]:
            if rows <= right:
                return ms_low + (ms_right - ms_low) * (rows - low) / (right - low)
            low, ms_low = right, ms_right
        raise AssertionError("rows lie between the first and the last point")

    def best(self, max_rows: int) -> float:
        """Return the best throughput up to a row count, in rows per millisecond.

        Between two points throughput rises or falls throughout, so the best is at one of them.
        """
        counts = {max_rows} | {rows for rows, _ in self._points() if rows <= max_rows}
        return max(rows / self.ms(rows) for rows in counts)

    def knee(self, max_rows: int) -> int:
        enough = KNEE_SHARE * self.best(max_rows)
        self._knee = next(rows for rows in range(1, max_rows + 1) if rows / self.ms(rows) >= enough)
        return self._knee

    def items(self) -> list[tuple[int, float, int]]:
        return [(rows, average.ms, average.samples) for rows, average in self._averages.items()]

    def _points(self) -> list[tuple[int, float]]:
        if not self._fit:
            self._fit = _fit_monotone(
                {rows: (a.ms, min(a.samples, 10)) for rows, a in self._averages.items()}
            )
        return self._fit


def _fit_monotone(measured: Mapping[int, tuple[float, int]]) -> list[tuple[int, float]]:
    """Make times that never fall with rows, by pooling neighbors that violate it.

    Args:
        measured: Milliseconds and weight of each row count.

    Source: Ayer et al. (1955), the pool-adjacent-violators algorithm.
    """
    pools: list[tuple[list[int], float, int]] = []
    for rows in sorted(measured):
        counts, (ms, weight) = [rows], measured[rows]
        while pools and pools[-1][1] > ms:
            below, ms_below, weight_below = pools.pop()
            ms = (ms * weight + ms_below * weight_below) / (weight + weight_below)
            counts, weight = below + counts, weight + weight_below
        pools.append((counts, ms, weight))
    return [(rows, ms) for counts, ms, _ in pools for rows in counts]


class CostModel:
    """A table of milliseconds for each key and row count; any thread may use it.

    A key that nothing is known of is tried with as many rows as are allowed, and again now and
    then: only a measured curve can say that fewer do as well.
    """

    def __init__(self) -> None:
        self._curves: dict[Hashable, _Curve] = {}
        self._lock = threading.Lock()

    def observe(self, key: Hashable, rows: int, ms: float) -> None:
        """Learn from a forward."""
        with self._lock:
            self._curves.setdefault(key, _Curve()).observe(rows, ms)

    def load(self, costs: Iterable[Cost]) -> None:
        """Start from what was measured before: by a probe, or by another worker."""
        with self._lock:
            for cost in costs:
                curve = self._curves.setdefault(cost.key, _Curve())
                curve.put(cost.rows, cost.ms, cost.samples)

    def table(self) -> list[Cost]:
        """Return all that is known."""
        with self._lock:
            return [
                Cost(key, *item) for key, curve in self._curves.items() for item in curve.items()
            ]

    def predict_ms(self, key: Hashable, rows: int) -> float | None:
        """Predict the time of a forward; None if the key is unknown."""
        with self._lock:
            curve = self._curves.get(key)
            return None if curve is None else curve.ms(rows)

    def row_cap(self, key: Hashable, *, job_rows: int, max_rows: int) -> int:
        """Return how many rows a forward may have: those of whole jobs up to the curve's knee."""
        with self._lock:
            curve = self._curves.get(key)
            if curve is None:
                return max_rows
            knee = curve.knee(max_rows)
            return max_rows if curve.is_trying else min(-(-knee // job_rows) * job_rows, max_rows)

    def gains_from_batching(self, key: Hashable, *, job_rows: int, max_rows: int) -> bool:
        """Tell whether jobs of some rows get through faster together than one after the other."""
        with self._lock:
            curve = self._curves.get(key)
            if curve is None or curve.is_trying:
                return True
            return curve.best(max_rows) * curve.ms(job_rows) / job_rows >= MIN_GAIN
