"""Noised latents, and how a prediction of their velocity is graded."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Loss weight min(snr + 1, this) / (snr + 1): the common min(snr, 5) starves the noisy steps, at
#: which layout and objects are decided.
SNR_LIMIT = 10.0

#: A diffusers scheduler, which only adds noise here.
Scheduler = Any


@dataclass(frozen=True, slots=True)
class Noised:
    """Latents with noise, and what of them a denoiser shall predict."""

    latents: Tensor  # [B, C, h, w]
    timesteps: Tensor  # [B]
    velocity: Tensor  # [B, C, h, w]
    alpha_bar: Tensor  # [B]

    def grade(
        self, prediction: Tensor, layouts: Tensor, *, object_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted and the plain squared error of a prediction [B, C, h, w].

        The cells of objects in `layouts` [B, 2, 8, 8] weigh more, the less noise there is.
        """
        snr = self.alpha_bar / (1 - self.alpha_bar)
        errors = (prediction - self.velocity).square().mean(dim=1)  # [B, h, w]
        weights = (snr + 1).clamp(max=SNR_LIMIT) / (snr + 1)
        covered = (layouts[:, :1] > 0).float()
        covered = nn.functional.interpolate(covered, size=errors.shape[1:])[:, 0]
        weights = weights[:, None, None] * (
            1 + object_weight * self.alpha_bar[:, None, None] * covered
        )
        return (weights * errors).mean(), errors.mean()


def add_noise(
    noising: Scheduler, latents: Tensor, middle: tuple[int, int], generator: torch.Generator
) -> Noised:
    """Noise latents [B, C, h, w], half of them at timesteps of a range, the others at any."""
    count = len(latents)
    everywhere = torch.randint(0, noising.config.num_train_timesteps, (count,), generator=generator)
    chosen = torch.randint(*middle, (count,), generator=generator)
    timesteps = torch.where(torch.arange(count) % 2 == 0, everywhere, chosen)
    noise = torch.randn(latents.shape, generator=generator)
    return Noised(
        latents=noising.add_noise(latents, noise, timesteps),
        timesteps=timesteps,
        velocity=noising.get_velocity(latents, noise, timesteps),
        alpha_bar=noising.alphas_cumprod[timesteps],
    )
