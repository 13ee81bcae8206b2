"""`python -m models.fit_preview`: fit the map from a model's latents to colors, for previews.

Pictures are encoded and decoded again by the model's own autoencoder; least squares find the colors
that, cell by cell, come nearest to what it decoded.
"""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from models.preview_map import FILE_NAME, PreviewMap
from models.train.render import render
from models.train.world import draw_scene

#: Scenes of the demo model's world, where no other pictures are given.
NUM_SCENES = 512
#: Side of the squares that other pictures are cut to, in pixels.
CROP = 256
#: Digits of a weight that are written; colors have 8 bits.
DIGITS = 5


def main(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder.")] = Path("models/demo"),
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of pictures; without it, the demo model's scenes.")
    ] = None,
) -> None:
    """Write preview.json into a model's folder."""
    # How sums are split over threads shows in the last digits.
    torch.set_num_threads(1)
    fit = fit_preview(folder, scenes() if pictures is None else read_pictures(pictures))
    fit.save(folder)
    print(f"{folder / FILE_NAME}: {fit.rms_error:.1f} of 255 levels off")  # noqa: T201


def scenes() -> Iterator[NDArray[np.uint8]]:
    """Draw scenes of the demo model's world, [H, W, 3] each and always the same."""
    rng = random.Random("preview")  # noqa: S311 - no secret
    for _ in range(NUM_SCENES):
        yield render(draw_scene(rng, two_objects=0.4))


def read_pictures(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Read the pictures of a folder, cut to squares."""
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            yield np.asarray(ImageOps.fit(image.convert("RGB"), (CROP, CROP)))


@torch.inference_mode()
def fit_preview(folder: Path, pictures: Iterable[NDArray[np.uint8]]) -> PreviewMap:
    """Fit the map of a model; latents are scaled as its denoiser has them."""
    vae: Any = AutoencoderKL.from_pretrained(  # type: ignore[no-untyped-call]
        folder / "vae",
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=False,
    )
    cells = [_encode_and_decode(vae.eval(), pixels) for pixels in pictures]
    latents = torch.cat([latent for latent, _ in cells]).double()  # [N, C]
    colors = torch.cat([color for _, color in cells]).double()  # [N, 3]
    inputs = torch.cat([latents, torch.ones(len(latents), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(inputs, colors).solution.numpy().round(DIGITS)  # [C + 1, 3]
    error = inputs @ torch.from_numpy(solution) - colors
    *weights, bias = [(red, green, blue) for red, green, blue in solution.tolist()]
    return PreviewMap(tuple(weights), bias, round(255 * error.square().mean().sqrt().item(), 2))


def _encode_and_decode(vae: Any, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Return the cells of a picture [H, W, 3]: latents [h w, C] and decoded colors [h w, 3]."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = vae.encode(image).latent_dist.mode()
    decoded = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    colors = torch.nn.functional.adaptive_avg_pool2d(decoded, latents.shape[-2:])
    scaled = vae.config.scaling_factor * latents
    return scaled[0].flatten(1).T, colors[0].flatten(1).T


if __name__ == "__main__":
    typer.run(main)
