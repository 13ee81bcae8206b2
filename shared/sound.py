"""What sounds a model makes."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoundSpec:
    """Rate, duration and latents of a model's sounds."""

    #: In samples a second.
    sample_rate: int
    #: Of a sound for which nobody said how long it shall be.
    duration_s: float
    min_duration_s: float
    max_duration_s: float
    #: Samples for each cell of its latents, along time.
    hop: int
    #: Cells of its latents across time, such as bands of frequencies.
    bands: int = 1
    #: Cells along time of the latents of every sound; None if they are as many as it needs.
    length: int | None = None

    def cells(self, duration_s: float) -> int:
        """Count the cells of the latents of a sound."""
        if self.length is not None:
            return self.bands * self.length
        # Rounded first: a whole number of cells shall not be one more by a last bit.
        return self.bands * math.ceil(round(duration_s * self.sample_rate / self.hop, 6))

    def seconds(self, num_cells: int) -> float:
        """Tell how long a sound is whose latents have so many cells along time."""
        return num_cells * self.hop / self.sample_rate
