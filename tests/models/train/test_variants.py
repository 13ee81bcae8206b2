"""The variants differ in their training schedule and in nothing else."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from transformers import CLIPTokenizer

from models import CATALOG
from models.train.denoiser import make_denoiser
from models.train.parts import load_parts
from models.train.variants import BASELINE, VARIANTS, Variant, learn_evenly, train_variant
from shared.catalog import Catalog
from shared.schedule import TrainingSchedule
from shared.vocab import PredictionType

DEMO = CATALOG.parent / "demo"


def test_each_differs_from_the_first_in_one_thing() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS[1:]:
        is_other_schedule = variant.schedule != BASELINE.schedule
        assert is_other_schedule != (variant.seed != BASELINE.seed)
        assert variant.schedule["prediction_type"] == PredictionType.V_PREDICTION


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_training_and_serving_mean_the_same_noise(variant: Variant) -> None:
    trained: Any = DDPMScheduler(**variant.schedule)  # type: ignore[no-untyped-call]
    served = TrainingSchedule(
        num_train_timesteps=trained.config.num_train_timesteps,
        beta_start=trained.config.beta_start,
        beta_end=trained.config.beta_end,
        beta_schedule=trained.config.beta_schedule,
        zero_terminal_snr=trained.config.rescale_betas_zero_snr,
    )
    *levels, last = (math.exp(level) for level in served.log_sigmas)
    alpha_bars = trained.alphas_cumprod.double()
    sigmas = ((1 - alpha_bars) / alpha_bars).sqrt()
    assert sigmas[:-1].tolist() == pytest.approx(levels, rel=1e-3)
    # Without any signal its level has no end; serving has a large one instead.
    assert last == pytest.approx(4096 if math.isinf(sigmas[-1]) else sigmas[-1].item(), rel=0.01)


def test_no_timestep_is_preferred() -> None:
    assert learn_evenly(1).middle == (0, DDPMScheduler().config.num_train_timesteps)


def test_all_begin_at_the_same_denoiser_and_keep_the_text_encoder() -> None:
    parts = load_parts(DEMO)
    tokenizer = CLIPTokenizer.from_pretrained(DEMO / "tokenizer")
    first, second = (make_denoiser(tokenizer, seed=0, reader=parts.text_encoder) for _ in range(2))
    pairs = zip(first.unet.parameters(), second.unet.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    kept = {id(parameter) for parameter in parts.text_encoder.parameters()}
    assert not kept & {id(parameter) for parameter in first.parameters()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_variant_is_trained_and_served_with_its_schedule(tmp_path: Path) -> None:
    variant = next(variant for variant in VARIANTS if variant.name == "zero-snr")
    train_variant(variant, tmp_path, tmp_path / "models", DEMO, processes=1, steps=1)
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        f'default = "it"\n[models.it]\npath = "{tmp_path / "models" / variant.name}"\n'
        'revision = "1"\nmax_width = 64\nmax_height = 64\n'
    )
    spec = Catalog.load(catalog).models["it"]
    assert spec.training.zero_terminal_snr
    assert spec.prediction_type is PredictionType.V_PREDICTION
    ours, theirs = load_parts(spec.path), load_parts(DEMO)
    for part in ("vae", "text_encoder"):
        pairs = zip(
            getattr(ours, part).parameters(), getattr(theirs, part).parameters(), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)
