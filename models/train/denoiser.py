"""Train the denoiser and its text encoder, together."""

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.train import checkpoint
from models.train.journal import Journal
from models.train.layout import LayoutHead, map_layout
from models.train.noised import Scheduler, add_noise
from models.train.parallel import Rank, run_parallel
from models.train.pool import LatentPool
from models.train.precision import autocast, use_plain_attention
from models.train.reading import teach_reading
from models.train.tokenizer import MAX_TOKENS
from models.train.vae import FACTOR, Vae
from models.train.world import SIDE

#: The schedule of Stable Diffusion 1; what a diffusers scheduler is made from.
TRAINING_SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
TEXT_WIDTH = 128
CAPTION_DROPOUT = 0.1
CLIP_NORM = 1.0
CHECKPOINT_EVERY = 250
#: One of so many of a batch is rendered and encoded anew.
FRESH_ONE_IN = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """What a part of the training looks at. Its learning rate warms up and goes down to nothing."""

    steps: int
    learning_rate: float
    warmup: int
    #: Share of pictures with two objects.
    two_objects: float
    #: Half of the timesteps come from this range, the other half from all.
    middle: tuple[int, int]
    #: How much more the cells of objects weigh where there is no noise; less with noise, since what
    #: hides where things are must not make them likelier. Small ones would hardly count otherwise.
    object_weight: float
    #: Of the second task, beside the squared error.
    layout_weight: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        share = min(step / self.warmup, 1 - (step - 1) / self.steps)
        return self.learning_rate * share


def learn_to_draw(steps: int) -> Stage:
    """Learn what things look like."""
    return Stage(
        steps,
        learning_rate=1.2e-3,
        warmup=200,
        two_objects=0.6,
        middle=(300, 900),
        object_weight=3.0,
        layout_weight=0.1,
    )


def learn_to_arrange(steps: int) -> Stage:
    """Learn which of two objects goes where.

    That is decided in the noise and says little about pixels: after the first stage alone both
    objects were there in 93% of the pictures, and in the asked order in 43%.
    """
    return Stage(
        steps,
        learning_rate=0.84e-3,
        warmup=100,
        two_objects=0.8,
        middle=(500, 1000),
        object_weight=0.0,
        layout_weight=0.3,
    )


@dataclass(frozen=True, slots=True)
class DenoiserTraining:
    """How long and how; sizes are those of one process."""

    stages: tuple[Stage, ...]
    reading_steps: int
    batch_size: int = 32
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    seed: int = 0
    schedule: Mapping[str, Any] = field(default_factory=lambda: dict(TRAINING_SCHEDULE))

    @property
    def steps(self) -> int:
        """All stages' together."""
        return sum(stage.steps for stage in self.stages)

    def locate(self, step: int) -> tuple[Stage, int]:
        """Return the stage of a step, and the step's number in it, both counted from 1."""
        for stage in self.stages:
            if step <= stage.steps:
                return stage, step
            step -= stage.steps
        raise ValueError("the training has fewer steps")


