"""`python -m models.train.consistency`: distill the demo model to draw in one to four steps.

Latent consistency distillation, Luo et al. (2023): from two neighbouring points of one trajectory
of the teacher, the student has to come to the same end. The teacher goes from one to the other in
one step of DDIM, guided, so that jobs need no guidance any more.
"""

import copy
import random
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import LCMScheduler
from torch import Tensor

from models.preview_map import FILE_NAME
from models.train import checkpoint
from models.train.denoiser import CLIP_NORM, FRESH_ONE_IN, TRAINING_SCHEDULE
from models.train.export import write_pipeline
from models.train.journal import Journal, plot
from models.train.noised import Scheduler
from models.train.parallel import Rank, run_parallel
from models.train.parts import DEMO, Parts, load_parts
from models.train.pool import LatentPool
from models.train.precision import autocast, use_plain_attention

#: What the demo model draws best with; its card has the table.
GUIDANCE = 2.0
#: Timesteps of the trajectories. Fewer are sooner learned from end to end, and DDIM draws the demo
#: model as well in 25 steps as in more.
TEACHER_STEPS = 25
#: Of the pseudo-Huber loss, for each number that is compared: Song and Dhariwal (2023), 3.3.
HUBER = 0.00054
CHECKPOINT_EVERY = 250


@dataclass(frozen=True, slots=True)
class Distillation:
    """How long and how; sizes are those of one process."""

    steps: int
    batch_size: int = 32
    learning_rate: float = 4e-4
    warmup: int = 100
    two_objects: float = 0.65
    #: How much of itself the target keeps at each step.
    ema_decay: float = 0.95
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self.learning_rate * min(step / self.warmup, 1 - (step - 1) / self.steps)


def main(
    work: Annotated[Path, typer.Option(help="Checkpoint and log.")] = Path(".train/lcm"),
    output: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("models/demo-lcm"),
    model: Annotated[Path, typer.Option(help="The teacher.")] = DEMO,
    processes: Annotated[int, typer.Option(help="One for each core.", min=1)] = 2,
    steps: Annotated[int, typer.Option(help="Of both cores together.", min=1)] = 3_800,
) -> None:
    """Distill the demo model; a training that was stopped goes on when it is started again."""
    work.mkdir(parents=True, exist_ok=True)
    distill(work, model, Distillation(steps), processes=processes)
    write_student(output, model, work)
    for log in work.glob("*.csv"):
        plot(log, log.with_suffix(".png"))


