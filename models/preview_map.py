"""What a model's latents look like without its decoder: a linear map from channels to colors."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: The fit of a model, in its folder; made by `python -m models.fit_preview`.
FILE_NAME = "preview.json"


@dataclass(frozen=True, slots=True)
class PreviewMap:
    """One color for each latent cell: weighted channels plus a bias, 0 to 1."""

    weights: tuple[tuple[float, float, float], ...]  # [C, 3]
    bias: tuple[float, float, float]
    #: Root mean squared difference from what the decoder makes of a cell, in levels of 255.
    rms_error: float

    def apply(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Color latents [C, h, w]; returns pixels [h, w, 3]."""
        colors = np.tensordot(latents, np.array(self.weights, np.float32), axes=(0, 0))
        colors += np.array(self.bias, np.float32)
        pixels: NDArray[np.uint8] = np.rint(255 * colors.clip(0, 1)).astype(np.uint8)
        return pixels

    def save(self, folder: Path) -> None:
        """Write it into a model's folder."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_preview_map(folder: Path, *, channels: int) -> PreviewMap | None:
    """Read a model's fit; None where it has none.

    Raises:
        ValueError: The file is not one of a model with so many latent channels.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    try:
        weights = np.array(content["weights"], np.float32)
        bias = np.array(content["bias"], np.float32)
        rms_error = float(content["rms_error"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no fit") from error
    if weights.shape != (channels, 3) or bias.shape != (3,):
        raise ValueError(f"{path} is not the fit of {channels} latent channels")
    return PreviewMap(
        tuple((red, green, blue) for red, green, blue in weights.tolist()),
        tuple(bias.tolist()),
        rms_error,
    )
