"""Noise as EDM adds it, and what the denoiser predicts of it.

Source: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (2022); the
velocity as prediction: Salimans and Ho (2022). Both as diffusers' EDM schedulers have them.
"""

import math
from typing import Any

import torch
from torch import Tensor

#: What the scheduler in the model's folder is made with: latents of deviation 1.
TRAINING_SCHEDULE: dict[str, Any] = {
    "sigma_min": 0.03,
    "sigma_max": 40.0,
    "sigma_data": 1.0,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "prediction_type": "v_prediction",
}
#: Half of the noise levels are spread around the one at which it is decided what is heard when.
MIDDLE, SPREAD = math.log(2.0), 1.2


def draw_sigmas(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels, [B]: even ones from the whole range, odd ones around its middle."""
    low, high = (math.log(TRAINING_SCHEDULE[name]) for name in ("sigma_min", "sigma_max"))
    anywhere = low + (high - low) * torch.rand(count, generator=generator)
    middle = MIDDLE + SPREAD * torch.randn(count, generator=generator)
    levels = torch.where(torch.arange(count) % 2 == 0, anywhere, middle.clamp(low, high))
    return levels.exp()


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the denoiser's input [B, C, T], its timesteps [B], and what it has to predict."""
    sigma = sigmas[:, None, None]
    signal = (1 + sigma**2).rsqrt()
    inputs = signal * (latents + sigma * noise)
    velocity = signal * (noise - sigma * latents)
    return inputs, sigmas.log() / 4, velocity
