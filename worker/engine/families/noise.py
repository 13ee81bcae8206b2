"""What pictures begin with."""

import torch
from torch import Tensor

from shared.catalog import ModelSpec
from worker.engine.families.picture_codec import LATENTS


def draw_noise(
    spec: ModelSpec,
    channels: int,
    size: tuple[int, int],
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Draw unit noise [1, C, h, w] of a width and height in pixels, on the generator's device."""
    width, height = (side // spec.latent_factor for side in size)
    shape = (1, channels, height, width)
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=LATENTS)
    return noise.to(device)