@dataclass(frozen=True, slots=True)
class Denoiser:
    """The two networks that are trained, their averages over time, which are shipped, and a head
    that only training needs. A text encoder that requires no gradients stays as it is."""

    unet: Any
    text_encoder: Any
    ema_unet: Any
    ema_text_encoder: Any
    layout_head: LayoutHead

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All of them by name, for checkpoints."""
        return {
            "unet": self.unet,
            "text_encoder": self.text_encoder,
            "ema_unet": self.ema_unet,
            "ema_text_encoder": self.ema_text_encoder,
            "layout_head": self.layout_head,
        }

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer changes."""
        modules = (self.unet, self.text_encoder, self.layout_head)
        parameters = (parameter for module in modules for parameter in module.parameters())
        return [parameter for parameter in parameters if parameter.requires_grad]

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Let the averages follow."""
        for average, network in (
            (self.ema_unet, self.unet),
            (self.ema_text_encoder, self.text_encoder),
        ):
            pairs = zip(average.parameters(), network.parameters(), strict=True)
            for follower, leader in pairs:
                follower.lerp_(leader, 1 - decay)


def make_denoiser(
    tokenizer: CLIPTokenizer, *, seed: int, reader: CLIPTextModel | None = None
) -> Denoiser:
    """Build both networks, untrained; `reader` is a text encoder that is trained already."""
    torch.manual_seed(seed)
    text_encoder = _make_text_encoder(tokenizer) if reader is None else reader
    unet: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=SIDE // FACTOR,
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        # The whole prompt is added to the timestep, beside the words that attention looks at.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    return Denoiser(
        unet,
        text_encoder,
        copy.deepcopy(unet).requires_grad_(False),
        copy.deepcopy(text_encoder).requires_grad_(False),
        LayoutHead(unet.config.block_out_channels[-1]),
    )


def _make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=3 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_denoiser(
    folder: Path,
    vae: Vae,
    tokenizer: CLIPTokenizer,
    training: DenoiserTraining,
    *,
    processes: int,
    reader: CLIPTextModel | None = None,
) -> Denoiser:
    """Train, or go on with a training that was stopped, and return the networks.

    With a `reader`, a text encoder that is trained already and requires no gradients, the denoiser
    is trained alone.
    """
    run_parallel(partial(_train, folder, vae, tokenizer, training, reader), processes=processes)
    denoiser = make_denoiser(tokenizer, seed=training.seed, reader=reader)
    checkpoint.load(folder / "denoiser.safetensors", denoiser.modules)
    return denoiser


def _train(
    folder: Path,
    vae: Vae,
    tokenizer: CLIPTokenizer,
    training: DenoiserTraining,
    reader: CLIPTextModel | None,
    rank: Rank,
) -> None:
    denoiser = make_denoiser(tokenizer, seed=training.seed, reader=reader)
    use_plain_attention(denoiser.unet, denoiser.text_encoder)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(),
        lr=0.0,  # each step sets its own
        betas=(0.9, 0.99),
        weight_decay=training.weight_decay,
        fused=True,
    )
    noising: Scheduler = DDPMScheduler(**training.schedule)  # type: ignore[no-untyped-call]
    pool = LatentPool(vae)
    path = folder / "denoiser.safetensors"
    journal = Journal(folder / "denoiser.csv", every=50)
    first = checkpoint.load(path, denoiser.modules, optimizer) + 1
    if first == 1 and reader is None:
        teach_reading(
            denoiser.text_encoder,
            tokenizer,
            Journal(folder / "reading.csv", every=50),
            rank,
            steps=training.reading_steps,
            two_objects=training.stages[0].two_objects,
        )
    for step in range(first, training.steps + 1):
        # Functions of the step: a training that was stopped goes on with new data, not the old.
        rng = random.Random(f"denoiser {training.seed} {rank.index} {step}")  # noqa: S311
        generator = torch.Generator().manual_seed(step * rank.count + rank.index)
        stage, step_of_stage = training.locate(step)
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(step_of_stage)
        fresh = training.batch_size if step == first else training.batch_size // FRESH_ONE_IN
        pool.refresh(rng, max(fresh, 1), two_objects=stage.two_objects)
        captions, latents = pool.sample(rng, training.batch_size)
        texts = ["" if rng.random() < CAPTION_DROPOUT else caption.text for caption in captions]
        tokens = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        layouts = torch.stack([map_layout(caption.scene) for caption in captions])
        samples = _Samples(latents, layouts, tokens)
        losses = _losses(denoiser, noising, stage, samples, generator)
        rank.descend(losses["loss"], denoiser.parameters(), optimizer, clip_norm=CLIP_NORM)
        denoiser.average(min(training.ema_decay, step / (step + 10)))
        if rank.is_first:
            values = {name: value.item() for name, value in losses.items()}
            journal.note(step, values, samples=len(latents) * rank.count)
            if step % CHECKPOINT_EVERY == 0 or step == training.steps:
                checkpoint.save(path, step, denoiser.modules, optimizer)


class _Samples(NamedTuple):
    """What a step learns from."""

    latents: Tensor  # [B, 4, 16, 16]
    layouts: Tensor  # [B, 2, 8, 8]
    tokens: Tensor  # [B, T]


def _losses(
    denoiser: Denoiser,
    noising: Scheduler,
    stage: Stage,
    samples: _Samples,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the loss, the plain error of the prediction, and the second task's loss."""
    latents, layouts, tokens = samples
    noised = add_noise(noising, latents, stage.middle, generator)
    features: list[Tensor] = []
    hook = denoiser.unet.up_blocks[0].register_forward_hook(
        lambda _module, _arguments, output: features.append(output)
    )
    with autocast():
        prediction = denoiser.unet(
            noised.latents,
            noised.timesteps,
            encoder_hidden_states=denoiser.text_encoder(tokens)[0],
        ).sample.float()
    hook.remove()
    weighted, error = noised.grade(prediction, layouts, object_weight=stage.object_weight)
    layout = denoiser.layout_head.loss(features[0].float(), layouts)
    return {
        "loss": weighted + stage.layout_weight * layout,
        "error": error,
        "layout": layout,
    }
