"""The demo model: its files, and that its card says what was measured."""

import json
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from models import CATALOG

FOLDER = CATALOG.parent / "demo"


def test_it_loads_in_stock_diffusers_and_draws() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        FOLDER, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a large red star on a yellow background", num_inference_steps=12).images
    red, green, blue = image.resize((1, 1)).getpixel((0, 0))
    assert image.size == (64, 64)
    assert red > green > blue


def measured() -> dict[str, Any]:
    adherence: dict[str, Any] = json.loads((FOLDER / "training" / "adherence.json").read_text())[
        "adherence"
    ]
    return adherence


def test_the_card_says_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text()
    for claim, figures in measured().items():
        low, high = figures["interval"]
        row = f"| {claim} | {figures['share']:.1%} | {low:.1%} to {high:.1%} | {figures['count']} |"
        assert row in card
