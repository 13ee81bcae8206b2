"""Train the denoiser and its text encoder, together."""

import copy
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import StableAudioDiTModel, StableAudioProjectionModel
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from models.train import checkpoint
from models.train.audio.autoencoder import CHANNELS, load_autoencoder
from models.train.audio.conditioning import condition, drop
from models.train.audio.noising import add_noise, draw_sigmas
from models.train.audio.pool import LatentPool
from models.train.audio.reading import teach_reading
from models.train.audio.sounds import NUM_TICKS, SAMPLING_RATE, TICK, draw_caption
from models.train.audio.timeline import TimelineHead, map_timeline
from models.train.journal import Journal
from models.train.parallel import Rank, run_parallel
from models.train.precision import autocast

TEXT_WIDTH = 128
NUM_LAYERS, NUM_HEADS, HEAD_WIDTH = 6, 6, 32
#: The layer, counted from 0, after which the second task reads what it thinks is heard when.
TIMELINE_LAYER = 3
TIMELINE_WEIGHT = 0.1
#: Shares of captions of which nothing is told, not even the length, and of empty ones.
DROPPED, EMPTY = 0.1, 0.03
#: Share of captions that begin with a capital letter.
CAPITAL = 0.1
CLIP_NORM = 1.0
CHECKPOINT_EVERY = 250
#: One of so many of a batch is played and encoded anew; the pool begins with some batches.
FRESH_ONE_IN, FIRST_BATCHES = 16, 8


@dataclass(frozen=True, slots=True)
class DenoiserTraining:
    """How long and how; sizes are those of one process."""

    steps: int
    reading_steps: int
    batch_size: int = 32
    learning_rate: float = 1.2e-3
    warmup: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    two_phrases: float = 0.65
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1: up, and down to nothing."""
        return self.learning_rate * min(step / self.warmup, 1 - (step - 1) / self.steps)


@dataclass(frozen=True, slots=True)
class Denoiser:
    """The networks that are trained, their averages over time, which are shipped, and a head that
    only training needs."""

    transformer: Any
    projection: Any
    text_encoder: Any
    ema_transformer: Any
    ema_projection: Any
    ema_text_encoder: Any
    timeline_head: TimelineHead

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All of them by name, for checkpoints."""
        return {
            "transformer": self.transformer,
            "projection": self.projection,
            # The model's other name for the same embedding would be stored twice, which is refused.
            "text_encoder": self.text_encoder.encoder,
            "ema_transformer": self.ema_transformer,
            "ema_projection": self.ema_projection,
            "ema_text_encoder": self.ema_text_encoder.encoder,
            "timeline_head": self.timeline_head,
        }

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer changes."""
        modules = (self.transformer, self.projection, self.text_encoder, self.timeline_head)
        return [
            parameter
            for module in modules
            for parameter in module.parameters()
            if parameter.requires_grad
        ]

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Let the averages follow."""
        for average, network in (
            (self.ema_transformer, self.transformer),
            (self.ema_projection, self.projection),
            (self.ema_text_encoder, self.text_encoder),
        ):
            pairs = zip(average.parameters(), network.parameters(), strict=True)
            for follower, leader in pairs:
                follower.lerp_(leader, 1 - decay)


def make_denoiser(tokenizer: T5Tokenizer, *, seed: int) -> Denoiser:
    """Build all networks, untrained."""
    torch.manual_seed(seed)
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=TEXT_WIDTH // 4,
            d_ff=3 * TEXT_WIDTH,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    projection: Any = StableAudioProjectionModel(  # type: ignore[no-untyped-call]
        text_encoder_dim=TEXT_WIDTH,
        conditioning_dim=TEXT_WIDTH,
        min_value=0,
        max_value=NUM_TICKS * TICK // SAMPLING_RATE,
    )
    transformer: Any = StableAudioDiTModel(  # type: ignore[no-untyped-call]
        sample_size=NUM_TICKS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=NUM_LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=NUM_HEADS,
        num_key_value_attention_heads=NUM_HEADS // 2,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_input_dim=TEXT_WIDTH,
        global_states_input_dim=2 * TEXT_WIDTH,
    )
    return Denoiser(
        transformer,
        projection,
        text_encoder,
        copy.deepcopy(transformer).requires_grad_(False),
        copy.deepcopy(projection).requires_grad_(False),
        copy.deepcopy(text_encoder).requires_grad_(False),
        TimelineHead(NUM_HEADS * HEAD_WIDTH),
    )


def train_denoiser(
    folder: Path, tokenizer: T5Tokenizer, training: DenoiserTraining, *, processes: int
) -> Denoiser:
    """Train, or go on with a training that was stopped, and return the networks."""
    run_parallel(partial(_train, folder, tokenizer, training), processes=processes)
    return load_denoiser(folder, tokenizer)


