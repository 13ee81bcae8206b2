"""What a forward costs by its rows: what batching could gain at most."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from shared.curve import Curve
from worker.engine.conditioning import repeat
from worker.engine.device import synchronize
from worker.engine.families.family import Family

#: Any training timestep costs the same.
TIMESTEP = 500.0


@dataclass(frozen=True, slots=True)
class BatchCurve:
    """Seconds of one forward, by its rows: of the CPU, where that is the device."""

    seconds: Mapping[int, float]

    def predict_s(self, rows: int) -> float:
        """Interpolate; beyond what was measured, time is in proportion to the rows."""
        return Curve({size: (s, 1.0) for size, s in self.seconds.items()}).ms(rows)

    def faster(self, factor: float) -> "BatchCurve":
        """Return the curve of a device that is so many times as fast."""
        return BatchCurve({size: s / factor for size, s in self.seconds.items()})

    @property
    def best_rate(self) -> float:
        """Most rows per second, of any number of rows that was measured."""
        return max(rows / seconds for rows, seconds in self.seconds.items())

    @property
    def gain(self) -> float:
        """How many times the rows per second of a row alone."""
        return self.best_rate * self.seconds[1]


def measure_curve(
    family: Family,
    sizes: Sequence[int],
    *,
    repeats: int,
    clock: Callable[[], float] = time.thread_time,
) -> BatchCurve:
    """Time forwards of each size by turns, from an idle device to its end; takes the medians."""
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    with torch.inference_mode():
        noise, conditioning = family.example()
        for turn in range(repeats + 1):
            for size in sizes:
                latents, timesteps = torch.cat([noise] * size), torch.full((size,), TIMESTEP)
                rows = repeat(conditioning, size)
                synchronize(family.device)
                start = clock()
                family.predict(latents, timesteps, rows)
                synchronize(family.device)
                if turn > 0:  # the first of a size sets its kernels up
                    samples[size].append(clock() - start)
    return BatchCurve({size: statistics.median(times) for size, times in samples.items()})
