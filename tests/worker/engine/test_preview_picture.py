import dataclasses
import io

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models import CATALOG
from shared.catalog import Catalog
from shared.preview import MAX_BYTES
from shared.vocab import PredictionType
from worker.engine.preview_picture import MAX_SIDE, encode_preview, predict_clean

SPEC = Catalog.load(CATALOG).models["demo"]


@given(
    kind=st.sampled_from([PredictionType.EPSILON, PredictionType.V_PREDICTION]),
    timestep=st.integers(0, 999),
    seed=st.integers(0, 99),
)
def test_a_right_prediction_leads_back_to_what_noise_was_added_to(
    kind: PredictionType, timestep: int, seed: int
) -> None:
    scheduler = DDPMScheduler.from_pretrained(SPEC.path / "scheduler", local_files_only=True)
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 1, 4, 3, 5, generator=generator).unbind()
    at = torch.tensor([timestep])
    noisy = scheduler.add_noise(clean, noise, at)
    prediction = noise
    if kind is PredictionType.V_PREDICTION:
        prediction = scheduler.get_velocity(clean, noise, at)
    found = predict_clean(
        noisy[0].numpy(),
        prediction[0].numpy(),
        float(timestep),
        dataclasses.replace(SPEC, prediction_type=kind),
    )
    assert found.dtype == np.float32
    assert np.allclose(found, clean[0].numpy(), atol=2e-3)


def test_a_prediction_of_the_sample_is_the_answer() -> None:
    spec = dataclasses.replace(SPEC, prediction_type=PredictionType.SAMPLE)
    prediction = np.ones((4, 2, 2), np.float32)
    assert predict_clean(0 * prediction, prediction, 500.0, spec) is prediction


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (64, 64, (64, 64)),
        (128, 64, (128, 64)),
        (512, 512, (256, 256)),
        (1024, 768, (256, 192)),
        (4096, 8, (256, 1)),
    ],
)
def test_a_preview_has_the_job_s_shape_and_at_most_256_pixels(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    data = encode_preview(np.full((8, 8, 3), 90, np.uint8), width=width, height=height)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == expected


@pytest.mark.parametrize("num_levels", [2, 256])
def test_the_worst_picture_fits_into_a_message(num_levels: int) -> None:
    levels = np.random.default_rng(1).integers(0, num_levels, (MAX_SIDE, MAX_SIDE, 3))
    noise = (levels * (255 // (num_levels - 1))).astype(np.uint8)
    assert MAX_BYTES / 2 < len(encode_preview(noise, width=1024, height=1024)) <= MAX_BYTES
