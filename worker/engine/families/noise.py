"""What pictures begin with."""

import torch
from torch import Tensor

from worker.engine.families.picture_codec import LATENTS


def draw_noise(
    channels: int,
    *,
    width: int,
    height: int,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Draw unit noise [1, C, h, w] of a size in latent cells, on the generator's device."""
    shape = (1, channels, height, width)
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=LATENTS)
    return noise.to(device)
