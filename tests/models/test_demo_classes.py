"""The model that draws by label: its files, and that its card says what was measured."""

import json
from typing import Any

import numpy as np
import torch
from diffusers import DiTPipeline

from evals.labels import GUIDANCE, TARGET
from models import CATALOG
from models.train.label_denoiser import LABELS
from shared.catalog import Catalog
from tests.fixtures.labels import shows_labels

FOLDER = CATALOG.parent / "demo-classes"


def measured() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((FOLDER / "training" / "labels.json").read_text())
    return figures


def test_it_loads_in_stock_diffusers_and_draws_its_labels() -> None:
    pipeline = DiTPipeline.from_pretrained(
        FOLDER, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        class_labels=pipeline.get_label_ids(list(LABELS)),
        guidance_scale=GUIDANCE,
        num_inference_steps=15,
        generator=torch.Generator().manual_seed(0),
    ).images
    assert {image.size for image in images} == {(64, 64)}
    assert shows_labels([np.asarray(image) for image in images])


def test_the_catalog_knows_its_labels_and_its_guidance() -> None:
    spec = Catalog.load(CATALOG).models["demo-classes"]
    assert spec.labels == {label: number for number, label in enumerate(LABELS)}
    assert spec.presets["balanced"].guidance == GUIDANCE == measured()["guidance"]


def test_it_reached_its_target() -> None:
    named = measured()["pictures"][f"the model at guidance {GUIDANCE:g}"]["named"]
    assert named["count"] >= 300
    assert named["share"] >= TARGET


def test_the_card_says_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text()
    figures = measured()
    rows = {**figures["pictures"], **{f"{row['guidance']:g}": row for row in figures["sweep"]}}
    for name, row in rows.items():
        shares = []
        for judge in ("named", "found"):
            low, high = row[judge]["interval"]
            shares += [f"{row[judge]['share']:.1%}", f"{low:.1%} to {high:.1%}"]
        assert f"| {name} | {' | '.join(shares)} | {row['diversity']:.1f} |" in card
