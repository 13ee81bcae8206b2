"""AudioLDM 2 against stock diffusers: alone bit for bit, in company within rounding."""

from typing import Any

import numpy as np
import pytest
import torch

from evals.stock_sound import StockSound
from shared.catalog import Catalog
from shared.errors import InvalidInput, NonFinite
from shared.request import GenerationRequest
from tests.fixtures.sounds import samples_of
from tests.worker.engine.conftest import PATIENCE_S, Submit, run_alone
from worker.engine import ModelCache

#: How far a sample may lie from stock diffusers', as a share of the loudest: in company, and where
#: a prompt was filled up.
TOLERANCE = 1e-4
#: Sixteen tokens, a whole block; and one less.
WHOLE, LESS = "tone " * 15, "tone " * 14


@pytest.fixture(scope="module")
def models(sound_catalog: Catalog) -> ModelCache:
    torch.set_num_threads(1)
    cache = ModelCache(sound_catalog, "cpu")
    cache.load("spectral")
    return cache


@pytest.fixture(scope="module")
def stock(sound_catalog: Catalog) -> StockSound:
    return StockSound(sound_catalog.models["spectral"].path)


def request(**changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "prompt": WHOLE,
        "model": "spectral",
        "sampler": "ddim",
        "schedule": "native",
        "steps": 5,
        "guidance": 4.0,
        "seed": 7,
        "duration_s": 0.2,
        "output_format": "flac",
    }
    return GenerationRequest.model_validate(fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance": 1.0},
        {"negative_prompt": "noise, falling"},
        {"prompt": "tone " * 31, "duration_s": 0.1234, "seed": 2**40},
    ],
    ids=str,
)
def test_alone_it_equals_stock_diffusers_bit_for_bit(
    models: ModelCache, stock: StockSound, changes: dict[str, Any]
) -> None:
    mine = request(**changes)
    ours = samples_of(run_alone(models, mine))
    assert ours.shape == (1, int(mine.duration_s * 4_000))  # type: ignore[operator]
    assert np.array_equal(ours, stock.make(mine))


def test_a_prompt_that_is_filled_up_sounds_the_same(models: ModelCache, stock: StockSound) -> None:
    mine = request(prompt=LESS, negative_prompt="noise")
    ours, theirs = samples_of(run_alone(models, mine)), stock.make(mine)
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()
    assert np.abs(ours - samples_of(run_alone(models, request()))).max() > 100 * TOLERANCE


def test_a_negative_prompt_that_is_longer_is_read_to_its_end(models: ModelCache) -> None:
    """The pipeline reads as many tokens of it as the prompt has, and drops the others."""
    beginning = "noise " * 20
    ends = [samples_of(run_alone(models, request(negative_prompt=beginning + end)))
            for end in ("rising", "falling")]  # fmt: skip
    assert not np.array_equal(*ends)


def test_prompts_of_a_block_share_forwards_and_durations_do_not(
    submit_together: Submit, stock: StockSound
) -> None:
    requests = [
        request(),
        request(prompt=LESS, seed=8, steps=9, guidance=1.0),
        request(prompt="two clicks", negative_prompt="noise", seed=9),
        request(duration_s=0.4),
    ]
    results = [future.result(PATIENCE_S) for future in submit_together(requests)]
    assert [result.mean_rows > 2 for result in results] == [True, True, True, False]
    for mine, result in zip(requests, results, strict=True):
        theirs = stock.make(mine)
        assert np.abs(samples_of(result) - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_exact_jobs_are_the_same_in_any_company(
    submit_together: Submit, models: ModelCache
) -> None:
    exact = request(determinism="exact", num_outputs=2)
    alone = run_alone(models, exact)
    together, *_ = submit_together([exact, request(seed=1), request(guidance=1.0, steps=3)])
    for index in range(2):
        ours = samples_of(together.result(PATIENCE_S), index)
        assert np.array_equal(samples_of(alone, index), ours)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler", "heun"])
def test_the_samplers_of_diffusion_are_its_own(models: ModelCache, sampler: str) -> None:
    result = run_alone(models, request(sampler=sampler, schedule="karras"))
    assert np.isfinite(samples_of(result)).all()


def test_tiles_of_a_spectrogram_fit_together(models: ModelCache) -> None:
    family = models.get("spectral")
    with torch.inference_mode():
        noise = family.latents(request(duration_s=0.5), torch.Generator().manual_seed(0))
        whole, tiled = (family.decode(noise, tiles=tiles) for tiles in (1, 2))
    assert not isinstance(whole, np.ndarray)
    assert not isinstance(tiled, np.ndarray)
    assert whole.samples.shape == tiled.samples.shape == (1, 2_000)


def test_what_leaves_the_range_is_no_sound(models: ModelCache) -> None:
    with torch.inference_mode(), pytest.raises(NonFinite):
        models.get("spectral").decode(torch.full((1, 4, 50, 4), torch.nan))


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_prompt_that_is_too_long_is_refused(models: ModelCache, name: str) -> None:
    with pytest.raises(InvalidInput, match="the model takes 64"):
        run_alone(models, request(**{name: "tone " * 64}))
