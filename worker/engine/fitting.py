"""Find the largest picture that fits where one did not."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

from torch import Tensor

from shared.catalog import ModelSpec
from worker.engine.fault import release_memory


class Size(NamedTuple):
    """A picture's size, in pixels or in latent cells."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def of(cls, latents: Tensor) -> Self:
        """Return the size of latents [B, C, h, w], in cells."""
        height, width = latents.shape[2:]
        return cls(width, height)


def find_largest(size: Size, fits: Callable[[Size], bool]) -> Size | None:
    """Find the largest size of about the same shape, below a size that does not fit.

    Sizes are in latent cells. It asks for at most as many sizes as the longer side has binary
    digits; None if not even the smallest fits.
    """
    side = max(size)
    fitting, failing = 0, side
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        if fits(_scale(size, middle, side)):
            fitting = middle
        else:
            failing = middle
    return _scale(size, fitting, side) if fitting else None


def advise_size(
    spec: ModelSpec, size: Size, call: Callable[[Size], object], *, where: str = ""
) -> str:
    """Say that a size does not fit, and which would: `call` does with another what failed.

    Sizes are in latent cells; `where` says what ran out of memory, if the sentence shall.
    """
    largest = find_largest(size, partial(_does_fit, call))
    words = ["the device has too little memory for", f"{_pixels(size, spec)} pixels", where]
    if largest is None:
        words.append("and for any smaller size")
    else:
        words.append(f"and has enough for {_pixels(largest, spec)}")
    return " ".join(word for word in words if word)


def _does_fit(call: Callable[[Size], object], size: Size) -> bool:
    try:
        call(size)
    except Exception as error:
        # A size that fails for another reason would not serve the caller either.
        release_memory(error)
        return False
    return True


def _scale(size: Size, numerator: int, denominator: int) -> Size:
    return Size(*(max(side * numerator // denominator, 1) for side in size))


def _pixels(cells: Size, spec: ModelSpec) -> Size:
    return Size(*(side * spec.latent_factor for side in cells))