def load_denoiser(folder: Path, tokenizer: T5Tokenizer) -> Denoiser:
    """Return the networks of the last checkpoint."""
    denoiser = make_denoiser(tokenizer, seed=0)
    checkpoint.load(folder / "denoiser.safetensors", denoiser.modules)
    return denoiser


def _train(folder: Path, tokenizer: T5Tokenizer, training: DenoiserTraining, rank: Rank) -> None:
    denoiser = make_denoiser(tokenizer, seed=training.seed)
    denoiser.text_encoder.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(
        denoiser.parameters(),
        lr=0.0,  # each step sets its own
        betas=(0.9, 0.99),
        weight_decay=training.weight_decay,
        fused=True,
    )
    pool = LatentPool(load_autoencoder(folder))
    path = folder / "denoiser.safetensors"
    journal = Journal(folder / "denoiser.csv", every=50)
    first = checkpoint.load(path, denoiser.modules, optimizer) + 1
    if first == 1:
        teach_reading(
            denoiser.text_encoder,
            tokenizer,
            Journal(folder / "reading.csv", every=50),
            rank,
            steps=training.reading_steps,
            two_phrases=training.two_phrases,
        )
    for step in range(first, training.steps + 1):
        # Functions of the step: a training that was stopped goes on with new data, not the old.
        rng = random.Random(f"denoiser {training.seed} {rank.index} {step}")  # noqa: S311
        generator = torch.Generator().manual_seed(step * rank.count + rank.index)
        for group in optimizer.param_groups:
            group["lr"] = training.rate(step)
        fresh = max(training.batch_size // FRESH_ONE_IN, 1)
        for _ in range(FIRST_BATCHES * FRESH_ONE_IN if step == first else 1):
            pool.refresh(rng, fresh, two_phrases=training.two_phrases)
        samples = _draw_samples(pool, rng, training.batch_size)
        losses = _losses(denoiser, tokenizer, samples, generator)
        rank.descend(losses["loss"], denoiser.parameters(), optimizer, clip_norm=CLIP_NORM)
        denoiser.average(min(training.ema_decay, step / (step + 10)))
        if rank.is_first:
            values = {name: value.item() for name, value in losses.items()}
            journal.note(step, values, samples=training.batch_size * rank.count)
            if step % CHECKPOINT_EVERY == 0 or step == training.steps:
                checkpoint.save(path, step, denoiser.modules, optimizer)


class _Samples(NamedTuple):
    """What a step learns from."""

    latents: Tensor  # [B, CHANNELS, NUM_TICKS]
    timelines: Tensor  # [B, NUM_TICKS]
    texts: list[str]
    seconds: Tensor  # [B]


def _draw_samples(pool: LatentPool, rng: random.Random, count: int) -> _Samples:
    sounds, latents = pool.sample(rng, count)
    texts = []
    for sound in sounds:
        text = draw_caption(rng, sound).text if rng.random() >= EMPTY else ""
        texts.append(text[:1].upper() + text[1:] if rng.random() < CAPITAL else text)
    timelines = torch.stack([map_timeline(sound) for sound in sounds])
    return _Samples(latents, timelines, texts, torch.tensor([sound.seconds for sound in sounds]))


def _losses(
    denoiser: Denoiser, tokenizer: T5Tokenizer, samples: _Samples, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the loss, the plain error of the prediction, and the second task's loss."""
    latents = samples.latents
    noise = torch.randn(latents.shape, generator=generator)
    inputs, timesteps, velocity = add_noise(latents, noise, draw_sigmas(len(latents), generator))
    is_dropped = torch.rand(len(latents), generator=generator) < DROPPED
    features: list[Tensor] = []
    hook = denoiser.transformer.transformer_blocks[TIMELINE_LAYER].register_forward_hook(
        lambda _module, _arguments, output: features.append(output)
    )
    # The fused attention's backward pass is slow in bfloat16.
    with autocast(), sdpa_kernel(SDPBackend.MATH):
        told = condition(
            denoiser.text_encoder, denoiser.projection, tokenizer, samples.texts, samples.seconds
        )
        told = drop(told, is_dropped)
        prediction = denoiser.transformer(
            inputs,
            timesteps,
            encoder_hidden_states=told.words,
            global_hidden_states=told.seconds,
            # One position more: the transformer puts time and seconds before the latents.
            rotary_embedding=get_1d_rotary_pos_embed(
                HEAD_WIDTH // 2, NUM_TICKS + 1, use_real=True, repeat_interleave_real=False
            ),
            return_dict=False,
        )[0].float()
    hook.remove()
    error = (prediction - velocity).square().mean()
    timeline = denoiser.timeline_head.loss(features[0][:, 1:].float(), samples.timelines)
    return {"loss": error + TIMELINE_WEIGHT * timeline, "error": error, "timeline": timeline}
