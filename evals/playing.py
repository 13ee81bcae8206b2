"""Play prompts with a folder of the audio model and stock diffusers, on all cores."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import StableAudioPipeline

from evals.hearing import Wave

#: Recordings that are made at once; the stock pipeline wants one length for all of them.
ROWS = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: words, and a length in seconds."""

    text: str
    seconds: float
    seed: int


def play(model: Path, prompts: Sequence[Prompt], *, guidance: float, steps: int) -> list[Wave]:
    """Return one recording [T] for each prompt, in their order, as long as the model makes them.

    What comes after a prompt's length is not cut off: it should be silence.
    """
    order = sorted(range(len(prompts)), key=lambda number: prompts[number].seconds)
    batches = [
        members[start : start + ROWS]
        for _, group in groupby(order, key=lambda number: prompts[number].seconds)
        for members in [list(group)]
        for start in range(0, len(members), ROWS)
    ]
    processes = min(os.cpu_count() or 1, len(batches))
    work = partial(_play_batch, model, guidance, steps)
    asked = [[prompts[number] for number in batch] for batch in batches]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waves = list(chain.from_iterable(pool.map(work, asked)))
    played = dict(zip(chain.from_iterable(batches), waves, strict=True))
    return [played[number] for number in range(len(prompts))]


@cache
def load_pipeline(model: Path) -> Any:
    """Load the folder as anybody would, in single precision."""
    pipeline: Any = StableAudioPipeline  # ships no type information
    loaded = pipeline.from_pretrained(model, dtype=torch.float32, use_safetensors=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _play_batch(model: Path, guidance: float, steps: int, prompts: Sequence[Prompt]) -> list[Wave]:
    torch.set_num_threads(1)
    pipeline = load_pipeline(model)
    latents = pipeline(
        [prompt.text for prompt in prompts],
        audio_end_in_s=prompts[0].seconds,
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(prompt.seed) for prompt in prompts],
        output_type="latent",
    ).audios
    with torch.no_grad():
        return list(pipeline.vae.decode(latents).sample[:, 0].numpy())
