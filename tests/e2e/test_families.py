"""A job of every family, from the outside: as different as their models are, they go one way."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.catalog import Catalog
from tests.fixtures.families import TINY
from tests.fixtures.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def families(server_folder: Path, tiny_catalog: Catalog) -> Iterator[Stack]:
    """A LatentQ of one worker with a tiny model of every family."""
    catalog = tiny_catalog.models[TINY[0]].path.parent / "catalog.toml"
    with Stack(server_folder / "families", workers=1, LATENTQ_CATALOG=str(catalog)) as stack:
        yield stack


def test_a_job_of_every_family_makes_its_picture(families: Stack) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    picture = families.upload(file.getvalue())
    bodies = [{"model": model_id, "width": 48, "preset": "fast"} for model_id in TINY]
    bodies.append({"model": "sdxl", "width": 48, "init_image": picture})
    jobs = [families.submit(prompt="a red star", seed=7, **body) for body in bodies]
    for body, job in zip(bodies, families.wait([job["id"] for job in jobs]), strict=True):
        assert (job["status"], job["error"]) == ("succeeded", None)
        (artifact,) = job["artifacts"]
        assert (artifact["width"], artifact["height"]) == (48, 32)
        assert job["request"]["model"] == body["model"]


def test_models_say_what_each_takes(families: Stack) -> None:
    models = {model["id"]: model for model in families.http.get("/v1/models").json()["data"]}
    assert models["flux"]["guidance"] == "told"
    assert (models["sd3"]["process"], models["sd3"]["size_step"]) == ("flow", 8)
    refused = families.http.post(
        "/v1/jobs", json={"prompt": "a red star", "model": "flux", "negative_prompt": "blue"}
    )
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/negative_prompt"
