"""Train a transformer that draws by label. Source: Peebles and Xie, DiT (2023)."""

import copy
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from models.train import checkpoint
from models.train.denoiser import (
    CHECKPOINT_EVERY,
    CLIP_NORM,
    FRESH_ONE_IN,
    TRAINING_SCHEDULE,
    Stage,
)
from models.train.journal import Journal
from models.train.layout import GRID, LayoutHead, map_layout
from models.train.noised import Scheduler, add_noise
from models.train.parallel import Rank, run_parallel
from models.train.pool import LatentPool
from models.train.precision import autocast
from models.train.vae import FACTOR, LATENT_CHANNELS, Vae
from models.train.world import EMOJI, SHAPES, SIDE, Scene

#: What the one object of a picture is; a label's number is its place.
LABELS = (*SHAPES, *EMOJI)
#: The number that stands for no label. DiTPipeline has it fixed, however many labels there are: the
#: table of a model has that many rows before it.
NULL_LABEL = 1000
LABEL_DROPOUT = 0.1
#: The block whose output the second task reads.
LAYOUT_BLOCK = 3
#: Deviation of what DiT starts small instead of at nothing.
SMALL = 0.02


def number_of(scene: Scene) -> int:
    """Return the label of a scene with one object."""
    return LABELS.index(scene.objects[0].kind)


@dataclass(frozen=True, slots=True)
class LabelTraining:
    """How long and how; sizes are those of one process."""

    steps: int
    batch_size: int = 32
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    seed: int = 0

    @property
    def stage(self) -> Stage:
        """The only one."""
        return Stage(
            self.steps,
            learning_rate=1e-3,
            warmup=200,
            two_objects=0.0,
            middle=(300, 900),
            object_weight=3.0,
            layout_weight=0.1,
        )


@dataclass(frozen=True, slots=True)
class LabelDenoiser:
    """The network that is trained, its average over time, which is shipped, and a head that only
    training needs."""

    transformer: Any
    ema_transformer: Any
    layout_head: LayoutHead

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All of them by name, for checkpoints."""
        return {
            "transformer": self.transformer,
            "ema_transformer": self.ema_transformer,
            "layout_head": self.layout_head,
        }

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer changes."""
        return [*self.transformer.parameters(), *self.layout_head.parameters()]

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Let the average follow."""
        pairs = zip(self.ema_transformer.parameters(), self.transformer.parameters(), strict=True)
        for follower, leader in pairs:
            follower.lerp_(leader, 1 - decay)


def make_label_denoiser(*, seed: int) -> LabelDenoiser:
    """Build the network, untrained."""
    torch.manual_seed(seed)
    transformer: Any = DiTTransformer2DModel(  # type: ignore[no-untyped-call]
        sample_size=SIDE // FACTOR,
        # DiTPipeline cannot do without; twice as many would be a learned variance, too.
        out_channels=LATENT_CHANNELS,
        patch_size=SIDE // FACTOR // GRID,
        num_layers=6,
        num_attention_heads=4,
        attention_head_dim=64,
        num_embeds_ada_norm=NULL_LABEL,
    )
    _start_small(transformer)
    # In training mode each block would drop the label by a chance of its own.
    transformer.eval()
    return LabelDenoiser(
        transformer,
        copy.deepcopy(transformer).requires_grad_(False),
        LayoutHead(transformer.inner_dim),
    )


def train_label_denoiser(
    folder: Path, vae: Vae, training: LabelTraining, *, processes: int
) -> LabelDenoiser:
    """Train, or go on with a training that was stopped, and return the networks."""
    run_parallel(partial(_train, folder, vae, training), processes=processes)
    denoiser = make_label_denoiser(seed=training.seed)
    checkpoint.load(folder / "denoiser.safetensors", denoiser.modules)
    return denoiser


def _start_small(transformer: Any) -> None:
    """Let every block change nothing at first, and the answer be nothing."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)
        embedder = block.norm1.emb
        nn.init.normal_(embedder.class_embedder.embedding_table.weight, std=SMALL)
        nn.init.normal_(embedder.timestep_embedder.linear_1.weight, std=SMALL)
        nn.init.normal_(embedder.timestep_embedder.linear_2.weight, std=SMALL)
    nn.init.zeros_(transformer.proj_out_1.weight)
    nn.init.zeros_(transformer.proj_out_2.weight)


