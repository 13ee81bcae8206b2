"""Find the largest picture, or the longest sound, that fits where one did not."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.catalog import ModelSpec
from worker.engine.fault import release_memory


class Size(NamedTuple):
    """A picture's size, in pixels or in latent cells; a sound has a width alone."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


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
    spec: ModelSpec,
    shape: Sequence[int],
    call: Callable[[tuple[int, ...]], object],
    *,
    where: str = "",
) -> str:
    """Say that latents [B, C, *shape] do not fit, and which would.

    `call` does with another shape what failed; `where` says what ran out of memory, if the sentence
    shall. Of a picture both sides are made smaller, of a sound the first, which is time.
    """
    if spec.sound is None:
        height, width = shape
        asked = Size(width, height)
        largest = find_largest(asked, lambda size: _does_fit(call, (size.height, size.width)))
        smaller = "and for any smaller size"
    else:
        length, *others = shape
        asked, largest = Size(length, 1), None
        if spec.sound.length is None:
            largest = find_largest(asked, lambda size: _does_fit(call, (size.width, *others)))
        smaller = "and for any shorter sound"
    unit = "pixels" if spec.sound is None else "seconds"
    words = ["the device has too little memory for", _amount(asked, spec), unit, where]
    words.append(smaller if largest is None else f"and has enough for {_amount(largest, spec)}")
    return " ".join(word for word in words if word)


def _does_fit(call: Callable[[tuple[int, ...]], object], shape: tuple[int, ...]) -> bool:
    try:
        call(shape)
    except Exception as error:
        # A size that fails for another reason would not serve the caller either.
        release_memory(error)
        return False
    return True


def _scale(size: Size, numerator: int, denominator: int) -> Size:
    return Size(*(max(side * numerator // denominator, 1) for side in size))


def _amount(cells: Size, spec: ModelSpec) -> str:
    """Write cells in pixels, or in seconds."""
    if spec.sound is not None:
        return f"{spec.sound.seconds(cells.width):g}"
    return str(Size(*(side * spec.latent_factor for side in cells)))
