"""Jobs that start from a picture: alone against stock diffusers bit for bit, and in company."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evals.stock import StockDiffusers
from shared.compatibility import DIFFUSION_SAMPLERS
from shared.request import GenerationRequest
from shared.vocab import Sampler
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from worker.engine import Engine, EngineConfig, JobResult, ModelCache, SourceImage

PIXELS = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
#: The right half is made anew.
MASK = np.repeat([[0.0, 1.0]], 32, axis=1).repeat(64, axis=0).astype(np.float32)
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # PNDM cannot begin behind the step that it takes twice.
    *((sampler, {}, {}) for sampler in DIFFUSION_SAMPLERS if sampler is not Sampler.PNDM),
    *((sampler, {"strength": 1.0, "guidance": 1.0}, {}) for sampler in ("pndm", "ddim", "heun")),
    ("dpmpp_2m_sde", {"strength": 0.2, "guidance": 1.0}, {}),
    ("dpmpp_2m", {"schedule": "karras"}, {"use_karras_sigmas": True}),
]


Job = tuple[GenerationRequest, SourceImage | None]


def run_together(models: ModelCache, jobs: Sequence[Job]) -> list[JobResult]:
    """Run jobs on an engine that begins with all of them."""
    engine = Engine(EngineConfig(), models)
    futures = [engine.submit(str(n), *job) for n, job in enumerate(jobs)]
    engine.start()
    try:
        return [future.result(PATIENCE_S) for future in futures]
    finally:
        engine.stop()


@pytest.mark.parametrize(("sampler", "changes", "config"), CASES, ids=str)
@pytest.mark.parametrize("mask", [None, MASK], ids=["image", "mask"])
def test_a_job_alone_equals_stock_diffusers(
    models: ModelCache,
    stock: StockDiffusers,
    sampler: str,
    changes: dict[str, Any],
    config: dict[str, Any],
    mask: np.ndarray | None,
) -> None:
    mine = request(sampler=sampler, steps=5, **{"strength": 0.6} | changes)
    ours = run_alone(models, mine, SourceImage(PIXELS, mask))
    region = None if mask is None else Image.fromarray((mask * 255).astype(np.uint8))
    theirs = stock.redraw(mine, Image.fromarray(PIXELS), region, **config)
    assert np.array_equal(ours.outputs[0].pixels, theirs)
    assert ours.iterations == mine.iterations


def test_sizes_other_than_the_models_own_and_masks_finer_than_a_latent_cell(
    models: ModelCache, stock: StockDiffusers
) -> None:
    mine = request(steps=4, strength=0.5, width=96, height=48)
    pixels = np.random.default_rng(2).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    mask = np.random.default_rng(3).integers(0, 2, (48, 96)).astype(np.float32)
    ours = run_alone(models, mine, SourceImage(pixels, mask)).outputs[0].pixels
    region = Image.fromarray((mask * 255).astype(np.uint8))
    assert np.array_equal(ours, stock.redraw(mine, Image.fromarray(pixels), region))


@pytest.mark.parametrize("mask", [None, MASK], ids=["image", "mask"])
@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
def test_an_exact_job_gives_the_same_bits_in_any_company(
    models: ModelCache, sampler: str, mask: np.ndarray | None
) -> None:
    mine = request(sampler=sampler, steps=5, strength=0.6, determinism="exact")
    alone = run_alone(models, mine, SourceImage(PIXELS, mask))
    company: list[Job] = [
        (request(steps=5), None),
        (request(steps=4, strength=0.9, guidance=1), SourceImage(PIXELS)),
        (request(steps=4, determinism="exact"), None),
        (request(steps=4, strength=0.9, determinism="exact"), SourceImage(PIXELS, 1 - MASK)),
    ]
    together = run_together(models, [*company, (mine, SourceImage(PIXELS, mask))])[-1]
    assert together.mean_rows > alone.mean_rows
    assert np.array_equal(together.outputs[0].pixels, alone.outputs[0].pixels)


def test_company_changes_a_fast_job_by_rounding_only(
    models: ModelCache,
) -> None:
    mine, source = request(sampler="euler", steps=6, strength=0.7), SourceImage(PIXELS, MASK)
    alone = run_alone(models, mine, source).outputs[0].pixels
    company = [(request(steps=6, seed=n), None) for n in range(3)]
    shared = run_together(models, [(mine, source), *company])[0].outputs[0].pixels
    assert np.abs(alone.astype(int) - shared.astype(int)).max() <= 1


def test_every_output_has_its_own_seed_and_can_be_made_again_alone(models: ModelCache) -> None:
    mine = request(steps=4, strength=0.6, num_outputs=3, seed=4, determinism="exact")
    result = run_alone(models, mine, SourceImage(PIXELS, MASK))
    assert len({output.pixels.tobytes() for output in result.outputs}) == 3
    assert result.iterations == mine.iterations == 6
    again = run_alone(
        models, mine.model_copy(update={"seed": 6, "num_outputs": 1}), SourceImage(PIXELS, MASK)
    )
    assert np.array_equal(again.outputs[0].pixels, result.outputs[2].pixels)


def test_what_the_mask_keeps_is_kept(models: ModelCache) -> None:
    drawn = run_alone(models, request(steps=10)).outputs[0].pixels

    def redraw(mask: np.ndarray, **changes: Any) -> np.ndarray:
        mine = request(prompt="a small blue ring on a pink background", steps=10, **changes)
        source = SourceImage(drawn, mask.astype(np.float32))
        return run_alone(models, mine, source).outputs[0].pixels.astype(int)

    # All kept: the picture as the decoder gives it back, whatever the prompt and the sampler.
    kept = redraw(np.zeros((64, 64)), strength=1.0)
    assert np.array_equal(kept, redraw(np.zeros((64, 64)), strength=1.0, sampler="ddpm"))
    half = np.abs(redraw(MASK, strength=1.0) - kept)
    # The decoder sees across the border and evens out the whole picture.
    assert half[:, :24].mean() < 8
    assert half[:, 40:].mean() > 40


def test_the_less_strength_the_less_changes(models: ModelCache) -> None:
    drawn = run_alone(models, request(steps=10)).outputs[0].pixels

    def change(**changes: Any) -> float:
        mine = request(steps=10, **changes)
        redrawn = run_alone(models, mine, SourceImage(drawn)).outputs[0].pixels
        return float(np.abs(redrawn.astype(int) - drawn).mean())

    # Of the same prompt, there is nothing to change.
    assert change(strength=0.1) < 5
    other = "a small blue ring on a pink background"
    changed = [change(prompt=other, strength=strength) for strength in (0.1, 0.5, 1.0)]
    assert 5 < changed[0] < changed[1] < changed[2]


def test_a_source_goes_with_a_strength(engine: Engine) -> None:
    with pytest.raises(ValueError, match="strength"):
        engine.submit("a", request(strength=0.5))
    with pytest.raises(ValueError, match="strength"):
        engine.submit("b", request(), SourceImage(PIXELS))


@given(st.sampled_from(Sampler), st.integers(1, 1000), st.floats(0, 1, exclude_min=True))
def test_iterations_count_what_is_left_of_the_steps(
    sampler: Sampler, steps: int, strength: float
) -> None:
    full = request(sampler=sampler, steps=steps).iterations
    left = request(sampler=sampler, steps=steps, strength=strength)
    whole_steps = int(steps * strength)
    if whole_steps:
        one_step = request(sampler=sampler, steps=1).iterations
        assert one_step <= left.iterations <= full
    assert (left.iterations == full) == (whole_steps == steps)
    assert left.first_iteration + left.iterations == full
