"""Train the autoencoder: 16,000 samples to 80 frames of latents and back."""

import math
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from torch import Tensor

from models.train import checkpoint
from models.train.audio.rendering import render
from models.train.audio.sounds import NUM_TICKS, SAMPLING_RATE, TICK, Sound, draw_sound
from models.train.audio.spectra import compare_spectra
from models.train.audio.timeline import TimelineHead, map_timeline
from models.train.journal import Journal
from models.train.parallel import Rank, run_parallel

#: Numbers in a frame of latents.
CHANNELS = 12
#: Ticks that a step sees of a recording: what is around one of its sounds.
CROP_TICKS = 16
#: Noise on the latents in training instead of a KL term, which lets channels die.
LATENT_NOISE = 0.1
#: Weights of the loss beside the squared error, which is relative to the recording's own square. By
#: that alone low sounds are learned and high ones stay silent: to follow their waves it must know
#: what they are. So magnitudes count too, and latents have to tell what is heard from the start on.
MAGNITUDE_WEIGHT, DECADES_WEIGHT, LABEL_WEIGHT, WHITENESS_WEIGHT = 1.0, 1.0, 1.0, 0.05
#: Squared samples below which silence is silence.
SILENCE = 1e-3
CLIP_NORM = 10.0
#: Sounds whose latents are measured to make the final latents white.
NUM_WHITENED = 256
CHECKPOINT_EVERY = 200


#: An AutoencoderOobleck; diffusers types its attributes as little as it can.
Autoencoder = Any


@dataclass(frozen=True, slots=True)
class AutoencoderTraining:
    """How long and how; sizes are those of one process."""

    steps: int
    batch_size: int = 8
    learning_rate: float = 2e-3
    warmup: int = 100
    two_phrases: float = 0.6
    seed: int = 0


def make_autoencoder() -> Autoencoder:
    """Build it, untrained. The format's encoder is as wide as mean and deviation of a frame."""
    return AutoencoderOobleck(  # type: ignore[no-untyped-call]
        encoder_hidden_size=2 * CHANNELS,
        downsampling_ratios=[10, 20],
        channel_multiples=[2, 4],
        decoder_channels=16,
        decoder_input_channels=CHANNELS,
        audio_channels=1,
        sampling_rate=SAMPLING_RATE,
    )


def train_autoencoder(folder: Path, training: AutoencoderTraining, *, processes: int) -> None:
    """Train, or go on with a training that was stopped."""
    run_parallel(partial(_train, folder, training), processes=processes)


def load_autoencoder(folder: Path) -> Autoencoder:
    """Return the trained one, whitened and for use only."""
    autoencoder = make_autoencoder()
    checkpoint.load(folder / "autoencoder.safetensors", {"autoencoder": autoencoder})
    autoencoder.requires_grad_(False).eval()
    rng = random.Random("whiten")  # noqa: S311 - sounds, not secrets
    whiten(autoencoder, [draw_sound(rng, two_phrases=0.6) for _ in range(NUM_WHITENED)])
    return autoencoder


def to_tensor(sounds: list[Sound]) -> Tensor:
    """Play sounds; returns [B, 1, NUM_TICKS * TICK] in -1 to 1."""
    return torch.from_numpy(np.stack([render(sound) for sound in sounds]))[:, None]


