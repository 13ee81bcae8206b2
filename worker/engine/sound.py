"""A sound as a decoder makes it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples [channels, N], where -1 to 1 is full scale, and how many of them are a second."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return int(self.samples.shape[1]) / self.sample_rate

    def cut(self, duration_s: float) -> "Sound":
        """Return its beginning, as long as this: a family may make more than was asked for."""
        # As diffusers' audio pipelines count them.
        return Sound(self.samples[:, : int(duration_s * self.sample_rate)], self.sample_rate)
