"""Stable Audio against stock diffusers: alone bit for bit, in company within rounding."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from evals.stock_sound import StockSound
from evals.tiny_sounds import write_stable_audio
from shared.catalog import Catalog
from shared.errors import AdapterUnavailable, InvalidInput, NonFinite
from shared.request import GenerationRequest
from tests.fixtures.sounds import samples_of
from tests.worker.engine.conftest import PATIENCE_S, Submit, run_alone
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.lora import ActiveAdapter
from worker.engine.samplers import TrigonometricEDM

#: How far a sample in company may lie from one alone, as a share of the loudest.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def models(sound_catalog: Catalog) -> ModelCache:
    torch.set_num_threads(1)
    cache = ModelCache(sound_catalog, "cpu")
    for model_id in ("tiny", "angled"):
        cache.load(model_id)
    return cache


@pytest.fixture(scope="module")
def stock(sound_catalog: Catalog) -> StockSound:
    return StockSound(sound_catalog.models["tiny"].path)


def request(**changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "prompt": "a high tone rising, then two low clicks",
        "model": "tiny",
        "sampler": "edm_dpmpp_2m",
        "schedule": "native",
        "steps": 6,
        "guidance": 4.0,
        "seed": 7,
        "duration_s": 0.5,
        "output_format": "wav",
    }
    return GenerationRequest.model_validate(fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance": 1.0},
        {"negative_prompt": "noise, falling"},
        {"duration_s": 1.024, "seed": 2**40},
        {"duration_s": 0.1234},
        {"prompt": "two", "steps": 20},
    ],
    ids=str,
)
def test_alone_it_equals_stock_diffusers_bit_for_bit(
    models: ModelCache, stock: StockSound, changes: dict[str, Any]
) -> None:
    mine = request(**changes)
    ours = samples_of(run_alone(models, mine))
    assert ours.shape == (2, int(mine.duration_s * 4_000))  # type: ignore[operator]
    assert np.array_equal(ours, stock.make(mine))


def test_jobs_of_all_durations_share_forwards(
    submit_together: Submit, models: ModelCache, stock: StockSound
) -> None:
    requests = [
        request(),
        request(duration_s=1.0, steps=9, seed=8),
        request(guidance=1.0, prompt="a low noise", duration_s=0.2),
        request(negative_prompt="clicks", guidance=7.0),
    ]
    results = [future.result(PATIENCE_S) for future in submit_together(requests)]
    assert all(result.mean_rows > 4 for result in results)
    for mine, result in zip(requests, results, strict=True):
        theirs = stock.make(mine)
        assert np.abs(samples_of(result) - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_exact_jobs_are_the_same_in_any_company(
    submit_together: Submit, models: ModelCache
) -> None:
    exact = request(determinism="exact", num_outputs=2)
    alone = run_alone(models, exact)
    company = [exact, request(seed=1, duration_s=1.0), request(guidance=1.0, steps=3)]
    together = submit_together(company)[0].result(PATIENCE_S)
    assert together.exact_rows == 4
    for index in range(2):
        assert np.array_equal(samples_of(alone, index), samples_of(together, index))
    assert not np.array_equal(samples_of(alone, 0), samples_of(alone, 1))


def test_a_model_that_is_told_angles_is_told_angles(models: ModelCache, tmp_path: Path) -> None:
    # Equal weights: diffusers loads the folder itself with a library only that nothing here needs.
    stock = StockSound(
        write_stable_audio(tmp_path / "angled", audio_channels=1), scheduler=TrigonometricEDM
    )
    mine = request(model="angled", steps=12)
    ours = samples_of(run_alone(models, mine))
    assert ours.shape == (1, 2_000)
    assert np.array_equal(ours, stock.make(mine))


def test_the_angles_are_those_of_diffusers_own_scheduler(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes noise from there, which its levels do not need.
    monkeypatch.setitem(sys.modules, "torchsde", ModuleType("torchsde"))
    module = import_module("diffusers.schedulers.scheduling_cosine_dpmsolver_multistep")
    ours = models.get("angled").scheduler
    theirs = module.CosineDPMSolverMultistepScheduler.from_config(ours.config)
    sample, output = torch.randn(2, 1, 4, 9).unbind()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(12)
        scheduler.set_begin_index(0)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert torch.equal(ours.sigmas, theirs.sigmas)
    scaled = [one.scale_model_input(sample, one.timesteps[0]) for one in (ours, theirs)]
    assert torch.equal(*scaled)
    assert torch.equal(*(one.convert_model_output(output, sample) for one in (ours, theirs)))


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_its_sampler_places_levels(models: ModelCache, schedule: str) -> None:
    result = run_alone(models, request(schedule=schedule))
    assert np.isfinite(samples_of(result)).all()


def test_a_job_goes_on_from_its_state_with_the_same_bits(models: ModelCache) -> None:
    states = []
    mine = request(determinism="exact", steps=8)
    whole = run_alone(models, mine)
    for state in (None, "taken"):
        engine = Engine(EngineConfig(state_interval_s=0), models)
        engine.start()
        known = states[3] if state is not None else None
        future = engine.submit("job", mine, state=known, on_state=states.append)
        again = future.result(PATIENCE_S)
        engine.stop()
    assert again.resumed_at == states[3].iteration > 0
    assert np.array_equal(samples_of(whole), samples_of(again))


def test_pieces_of_a_decode_fit_together(models: ModelCache) -> None:
    family = models.get("tiny")
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        latents = family.latents(request(), generator)
        latents = torch.cat([latents] * 3, dim=2)  # longer than what overlaps
        whole, pieces = (family.decode(latents, tiles=tiles) for tiles in (1, 4))
    assert not isinstance(whole, np.ndarray)
    assert not isinstance(pieces, np.ndarray)
    np.testing.assert_allclose(whole.samples, pieces.samples, atol=1e-5)


def test_what_leaves_the_range_is_no_sound(models: ModelCache) -> None:
    family = models.get("tiny")
    with torch.inference_mode(), pytest.raises(NonFinite):
        family.decode(torch.full((1, 4, 128), torch.nan))


def test_a_prompt_that_is_too_long_is_refused(models: ModelCache) -> None:
    with pytest.raises(InvalidInput, match="the model takes 16"):
        run_alone(models, request(prompt="tone " * 16))


def test_an_adapter_is_not_passed_over(models: ModelCache) -> None:
    with pytest.raises(AdapterUnavailable, match="none is served with stable_audio models"):
        models.get("tiny").bind("unet", [ActiveAdapter("gray", 1.0, {})])
