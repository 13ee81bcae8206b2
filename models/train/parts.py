"""The parts of a model that is trained already, for trainings that start from it."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from models import CATALOG

#: The model that the others start from.
DEMO = CATALOG.parent / "demo"


class Parts(NamedTuple):
    """What a StableDiffusionPipeline is made of; diffusers types its networks loosely."""

    vae: Any
    tokenizer: CLIPTokenizer
    text_encoder: Any
    unet: Any


def load_parts(folder: Path) -> Parts:
    """Load a model folder with all digits, its networks to be run and not to be trained."""
    return Parts(
        load_part(AutoencoderKL, folder / "vae"),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        load_part(CLIPTextModel, folder / "text_encoder"),
        load_part(UNet2DConditionModel, folder / "unet"),
    )


def load_part(cls: Any, folder: Path) -> Any:
    """Load one network with all digits."""
    network = cls.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=False,
    )
    return network.requires_grad_(False).eval()
