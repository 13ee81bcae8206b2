"""Write a trained model as a diffusers folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from models.train.denoiser import TRAINING_SCHEDULE, Denoiser
from models.train.noised import Scheduler
from models.train.parts import Parts
from models.train.vae import Vae


def export(
    folder: Path,
    vae: Vae,
    tokenizer: CLIPTokenizer,
    denoiser: Denoiser,
    *,
    schedule: Mapping[str, Any] = TRAINING_SCHEDULE,
) -> None:
    """Write the averaged networks in half precision; loads in stock diffusers."""
    scheduler: Scheduler = DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        **schedule, timestep_spacing="trailing", steps_offset=1
    )
    parts = Parts(vae, tokenizer, denoiser.ema_text_encoder, denoiser.ema_unet)
    write_pipeline(folder, parts, scheduler)


def write_pipeline(folder: Path, parts: Parts, scheduler: Scheduler) -> None:
    """Write a model's parts in half precision, which they have from then on."""
    pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    for part in ("unet", "vae"):
        # Where it was loaded from is nobody's business.
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        _write(path, config)
    # DPM-Solver++ knows no clipping, but the schedulers made from its config do.
    path = folder / "scheduler" / "scheduler_config.json"
    _write(path, json.loads(path.read_text()) | {"clip_sample": False})


def _write(path: Path, config: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(config, indent=2) + "\n")
