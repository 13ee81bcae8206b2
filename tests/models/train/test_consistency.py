"""Distillation: its arithmetic is diffusers' own, it goes on after a stop, and what it writes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import safe_open
from torch import Tensor

from models import CATALOG
from models.train import checkpoint
from models.train.consistency import (
    TEACHER_STEPS,
    Distillation,
    Networks,
    Trajectories,
    compare_ends,
    distill,
    make_scheduler,
    write_student,
)
from models.train.denoiser import TRAINING_SCHEDULE
from shared.catalog import Catalog

SHAPE = (3, 4, 16, 16)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_jump_is_what_the_consistency_sampler_makes_of_a_prediction(
    generator: torch.Generator,
) -> None:
    scheduler = make_scheduler()
    trajectories = Trajectories(make_scheduler())
    noisy, v = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    for steps in (1, 4):
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            assert timestep in trajectories.timesteps
            scheduler._step_index = None
            end = scheduler.step(v, timestep, noisy, generator=generator).denoised
            ours = trajectories.jump(noisy, v, timestep.expand(SHAPE[0]))
            assert torch.allclose(ours, end, atol=1e-6)


def test_the_teacher_steps_by_ddim_along_all_timesteps(generator: torch.Generator) -> None:
    trajectories = Trajectories(make_scheduler())
    ddim: Any = DDIMScheduler(  # type: ignore[no-untyped-call]
        **TRAINING_SCHEDULE,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    ddim.set_timesteps(TEACHER_STEPS)
    assert ddim.timesteps.tolist() == trajectories.timesteps.tolist()[::-1]
    noisy, v = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    pairs = zip(trajectories.timesteps, trajectories.neighbours, strict=True)
    for timestep, earlier in pairs:
        theirs = ddim.step(v, timestep, noisy).prev_sample
        both = (at.expand(SHAPE[0]) for at in (timestep, earlier))
        assert torch.allclose(trajectories.step_back(noisy, v, *both), theirs, atol=1e-5)


def test_at_the_beginning_a_trajectory_has_ended(generator: torch.Generator) -> None:
    noisy, v = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    beginning = torch.zeros(SHAPE[0], dtype=torch.long)
    assert torch.equal(Trajectories(make_scheduler()).jump(noisy, v, beginning), noisy)


class KnowsThePicture:
    """A denoiser of a world with one picture: what it adds is what it is wrong by."""

    def __init__(self, picture: Tensor, error: float = 0.0) -> None:
        self._picture = picture
        self._error = error
        self._alpha_bars = make_scheduler().alphas_cumprod

    def __call__(self, noisy: Tensor, timesteps: Tensor, **_: Tensor) -> Any:
        alpha_bar = self._alpha_bars[timesteps][:, None, None, None]
        signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noise = (noisy - signal * self._picture) / sigma
        v = signal * noise - sigma * self._picture
        return SimpleNamespace(sample=v + self._error)


def test_who_knows_all_ends_has_nothing_to_learn(generator: torch.Generator) -> None:
    picture = torch.randn(1, *SHAPE[1:], generator=generator)
    knows, errs = KnowsThePicture(picture), KnowsThePicture(picture, error=0.1)
    latents, words = picture.expand(SHAPE), torch.zeros(SHAPE[0], 2, 8)
    trajectories = Trajectories(make_scheduler())

    def loss(student: Any) -> float:
        networks = Networks(teacher=knows, student=student, target=knows)
        generator.manual_seed(1)
        return compare_ends(networks, trajectories, latents, words, words[:1], generator).item()

    assert loss(knows) < 0.01 * loss(errs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_distillation_learns_goes_on_and_is_served_as_distilled(tmp_path: Path) -> None:
    teacher = CATALOG.parent / "demo"
    distill(tmp_path, teacher, Distillation(steps=2, batch_size=2, warmup=1), processes=2)
    distill(tmp_path, teacher, Distillation(steps=3, batch_size=2, warmup=1), processes=2)
    assert checkpoint.load(tmp_path / "consistency.safetensors", {}) == 3

    folder = tmp_path / "student"
    write_student(folder, teacher, tmp_path)
    with (
        safe_open(folder / "vae" / "diffusion_pytorch_model.safetensors", "pt") as ours,
        safe_open(teacher / "vae" / "diffusion_pytorch_model.safetensors", "pt") as theirs,
    ):
        assert all(torch.equal(ours.get_tensor(n), theirs.get_tensor(n)) for n in ours.keys())  # noqa: SIM118 - no mapping
    assert not [path for path in folder.rglob("*.json") if str(teacher) in path.read_text()]
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        f'default = "it"\n[models.it]\npath = "{folder}"\nrevision = "1"\n'
        "max_width = 64\nmax_height = 64\n"
    )
    spec = Catalog.load(catalog).models["it"]
    assert (spec.is_distilled, spec.teacher_steps) == (True, TEACHER_STEPS)
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a red star", num_inference_steps=2, guidance_scale=1).images
    assert image.size == (64, 64)
