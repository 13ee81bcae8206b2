"""Networks that are measured besides the demo model: committed configs, random weights."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from models import CATALOG

#: One level of wide convolutions at 24x24: compute-bound from the first row on, so that batching
#: gains nothing on one core, and still fast enough to be measured in minutes. 3 million parameters.
COMPUTE_BOUND = {
    "sample_size": 24,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (128,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "cross_attention_dim": 128,
}
#: Most gain in rows per second that still counts as none; a guided job alone has half of it.
FLAT_GAIN = 1.25
SEED = 0


def write_compute_bound_model(folder: Path) -> Path:
    """Write the demo model with the compute-bound denoiser in its place; returns a catalog file."""
    model = folder / "compute-bound"
    shutil.copytree(
        CATALOG.parent / "demo", model, ignore=shutil.ignore_patterns("unet", "training")
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        unet: Any = UNet2DConditionModel(**COMPUTE_BOUND)  # type: ignore[no-untyped-call]
    unet.save_pretrained(model / "unet", safe_serialization=True)
    catalog = folder / "catalog.toml"
    catalog.write_text(
        'default = "compute-bound"\n'
        "[models.compute-bound]\n"
        'path = "compute-bound"\n'
        'revision = "1"\n'
        "max_width = 96\n"
        "max_height = 96\n"
    )
    return catalog
