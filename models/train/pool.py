"""Latents of scenes, ever new: a pool that some fresh ones join at every step."""

import random
from collections import deque

import torch
from torch import Tensor

from models.train.vae import Vae, to_tensor
from models.train.world import Caption, Scene, draw_caption, draw_scene

#: Latents that are kept; the oldest leave.
CAPACITY = 40_000


class LatentPool:
    """Encoded scenes to draw batches from. A caption is drawn anew each time."""

    def __init__(self, vae: Vae) -> None:
        self._vae = vae
        self._entries: deque[tuple[Scene, Tensor]] = deque(maxlen=CAPACITY)

    def refresh(self, rng: random.Random, count: int, *, two_objects: float) -> None:
        """Draw and encode some new scenes, a share of them with two objects."""
        scenes = [draw_scene(rng, two_objects=two_objects) for _ in range(count)]
        with torch.no_grad():
            latents = self._vae.encode(to_tensor(scenes)).latent_dist.mean
        self._entries.extend(zip(scenes, latents, strict=True))

    def sample(self, rng: random.Random, count: int) -> tuple[list[Caption], Tensor]:
        """Draw a batch: captions, and latents [B, 4, 16, 16]."""
        picked = [rng.choice(self._entries) for _ in range(count)]
        captions = [draw_caption(rng, scene) for scene, _ in picked]
        return captions, torch.stack([latents for _, latents in picked])