def _train(folder: Path, vae: Vae, training: LabelTraining, rank: Rank) -> None:
    denoiser = make_label_denoiser(seed=training.seed)
    for block in denoiser.transformer.transformer_blocks:
        # The fused one's backward pass is slow in bfloat16.
        block.attn1.set_processor(AttnProcessor())
    optimizer = torch.optim.AdamW(
        denoiser.parameters(),
        lr=0.0,  # each step sets its own
        betas=(0.9, 0.99),
        weight_decay=training.weight_decay,
        fused=True,
    )
    noising: Scheduler = DDPMScheduler(**TRAINING_SCHEDULE)  # type: ignore[no-untyped-call]
    pool = LatentPool(vae)
    path = folder / "denoiser.safetensors"
    journal = Journal(folder / "denoiser.csv", every=50)
    first = checkpoint.load(path, denoiser.modules, optimizer) + 1
    stage = training.stage
    for step in range(first, training.steps + 1):
        # Functions of the step: a training that was stopped goes on with new data, not the old.
        rng = random.Random(f"labels {training.seed} {rank.index} {step}")  # noqa: S311
        generator = torch.Generator().manual_seed(step * rank.count + rank.index)
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(step)
        fresh = training.batch_size if step == first else training.batch_size // FRESH_ONE_IN
        pool.refresh(rng, max(fresh, 1), two_objects=stage.two_objects)
        samples = _draw_samples(pool, rng, training.batch_size)
        losses = _losses(denoiser, noising, stage, samples, generator)
        rank.descend(losses["loss"], denoiser.parameters(), optimizer, clip_norm=CLIP_NORM)
        denoiser.average(min(training.ema_decay, step / (step + 10)))
        if rank.is_first:
            values = {name: value.item() for name, value in losses.items()}
            journal.note(step, values, samples=training.batch_size * rank.count)
            if step % CHECKPOINT_EVERY == 0 or step == training.steps:
                checkpoint.save(path, step, denoiser.modules, optimizer)


class _Samples(NamedTuple):
    """What a step learns from."""

    latents: Tensor  # [B, 4, 16, 16]
    layouts: Tensor  # [B, 2, 8, 8]
    labels: Tensor  # [B]


def _draw_samples(pool: LatentPool, rng: random.Random, count: int) -> _Samples:
    captions, latents = pool.sample(rng, count)
    scenes = [caption.scene for caption in captions]
    labels = [NULL_LABEL if rng.random() < LABEL_DROPOUT else number_of(scene) for scene in scenes]
    layouts = torch.stack([map_layout(scene) for scene in scenes])
    return _Samples(latents, layouts, torch.tensor(labels))


def _losses(
    denoiser: LabelDenoiser,
    noising: Scheduler,
    stage: Stage,
    samples: _Samples,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the loss, the plain error of the prediction, and the second task's loss."""
    latents, layouts, labels = samples
    noised = add_noise(noising, latents, stage.middle, generator)
    features: list[Tensor] = []
    hook = denoiser.transformer.transformer_blocks[LAYOUT_BLOCK].register_forward_hook(
        lambda _module, _arguments, output: features.append(output)  # [B, patches, C]
    )
    with autocast():
        prediction = denoiser.transformer(
            noised.latents, noised.timesteps, class_labels=labels
        ).sample.float()
    hook.remove()
    weighted, error = noised.grade(prediction, layouts, object_weight=stage.object_weight)
    patches = features[0].float().transpose(1, 2)  # [B, C, patches]
    grid = patches.reshape(*patches.shape[:2], GRID, GRID)
    layout = denoiser.layout_head.loss(grid, layouts)
    return {
        "loss": weighted + stage.layout_weight * layout,
        "error": error,
        "layout": layout,
    }
