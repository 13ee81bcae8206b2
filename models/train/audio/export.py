"""Write a trained audio model as a diffusers folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import EDMDPMSolverMultistepScheduler, StableAudioPipeline
from transformers import T5Tokenizer

from models.train.audio.autoencoder import Autoencoder
from models.train.audio.denoiser import Denoiser
from models.train.audio.noising import TRAINING_SCHEDULE


def export(
    folder: Path, autoencoder: Autoencoder, tokenizer: T5Tokenizer, denoiser: Denoiser
) -> None:
    """Write the averaged networks in half precision; loads in stock diffusers."""
    scheduler: Any = EDMDPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        **TRAINING_SCHEDULE
    )
    pipeline: Any = StableAudioPipeline(  # type: ignore[no-untyped-call]
        vae=autoencoder,
        text_encoder=denoiser.ema_text_encoder,
        projection_model=denoiser.ema_projection,
        tokenizer=tokenizer,
        transformer=denoiser.ema_transformer,
        scheduler=scheduler,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
