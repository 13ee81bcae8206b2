"""Train the autoencoder: 64x64 pixels to 16x16x4 latents and back."""

import math
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from models.train import checkpoint
from models.train.journal import Journal
from models.train.parallel import Rank, run_parallel
from models.train.precision import autocast
from models.train.render import render
from models.train.world import SIDE, Scene, draw_scene

#: Pixels per latent cell, along each side.
FACTOR = 4
LATENT_CHANNELS = 4
CROP = 32
#: One step in so many sees whole pictures, the others crops around an object: four times cheaper.
WHOLE_EVERY = 3
#: Noise on the latents in training instead of a KL term, which lets channels die.
LATENT_NOISE = 0.05
#: Weights of the loss beside the squared error.
L1_WEIGHT, GRADIENT_WEIGHT, WHITENESS_WEIGHT = 0.15, 0.5, 0.002
CLIP_NORM = 1.0
#: Scenes whose latents are measured to make the final latents white.
NUM_WHITENED = 256
CHECKPOINT_EVERY = 200


#: An AutoencoderKL; diffusers types its attributes as little as it can.
Vae = Any


@dataclass(frozen=True, slots=True)
class VaeTraining:
    """How long and how; sizes are those of one process."""

    steps: int
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup: int = 100
    two_objects: float = 0.4
    seed: int = 0


def make_vae() -> Vae:
    """Build the autoencoder, untrained.

    One group in each norm: several would erase what distinguishes flat colors.
    """
    return AutoencoderKL(  # type: ignore[no-untyped-call]
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=SIDE,
        scaling_factor=1.0,
        force_upcast=False,
    )


def train_vae(folder: Path, training: VaeTraining, *, processes: int) -> Vae:
    """Train, or go on with a training that was stopped, and return the autoencoder, whitened."""
    run_parallel(partial(_train, folder, training), processes=processes)
    vae = make_vae()
    checkpoint.load(folder / "vae.safetensors", {"vae": vae})
    vae.requires_grad_(False).eval()
    whiten(vae, seed=training.seed)
    return vae


def to_tensor(scenes: list[Scene]) -> Tensor:
    """Draw scenes; returns [B, 3, SIDE, SIDE] in -1 to 1."""
    pixels = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Turn images [B, 3, H, W] in -1 to 1 into levels [B, H, W, 3]."""
    levels: NDArray[np.uint8] = (
        ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    )
    return levels


def _train(folder: Path, training: VaeTraining, rank: Rank) -> None:
    torch.manual_seed(training.seed)
    vae = make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=training.learning_rate, betas=(0.9, 0.99))
    path = folder / "vae.safetensors"
    journal = Journal(folder / "vae.csv", every=50)
    for step in range(checkpoint.load(path, {"vae": vae}, optimizer) + 1, training.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _rate(step, training)
        images = _draw_batch(training, step, rank)
        losses = _losses(vae, images, step, rank)
        rank.descend(losses["loss"], list(vae.parameters()), optimizer, clip_norm=CLIP_NORM)
        if rank.is_first:
            values = {name: value.item() for name, value in losses.items()}
            journal.note(step, values, samples=len(images) * rank.count)
            if step % CHECKPOINT_EVERY == 0 or step == training.steps:
                checkpoint.save(path, step, {"vae": vae}, optimizer)


def _rate(step: int, training: VaeTraining) -> float:
    """Warm up, then follow a cosine down to a hundredth."""
    progress = step / training.steps
    return min(step / training.warmup, 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def _draw_batch(training: VaeTraining, step: int, rank: Rank) -> Tensor:
    # A function of the step: a training that was stopped sees the same data as one that was not.
    rng = random.Random(f"vae {training.seed} {rank.index} {step}")  # noqa: S311
    if step % WHOLE_EVERY == 0:
        scenes = [_draw(rng, training) for _ in range(training.batch_size // 2)]
        return to_tensor(scenes)
    scenes = [_draw(rng, training) for _ in range(training.batch_size)]
    images = to_tensor(scenes)
    crops = []
    for scene, image in zip(scenes, images, strict=True):
        thing = rng.choice(scene.objects)
        left, top = (
            min(max(center - CROP // 2 + rng.randint(-8, 8), 0), SIDE - CROP)
            for center in (thing.x, thing.y)
        )
        crops.append(image[:, top : top + CROP, left : left + CROP])
    return torch.stack(crops)


def _draw(rng: random.Random, training: VaeTraining) -> Scene:
    return draw_scene(rng, two_objects=training.two_objects)


def _losses(vae: Vae, images: Tensor, step: int, rank: Rank) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step * rank.count + rank.index)
    with autocast():
        means = vae.encode(images).latent_dist.mean.float()
        noise = torch.randn(means.shape, generator=generator)
        decoded = vae.decode(means + LATENT_NOISE * noise).sample.float()
    squared = mse_loss(decoded, images)
    edges = sum(mse_loss(decoded.diff(dim=axis), images.diff(dim=axis)) for axis in (-1, -2))
    flat = means.permute(1, 0, 2, 3).flatten(1)
    covariance = torch.cov(flat)
    whiteness = (covariance - torch.eye(len(covariance))).square().sum()
    whiteness = whiteness + flat.mean(dim=1).square().sum()
    loss = (
        squared
        + L1_WEIGHT * l1_loss(decoded, images)
        + GRADIENT_WEIGHT * edges
        + WHITENESS_WEIGHT * whiteness
    )
    # Pixels span 2, from -1 to 1.
    return {"loss": loss, "psnr_db": 10 * torch.log10(4 / squared), "whiteness": whiteness}


@torch.no_grad()
def whiten(vae: Vae, *, seed: int) -> None:
    """Give the latents mean 0 and covariance I by changing the two 1x1 convolutions around them.

    The pictures stay the same, and the scaling factor is 1.
    """
    rng = random.Random(f"whiten {seed}")  # noqa: S311
    latents = torch.cat(
        [
            vae.encode(to_tensor([draw_scene(rng, two_objects=0.4) for _ in range(64)]))
            .latent_dist.mean.permute(1, 0, 2, 3)
            .flatten(1)
            for _ in range(NUM_WHITENED // 64)
        ],
        dim=1,
    ).double()
    mean = latents.mean(dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(latents))
    whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    coloring = vectors @ torch.diag(values.sqrt()) @ vectors.T

    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight, bias = quant.weight[:channels, :, 0, 0].double(), quant.bias[:channels].double()
    quant.weight[:channels, :, 0, 0] = (whitening @ weight).float()
    quant.bias[:channels] = (whitening @ (bias - mean)).float()
    weight = post.weight[:, :, 0, 0].double()
    post.bias += (weight @ mean).float()
    post.weight[:, :, 0, 0] = (weight @ coloring).float()
    # The other half of the encoder's output is a variance that nobody draws from.
    quant.weight[channels:] = 0
    quant.bias[channels:] = 2 * math.log(LATENT_NOISE)
