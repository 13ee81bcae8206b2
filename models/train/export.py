"""Write a trained model as a diffusers folder."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from models.train.denoiser import TRAINING_SCHEDULE, Denoiser
from models.train.vae import Vae


def export(folder: Path, vae: Vae, tokenizer: CLIPTokenizer, denoiser: Denoiser) -> None:
    """Write the averaged networks in half precision; loads in stock diffusers."""
    scheduler: Any = DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        **TRAINING_SCHEDULE, timestep_spacing="trailing", steps_offset=1
    )
    pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=vae,
        text_encoder=denoiser.ema_text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.ema_unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    # DPM-Solver++ knows no clipping, but the schedulers made from its config do.
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"clip_sample": False}
    path.write_text(json.dumps(config, indent=2) + "\n")
