"""Jobs of a pipeline that is run by its own call."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals.stock import StockDiffusers
from evals.tiny_dit import write_tiny_dit
from models import CATALOG
from shared.catalog import Catalog
from shared.errors import ConfigurationError, InvalidInput, ModelUnavailable, OutOfMemory
from shared.request import GenerationRequest
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from tests.worker.engine.faults import allocate_too_much, run_together
from worker.engine import Engine, EngineConfig, JobCanceled, JobResult, ModelCache

ENTRY = """
default = "demo"
[models.demo]
path = "{demo}"
revision = "3"
[models.whole]
path = "{demo}"
revision = "3"
family = "pipeline"
max_width = 128
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> ModelCache:
    """The demo model twice: step by step, and as a pipeline."""
    torch.set_num_threads(1)
    file = tmp_path_factory.mktemp("catalog") / "catalog.toml"
    file.write_text(ENTRY.format(demo=CATALOG.parent / "demo"))
    cache = ModelCache(Catalog.load(file), "cpu")
    for model_id in ("demo", "whole"):
        cache.load(model_id)
    return cache


def whole(**changes: object) -> GenerationRequest:
    return request(**{"model": "whole", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "ddim"},
        {"sampler": "dpmpp_2m_sde", "guidance": 1.0},
        {"sampler": "heun", "negative_prompt": "a blue ring"},
        {"sampler": "euler_ancestral", "seed": 11},
        {"sampler": "ddim", "guidance": 9.0, "guidance_rescale": 0.7, "width": 96},
    ],
    ids=str,
)
def test_a_pipelines_call_gives_what_stock_diffusers_gives(
    both: ModelCache, stock: StockDiffusers, changes: dict[str, Any]
) -> None:
    mine = whole(steps=5, **changes)
    result = run_alone(both, mine)
    assert np.array_equal(result.outputs[0].pixels, stock.draw(mine).pixels)
    assert result.iterations == mine.iterations


def test_calls_take_turns_with_each_other_and_with_other_models(both: ModelCache) -> None:
    jobs = [
        whole(num_outputs=2, steps=3),
        request(steps=4),
        whole(steps=6, seed=9, sampler="dpmpp_2m", determinism="exact"),
    ]
    outcomes = run_together(both, jobs)
    for job, outcome in zip(jobs, outcomes, strict=True):
        assert isinstance(outcome, JobResult), outcome
        alone = run_alone(both, job)
        for found, expected in zip(outcome.outputs, alone.outputs, strict=True):
            assert np.array_equal(found.pixels, expected.pixels)
    assert {outcome.mean_rows for outcome in (outcomes[0], outcomes[2])} == {1}


def test_a_canceled_call_ends_and_leaves_nothing(both: ModelCache) -> None:
    engine = Engine(EngineConfig(), both)
    engine.start()
    try:
        future = engine.submit("long", whole(steps=1000, sampler="ddpm"))
        while engine.progress().get("long", 0) < 3:
            threading.Event().wait(0.005)
        engine.cancel("long")
        with pytest.raises(JobCanceled):
            future.result(PATIENCE_S)
        assert engine.submit("next", whole(steps=1)).result(PATIENCE_S)
    finally:
        engine.stop()
    for thread in [one for one in threading.enumerate() if one.name == "pipeline"]:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_no_state_is_taken_of_a_call(both: ModelCache) -> None:
    states: list[object] = []
    engine = Engine(EngineConfig(state_interval_s=0.0), both)
    engine.start()
    try:
        job = engine.submit("a", whole(steps=4), on_state=states.append)
        assert job.result(PATIENCE_S)
    finally:
        engine.stop()
    assert states == []


def test_a_call_that_fails_is_its_own_jobs_business(
    both: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = both.get("whole")
    forward = family._pipeline.unet.forward

    def fail_when_large(sample: torch.Tensor, *args: Any, **named: Any) -> Any:
        if sample.shape[-1] > 16:
            allocate_too_much()
        return forward(sample, *args, **named)

    monkeypatch.setattr(family._pipeline.unet, "forward", fail_when_large)
    good, bad = whole(steps=3), whole(steps=3, width=128)
    outcomes = run_together(both, [bad, good])
    assert isinstance(outcomes[0], OutOfMemory)
    assert "128x64" in outcomes[0].detail
    assert isinstance(outcomes[1], JobResult)


def test_what_a_pipeline_cannot_be_told_is_refused_and_not_left_out(
    both: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = both.get("whole")
    monkeypatch.setattr(family, "_arguments", family._arguments - {"negative_prompt", "width"})
    assert run_alone(both, whole(steps=1))
    for changes in ({"negative_prompt": "a ring"}, {"width": 128}):
        with pytest.raises(InvalidInput, match=next(iter(changes))):
            run_alone(both, whole(**changes))


def test_a_pipeline_without_a_prompt_is_not_served(tmp_path: Path) -> None:
    catalog = write_tiny_dit(tmp_path / "dit")
    catalog.write_text(catalog.read_text() + 'family = "pipeline"\n')
    with pytest.raises(ModelUnavailable, match="cannot be told prompt"):
        ModelCache(Catalog.load(catalog), "cpu").load("labels")


def test_a_pipeline_of_no_family_says_how_it_can_be_served(tmp_path: Path) -> None:
    folder = write_tiny_dit(tmp_path / "dit").parent / "dit"
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"DiTPipeline"', '"KandinskyPipeline"'))
    with pytest.raises(ConfigurationError, match="family = 'pipeline'"):
        Catalog.load(tmp_path / "catalog.toml")
