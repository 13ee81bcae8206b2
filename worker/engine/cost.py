"""What a forward costs: milliseconds for each key and row count, learned while it runs."""

import statistics
import threading
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from shared.curve import Curve, cap_rows

#: Least that a forward takes, in milliseconds, where a clock is too coarse to see it.
MIN_MS = 0.001
#: Weight of an observation once a row count is known.
EWMA_WEIGHT = 0.1
#: An observation further off than this many times counts as that many times: a hiccup.
OUTLIER_RATIO = 2.0
#: Observations whose median starts an average.
MEDIAN_OF = 3
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


class _Averages:
    """What was seen of one key, by rows, and the curve through it."""

    def __init__(self) -> None:
        self._by_rows: dict[int, _Average] = {}
        self._curve: Curve | None = None
        self._forwards = 0
        self._tries = 0
        #: The most rows that came with a table, if throughput rose as far as that.
        self._rises_to: int | None = None
        #: What the row cap was last, without trying.
        self._knee = 1

    def observe(self, rows: int, ms: float) -> None:
        ms = max(ms, MIN_MS)
        self._forwards += 1
        average = self._by_rows.get(rows)
        if average is None or self._forwards - average.seen_at > STALE_AFTER:
            average = self._by_rows[rows] = _Average(ms, 0, self._forwards)
        average.seen_at = self._forwards
        average.feed(ms)
        self._curve = None
        if rows > self._knee:
            self._tries += 1
        if self._forwards % STALE_AFTER == 0:
            self._tries = 0

    def put(self, rows: int, ms: float, samples: int) -> None:
        self._by_rows[rows] = _Average(max(ms, MIN_MS), max(samples, MEDIAN_OF), self._forwards)
        self._curve = None
        most = max(self._by_rows)
        # Where throughput still rises, measurements say nothing about what more rows gain.
        self._rises_to = most if self.curve.knee(most) == most else None
        self._tries = TRIES if self._rises_to is None else 0

    def is_trying(self, max_rows: int) -> bool:
        if self._rises_to is not None and 1 < self._rises_to >= max_rows:
            self._rises_to, self._tries = None, TRIES  # more there cannot be
        return self._tries < TRIES

    @property
    def curve(self) -> Curve:
        if self._curve is None:
            self._curve = Curve(
                {rows: (a.ms, min(a.samples, 10)) for rows, a in self._by_rows.items()}
            )
        return self._curve

    def knee(self, max_rows: int) -> int:
        self._knee = self.curve.knee(max_rows)
        return self._knee

    def items(self) -> list[tuple[int, float, int]]:
        return [(rows, average.ms, average.samples) for rows, average in self._by_rows.items()]


class CostModel:
    """A table of milliseconds for each key and row count; any thread may use it.

    A key that nothing is known of is tried with as many rows as are allowed, and again now and
    then: only a measured curve can say that fewer do as well.
    """

    def __init__(self) -> None:
        self._averages: dict[Hashable, _Averages] = {}
        self._lock = threading.Lock()

    def observe(self, key: Hashable, rows: int, ms: float) -> None:
        """Learn from a forward."""
        with self._lock:
            self._averages.setdefault(key, _Averages()).observe(rows, ms)

    def load(self, costs: Iterable[Cost]) -> None:
        """Start from what was measured before: by a probe, or by another worker."""
        with self._lock:
            for cost in costs:
                averages = self._averages.setdefault(cost.key, _Averages())
                averages.put(cost.rows, cost.ms, cost.samples)

    def table(self) -> list[Cost]:
        """Return all that is known."""
        with self._lock:
            return [
                Cost(key, *item)
                for key, averages in self._averages.items()
                for item in averages.items()
            ]

    def predict_ms(self, key: Hashable, rows: int) -> float | None:
        """Predict the time of a forward; None if the key is unknown."""
        with self._lock:
            averages = self._averages.get(key)
            return None if averages is None else averages.curve.ms(rows)

    def row_cap(self, key: Hashable, *, job_rows: int, max_rows: int) -> int:
        """Return how many rows a forward may have: those of whole jobs up to the curve's knee."""
        with self._lock:
            averages = self._averages.get(key)
            if averages is None:
                return max_rows
            knee = averages.knee(max_rows)
            if averages.is_trying(max_rows):
                return max_rows
            return cap_rows(knee, job_rows=job_rows, max_rows=max_rows)

    def gains_from_batching(self, key: Hashable, *, job_rows: int, max_rows: int) -> bool:
        """Tell whether jobs of some rows get through faster together than one after the other."""
        with self._lock:
            averages = self._averages.get(key)
            if averages is None or averages.is_trying(max_rows):
                return True
            return averages.curve.gains_from_batching(job_rows=job_rows, max_rows=max_rows)
