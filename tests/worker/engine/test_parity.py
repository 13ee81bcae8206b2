"""A job alone against stock diffusers, bit for bit."""

import itertools
from typing import Any

import numpy as np
import pytest

from evals.stock import StockDiffusers
from shared.compatibility import DIFFUSION_SAMPLERS
from tests.worker.engine.conftest import request, run_alone
from worker.engine import ModelCache


@pytest.mark.parametrize(
    ("sampler", "changes", "config"),
    [
        *((sampler, {}, {}) for sampler in DIFFUSION_SAMPLERS),
        *((sampler, {"guidance": 1.0}, {}) for sampler in DIFFUSION_SAMPLERS),
        ("ddim", {"guidance": 12.0, "guidance_rescale": 0.7}, {}),
        ("ddim", {"negative_prompt": "a blue ring"}, {}),
        ("ddim", {"width": 96, "height": 48}, {}),
        *(
            (sampler, {"schedule": schedule}, {f"use_{schedule}_sigmas": True})
            for sampler, schedule in itertools.product(
                ("dpmpp_2m", "dpmpp_2m_sde", "euler", "heun"), ("karras", "exponential", "beta")
            )
        ),
    ],
    ids=str,
)
def test_equals_stock_diffusers(
    models: ModelCache,
    stock: StockDiffusers,
    sampler: str,
    changes: dict[str, Any],
    config: dict[str, Any],
) -> None:
    mine = request(sampler=sampler, steps=7, allow_undistilled=True, **changes)
    ours = run_alone(models, mine).outputs[0].pixels
    assert np.array_equal(ours, stock.draw(mine, **config).pixels)
