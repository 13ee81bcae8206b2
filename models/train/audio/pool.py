"""Latents of sounds, ever new: a pool that some fresh ones join at every step."""

import random
from collections import deque

import torch
from torch import Tensor

from models.train.audio.autoencoder import Autoencoder, to_tensor
from models.train.audio.sounds import Sound, draw_sound

#: Latents that are kept; the oldest leave.
CAPACITY = 40_000


class LatentPool:
    """Encoded sounds to draw batches from."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        self._autoencoder = autoencoder
        self._entries: deque[tuple[Sound, Tensor]] = deque(maxlen=CAPACITY)

    def refresh(self, rng: random.Random, count: int, *, two_phrases: float) -> None:
        """Draw and encode some new sounds, a share of them with two phrases."""
        sounds = [draw_sound(rng, two_phrases=two_phrases) for _ in range(count)]
        with torch.no_grad():
            latents = self._autoencoder.encode(to_tensor(sounds)).latent_dist.mean
        self._entries.extend(zip(sounds, latents, strict=True))

    def sample(self, rng: random.Random, count: int) -> tuple[list[Sound], Tensor]:
        """Draw a batch: sounds, and latents [B, CHANNELS, NUM_TICKS]."""
        picked = [rng.choice(self._entries) for _ in range(count)]
        return [sound for sound, _ in picked], torch.stack([latents for _, latents in picked])
