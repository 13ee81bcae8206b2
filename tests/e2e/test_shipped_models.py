"""A job of each model that is shipped, over HTTP: does it show what was asked?"""

import io
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evals.labels import JUDGE
from models import CATALOG
from models.train.label_denoiser import LABELS
from models.train.label_judge import LabelJudge
from shared.catalog import Catalog
from tests.fixtures.stack import JsonObject, Stack

SHELF = Catalog.load(CATALOG).models


def picture_of(job: JsonObject) -> NDArray[np.uint8]:
    assert job["status"] == "succeeded", job["error"]
    (artifact,) = job["artifacts"]
    data = httpx.get(artifact["url"]).raise_for_status().content
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_labels_are_drawn(stack: Stack) -> None:
    jobs = [stack.submit(model="demo-classes", class_label=label, seed=1) for label in LABELS]
    done = stack.wait([job["id"] for job in jobs])
    names = LabelJudge.load(JUDGE).name([picture_of(job) for job in done])
    named = sum(name == label for name, label in zip(names, LABELS, strict=True))
    assert named >= 0.7 * len(LABELS)  # the model's card has the share of many
    guidance = SHELF["demo-classes"].presets["balanced"].guidance
    assert {job["request"]["guidance"] for job in done} == {guidance}


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"model": "demo-classes", "prompt": "a cat"}, "#/prompt"),
        ({"model": "demo-classes", "class_label": "unicorn"}, "#/class_label"),
        ({"model": "demo-classes", "class_label": "cat", "width": 128}, "#/width"),
        ({"model": "demo", "prompt": "a cat", "sampler": "lcm"}, "#/sampler"),
    ],
)
def test_what_a_model_does_not_take_is_refused(
    stack: Stack, fields: dict[str, Any], pointer: str
) -> None:
    refused = stack.http.post("/v1/jobs", json=fields)
    assert refused.status_code == 422
    assert pointer in [error["pointer"] for error in refused.json()["errors"]]
