"""What the shipped models draw over HTTP, beside the default one: does it show what was asked?"""

import io

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models import CATALOG
from models.train.label_denoiser import LABELS
from shared.catalog import Catalog
from tests.fixtures.labels import shows_labels
from tests.fixtures.stack import JsonObject, Stack


def picture_of(job: JsonObject) -> NDArray[np.uint8]:
    assert job["status"] == "succeeded", job["error"]
    (artifact,) = job["artifacts"]
    data = httpx.get(artifact["url"]).raise_for_status().content
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_labels_are_drawn(stack: Stack) -> None:
    jobs = [stack.submit(model="demo-classes", class_label=label, seed=1) for label in LABELS]
    done = stack.wait([job["id"] for job in jobs])
    assert shows_labels([picture_of(job) for job in done])
    guidance = Catalog.load(CATALOG).models["demo-classes"].presets["balanced"].guidance
    assert {job["request"]["guidance"] for job in done} == {guidance}