def _train(folder: Path, training: AutoencoderTraining, rank: Rank) -> None:
    torch.manual_seed(training.seed)
    modules: dict[str, Any] = {"autoencoder": make_autoencoder(), "labels": TimelineHead(CHANNELS)}
    parameters = [parameter for module in modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, betas=(0.9, 0.99))
    path = folder / "autoencoder.safetensors"
    journal = Journal(folder / "autoencoder.csv", every=50)
    for step in range(checkpoint.load(path, modules, optimizer) + 1, training.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _rate(step, training)
        samples, timelines = _draw_batch(training, step, rank)
        generator = torch.Generator().manual_seed(step * rank.count + rank.index)
        means = modules["autoencoder"].encode(samples).latent_dist.mean
        noise = torch.randn(means.shape, generator=generator)
        decoded = modules["autoencoder"].decode(means + LATENT_NOISE * noise).sample
        losses = _losses(samples, decoded, means)
        losses["labels"] = modules["labels"].loss(means.transpose(1, 2), timelines)
        losses["loss"] = losses["loss"] + LABEL_WEIGHT * losses["labels"]
        rank.descend(losses["loss"], parameters, optimizer, clip_norm=CLIP_NORM)
        if rank.is_first:
            values = {name: value.item() for name, value in losses.items()}
            journal.note(step, values, samples=training.batch_size * rank.count)
            if step % CHECKPOINT_EVERY == 0 or step == training.steps:
                checkpoint.save(path, step, modules, optimizer)


def _rate(step: int, training: AutoencoderTraining) -> float:
    """Warm up, then follow a cosine down to a hundredth."""
    progress = step / training.steps
    return min(step / training.warmup, 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def _draw_batch(training: AutoencoderTraining, step: int, rank: Rank) -> tuple[Tensor, Tensor]:
    """Return samples [B, 1, CROP_TICKS * TICK] and timelines [B, CROP_TICKS]."""
    # A function of the step: a training that was stopped hears the same data as one that was not.
    rng = random.Random(f"autoencoder {training.seed} {rank.index} {step}")  # noqa: S311
    crops, timelines = [], []
    for _ in range(training.batch_size):
        sound = draw_sound(rng, two_phrases=training.two_phrases)
        event = rng.choice([event for phrase in sound.phrases for event in phrase.events])
        first = event.start + event.ticks // 2 - rng.randint(0, CROP_TICKS)
        first = min(max(first, 0), NUM_TICKS - CROP_TICKS)
        crops.append(render(sound)[first * TICK : (first + CROP_TICKS) * TICK])
        timelines.append(map_timeline(sound)[first : first + CROP_TICKS])
    return torch.from_numpy(np.stack(crops))[:, None], torch.stack(timelines)


def _losses(samples: Tensor, decoded: Tensor, means: Tensor) -> dict[str, Tensor]:
    errors = (decoded - samples).square().mean(dim=(1, 2))
    relative = (errors / (samples.square().mean(dim=(1, 2)) + SILENCE)).mean()
    magnitudes, decades = compare_spectra(decoded[:, 0], samples[:, 0])
    flat = means.permute(1, 0, 2).flatten(1)
    moment = flat @ flat.T / flat.shape[1] + 1e-4 * torch.eye(CHANNELS)
    # How far normal latents of this second moment are from those of I (their divergence): unlike a
    # squared distance it lets no channel die.
    whiteness = (moment.trace() - torch.logdet(moment) - CHANNELS) / 2
    loss = (
        relative
        + MAGNITUDE_WEIGHT * magnitudes
        + DECADES_WEIGHT * decades
        + WHITENESS_WEIGHT * whiteness
    )
    return {
        "loss": loss,
        "relative": relative,
        "magnitudes": magnitudes,
        "decades": decades,
        "whiteness": whiteness,
    }


@torch.no_grad()
def whiten(autoencoder: Autoencoder, sounds: list[Sound]) -> None:
    """Give the latents of sounds the second moment I, by changing the convolutions around them.

    Nothing is shifted, so the sounds stay the same.
    """
    parts = [
        autoencoder.encode(to_tensor(sounds[start : start + 16])).latent_dist.mean
        for start in range(0, len(sounds), 16)
    ]
    flat = torch.cat(parts).permute(1, 0, 2).flatten(1).double()
    values, vectors = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
    whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    coloring = vectors @ torch.diag(values.sqrt()) @ vectors.T

    last, first = autoencoder.encoder.conv2, autoencoder.decoder.conv1
    weight = _weight(last)
    mean = torch.einsum("oi,ick->ock", whitening, weight[:CHANNELS])
    # The other half of the encoder's output is a deviation, which is the same everywhere.
    _set_weight(last, torch.cat([mean, weight[CHANNELS:]]))
    last.weight_g[CHANNELS:] = 0
    last.bias[:CHANNELS] = (whitening @ last.bias[:CHANNELS].double()).float()
    last.bias[CHANNELS:] = math.log(math.expm1(LATENT_NOISE))
    _set_weight(first, torch.einsum("oik,ic->ock", _weight(first), coloring))


def _weight(convolution: Any) -> Tensor:
    """Put direction and length of a weight together."""
    direction: Tensor = convolution.weight_v.double()
    length: Tensor = convolution.weight_g.double()
    weight: Tensor = length * direction / direction.norm(dim=(1, 2), keepdim=True)
    return weight


def _set_weight(convolution: Any, weight: Tensor) -> None:
    convolution.weight_v.copy_(weight)
    convolution.weight_g.copy_(weight.norm(dim=(1, 2), keepdim=True))