def make_scheduler() -> Scheduler:
    """Make the scheduler that samples the student; what it lacks is for other samplers."""
    scheduler: Scheduler = LCMScheduler(  # type: ignore[no-untyped-call]
        **TRAINING_SCHEDULE,
        original_inference_steps=TEACHER_STEPS,
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return scheduler


def distill(folder: Path, model: Path, distillation: Distillation, *, processes: int) -> None:
    """Train, or go on with a training that was stopped; the student is in the checkpoint."""
    run_parallel(partial(_train, folder, model, distillation), processes=processes)


def write_student(folder: Path, model: Path, work: Path) -> None:
    """Write the student in a work folder as a diffusers folder, with all else its teacher's."""
    parts = load_parts(model)
    checkpoint.load(work / "consistency.safetensors", {"target": parts.unet})
    write_pipeline(folder, parts, make_scheduler())
    shutil.copy(model / FILE_NAME, folder)


class Trajectories:
    """Where the student looks: points of the teacher's trajectories, and their ends from there."""

    def __init__(self, scheduler: Scheduler) -> None:
        scheduler.set_timesteps(TEACHER_STEPS)
        self._scheduler = scheduler
        #: Rising; each has a neighbour before it, the first one the beginning.
        self.timesteps: Tensor = scheduler.timesteps.flip(0)
        self.neighbours = torch.cat([torch.zeros(1, dtype=torch.long), self.timesteps[:-1]])

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Take latents [B, C, h, w] to the noise levels of timesteps [B]."""
        signal, sigma = self._levels(timesteps)
        return signal * latents + sigma * noise

    def step_back(self, noisy: Tensor, v: Tensor, timesteps: Tensor, earlier: Tensor) -> Tensor:
        """Step by DDIM to earlier timesteps with the teacher's v."""
        signal, sigma = self._levels(timesteps)
        end, noise = signal * noisy - sigma * v, sigma * noisy + signal * v
        return self.add_noise(end, noise, earlier)

    def jump(self, noisy: Tensor, v: Tensor, timesteps: Tensor) -> Tensor:
        """Return where the student says that a trajectory ends, from its v."""
        signal, sigma = self._levels(timesteps)
        keep, change = self._scheduler.get_scalings_for_boundary_condition_discrete(
            timesteps[:, None, None, None]
        )
        end: Tensor = keep * noisy + change * (signal * noisy - sigma * v)
        return end

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self._scheduler.alphas_cumprod[timesteps][:, None, None, None]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@dataclass(frozen=True, slots=True)
class Networks:
    """The denoisers: that of the teacher, that which learns, and its average, which it learns from
    and which is shipped."""

    teacher: Any
    student: Any
    target: Any

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Let the target follow."""
        pairs = zip(self.target.parameters(), self.student.parameters(), strict=True)
        for follower, leader in pairs:
            follower.lerp_(leader, 1 - decay)


def _train(folder: Path, model: Path, distillation: Distillation, rank: Rank) -> None:
    parts = load_parts(model)
    use_plain_attention(parts.unet, parts.text_encoder)
    networks = Networks(
        parts.unet, copy.deepcopy(parts.unet).requires_grad_(True), copy.deepcopy(parts.unet)
    )
    optimizer = torch.optim.AdamW(
        networks.student.parameters(),
        lr=0.0,  # each step sets its own
        betas=(0.9, 0.99),
        weight_decay=0.0,
        fused=True,
    )
    trajectories = Trajectories(make_scheduler())
    pool = LatentPool(parts.vae)
    path = folder / "consistency.safetensors"
    journal = Journal(folder / "consistency.csv", every=50)
    modules = {"student": networks.student, "target": networks.target}
    nothing = _encode(parts, [""])
    first = checkpoint.load(path, modules, optimizer) + 1
    for step in range(first, distillation.steps + 1):
        # Functions of the step: a training that was stopped goes on with new data, not the old.
        rng = random.Random(f"consistency {distillation.seed} {rank.index} {step}")  # noqa: S311
        generator = torch.Generator().manual_seed(step * rank.count + rank.index)
        for group in optimizer.param_groups:
            group["lr"] = distillation.rate(step)
        count = distillation.batch_size
        fresh = count if step == first else max(count // FRESH_ONE_IN, 1)
        pool.refresh(rng, fresh, two_objects=distillation.two_objects)
        captions, latents = pool.sample(rng, count)
        words = _encode(parts, [caption.text for caption in captions])
        loss = compare_ends(networks, trajectories, latents, words, nothing, generator)
        parameters = list(networks.student.parameters())
        norm = rank.descend(loss, parameters, optimizer, clip_norm=CLIP_NORM)
        networks.average(distillation.ema_decay)
        if rank.is_first:
            values = {"loss": loss.item(), "gradient": norm.item()}
            journal.note(step, values, samples=count * rank.count)
            if step % CHECKPOINT_EVERY == 0 or step == distillation.steps:
                checkpoint.save(path, step, modules, optimizer)


@torch.no_grad()
def _encode(parts: Parts, texts: list[str]) -> Tensor:
    """Encode prompts; returns [B, T, D]."""
    tokens = parts.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    with autocast():
        words: Tensor = parts.text_encoder(tokens)[0]
    return words


def compare_ends(
    networks: Networks,
    trajectories: Trajectories,
    latents: Tensor,
    words: Tensor,
    nothing: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Compare where the student and the target say that trajectories end, from neighbouring points.

    Takes latents [B, C, h, w], their captions' words [B, T, D] and those of no caption.
    """
    count = len(latents)
    everywhere = torch.randint(0, TEACHER_STEPS, (count,), generator=generator)
    # What a picture shows is decided in the noise, and the ends of those trajectories change most.
    noisier = torch.randint(TEACHER_STEPS // 2, TEACHER_STEPS, (count,), generator=generator)
    index = torch.where(torch.arange(count) % 2 == 0, everywhere, noisier)
    timesteps, earlier = trajectories.timesteps[index], trajectories.neighbours[index]
    noise = torch.randn(latents.shape, generator=generator)
    noisy = trajectories.add_noise(latents, noise, timesteps)
    with torch.no_grad():
        prompts = torch.cat([nothing.expand_as(words), words])
        both = _predict(networks.teacher, noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), prompts)
        free, told = both.chunk(2)
        v = free + GUIDANCE * (told - free)
        before = trajectories.step_back(noisy, v, timesteps, earlier)
        wanted = trajectories.jump(
            before, _predict(networks.target, before, earlier, words), earlier
        )
    ends = trajectories.jump(noisy, _predict(networks.student, noisy, timesteps, words), timesteps)
    error = (ends - wanted).square().mean(dim=(1, 2, 3))
    return ((error + HUBER**2).sqrt() - HUBER).mean()


def _predict(unet: Any, noisy: Tensor, timesteps: Tensor, words: Tensor) -> Tensor:
    with autocast():
        v: Tensor = unet(noisy, timesteps, encoder_hidden_states=words).sample
    return v.float()


if __name__ == "__main__":
    typer.run(main)
