"""Jobs of a class-conditional transformer against stock diffusers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evals.label_parity import StockLabels
from evals.tiny_dit import SIDE, write_tiny_dit
from shared.catalog import Catalog
from shared.errors import InvalidInput
from shared.request import GenerationRequest
from tests.worker.engine.conftest import run_alone
from tests.worker.engine.faults import files_of, run_together
from worker.engine import ModelCache, SourceImage


@pytest.fixture(scope="module", params=[True, False], ids=["variance", "plain"])
def catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("tiny") / "dit"
    return Catalog.load(write_tiny_dit(folder, learns_variance=request.param))


@pytest.fixture(scope="module")
def labels(catalog: Catalog) -> ModelCache:
    torch.set_num_threads(1)
    models = ModelCache(catalog, "cpu")
    models.load("labels")
    return models


@pytest.fixture(scope="module")
def stock(catalog: Catalog) -> StockLabels:
    return StockLabels(catalog.models["labels"].path)


def wish(**changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "class_label": 7,
        "model": "labels",
        "sampler": "ddim",
        "schedule": "native",
        "steps": 5,
        "guidance": 4.0,
        "seed": 3,
        "width": SIDE,
        "height": SIDE,
    }
    return GenerationRequest.model_validate(fields | changes)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_alone_it_equals_stock_diffusers_bit_for_bit(
    labels: ModelCache, stock: StockLabels, sampler: str, guidance: float
) -> None:
    mine = wish(sampler=sampler, guidance=guidance)
    assert np.array_equal(run_alone(labels, mine).outputs[0].pixels, stock.draw(mine))


def test_company_changes_rounding_and_an_exact_job_not_even_that(
    labels: ModelCache, stock: StockLabels
) -> None:
    jobs = [
        wish(class_label=label, steps=steps, guidance=guidance, seed=seed)
        for seed, (label, steps, guidance) in enumerate(
            [(0, 3, 1.0), (7, 7, 4.0), (981, 5, 2.5), (7, 4, 1.0)]
        )
    ]
    exact = wish(class_label=981, determinism="exact")
    outcome, *rest = run_together(labels, [exact, *jobs])
    assert files_of(outcome, exact) == files_of(run_alone(labels, exact), exact)
    for job, found in zip(jobs, rest, strict=True):
        difference = np.abs(found.outputs[0].pixels.astype(int) - stock.draw(job))
        assert difference.max() <= 1


def test_a_job_that_starts_from_a_picture_fails_alone_with_a_reason(labels: ModelCache) -> None:
    picture = SourceImage(np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(InvalidInput, match="picture"):
        run_alone(labels, wish(strength=0.5), picture)


def test_what_the_files_say_of_it(catalog: Catalog, tmp_path: Path) -> None:
    spec = catalog.models["labels"]
    assert spec.labels is not None
    assert spec.labels["Tinca tinca"] == spec.labels["tench"] == 0
    assert (spec.width, spec.max_height, spec.has_one_size) == (SIDE, SIDE, True)
    assert not spec.starts_from_pictures
