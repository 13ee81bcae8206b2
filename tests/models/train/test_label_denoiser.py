"""Trainings of a few steps: that they learn, stop and go on; not how well they draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline

from models import CATALOG
from models.train import checkpoint, classes
from models.train.label_denoiser import (
    LABELS,
    NULL_LABEL,
    LabelDenoiser,
    LabelTraining,
    make_label_denoiser,
    train_label_denoiser,
)

DEMO = CATALOG.parent / "demo"


def make_distinct() -> LabelDenoiser:
    """Untrained, but what it draws depends on everything it is given."""
    denoiser = make_label_denoiser(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in denoiser.ema_transformer.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return denoiser


def draw(folder: Path, numbers: list[int]) -> Any:
    pipeline: Any = DiTPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.get_label_ids([LABELS[0], LABELS[-1]]) == [0, len(LABELS) - 1]
    generators = [torch.Generator().manual_seed(7) for _ in numbers]
    return pipeline(numbers, generator=generators, num_inference_steps=2, output_type="np").images


def test_before_training_the_answer_is_nothing_for_every_label() -> None:
    transformer = make_label_denoiser(seed=0).transformer
    labels = torch.tensor([0, len(LABELS) - 1, NULL_LABEL])
    with torch.no_grad():
        answer = transformer(
            torch.randn(3, 4, 16, 16), torch.tensor([1, 500, 999]), class_labels=labels
        ).sample
    assert answer.shape == (3, 4, 16, 16)
    assert answer.abs().max() == 0


def test_an_export_loads_in_stock_diffusers_and_draws_by_label(tmp_path: Path) -> None:
    classes.export(tmp_path, classes.load_vae(DEMO), make_distinct())
    first, again, second, stranger, none = draw(tmp_path, [0, 0, 1, 500, NULL_LABEL])
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, again)
    assert np.abs(first - second).max() > 0.01
    # A number that stands for nothing changes nothing.
    assert np.array_equal(stranger, none)
    assert np.abs(first - none).max() > 0.01
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) < 25e6


def test_the_autoencoder_is_that_of_the_demo_model(tmp_path: Path) -> None:
    classes.export(tmp_path, classes.load_vae(DEMO), make_label_denoiser(seed=0))
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "vae" / name).read_bytes() == (DEMO / "vae" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_learns_stops_and_goes_on(tmp_path: Path) -> None:
    vae = classes.load_vae(DEMO)
    train_label_denoiser(tmp_path, vae, LabelTraining(2, batch_size=2), processes=2)
    denoiser = train_label_denoiser(tmp_path, vae, LabelTraining(3, batch_size=2), processes=2)
    fresh = make_label_denoiser(seed=0)
    assert checkpoint.load(tmp_path / "denoiser.safetensors", fresh.modules) == 3
    weights = denoiser.ema_transformer.proj_out_2.weight
    assert torch.equal(weights, fresh.ema_transformer.proj_out_2.weight)
    assert weights.abs().max() > 0
