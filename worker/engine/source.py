"""The picture that a job starts from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A picture of the job's size, and which part of it shall change."""

    pixels: NDArray[np.uint8]  # [H, W, 3]
    #: 1 where the picture is made anew, 0 where it stays; None makes all of it anew.
    mask: NDArray[np.float32] | None = None  # [H, W]
