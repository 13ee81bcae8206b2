"""The adapter that is shipped, and that its training makes one."""

from pathlib import Path

import numpy as np
import pytest

from models import CATALOG
from models.train import adapter
from shared.adapters import FILE_NAME
from shared.catalog import Catalog
from shared.request import GenerationRequest
from tests.fixtures.loras import write_catalog
from worker.engine import AdapterCache, Engine, EngineConfig, ModelCache
from worker.engine.lora import DENOISER
from worker.engine.lora_file import load

#: Bytes that a repository may have of it.
MOST_BYTES = 500_000


def draw_colors(catalog: Catalog, weights: list[float]) -> list[float]:
    """How far the channels of a pixel are apart on average, for one picture at each weight."""
    engine = Engine(
        EngineConfig(), ModelCache(catalog, "cpu"), adapters=AdapterCache(catalog.adapters, "cpu")
    )
    engine.start()
    try:
        jobs = [
            engine.submit(
                str(weight),
                GenerationRequest(
                    prompt="a large red star on a yellow background",
                    model="demo",
                    sampler="dpmpp_2m",
                    schedule="native",
                    steps=8,
                    guidance=2.0,
                    seed=7,
                    width=64,
                    height=64,
                    adapters=[{"id": "gray", "weight": weight}],
                ),
            )
            for weight in weights
        ]
        pictures = [job.result(60).outputs[0].pixels for job in jobs]
    finally:
        engine.stop()
    return [float(np.ptp(picture.astype(int), axis=2).mean()) for picture in pictures]


def test_it_takes_colors_out_by_its_weight_and_is_small() -> None:
    catalog = Catalog.load(CATALOG)
    none, half, whole = draw_colors(catalog, [0.0, 0.5, 1.0])
    assert none > 1.3 * half > 1.3 * 1.3 * whole
    assert catalog.adapters["gray"].path.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_its_training_makes_a_file_that_fits_the_model(tmp_path: Path) -> None:
    adapter.main(CATALOG.parent / "demo", tmp_path / "gray", steps=2, seed=1)
    branches = load(tmp_path / "gray" / FILE_NAME, "cpu")
    assert {branch.up.shape[1] for branch in branches[DENOISER].values()} == {adapter.RANK}
    catalog = write_catalog(tmp_path, {"gray": tmp_path / "gray"})
    assert draw_colors(catalog, [1.0])[0] > 0
