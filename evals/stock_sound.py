"""Stock diffusers with a model of sounds, called as somebody does who calls it himself."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from evals.stock import SCHEDULERS
from shared.request import GenerationRequest


class StockSound:
    """Makes one sound after the other, on the CPU and in one thread as a worker has it."""

    def __init__(self, folder: Path, *, scheduler: Any = None) -> None:
        """Load a folder as its own pipeline, perhaps with a scheduler of another class."""
        torch.set_num_threads(1)
        index = json.loads((folder / "model_index.json").read_text())
        pipeline_class: Any = getattr(diffusers, index["_class_name"])
        self._pipeline = pipeline_class.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
        )
        if scheduler is not None:
            self._pipeline.scheduler = scheduler.from_config(self._pipeline.scheduler.config)
        self._native = self._pipeline.scheduler
        self._pipeline.set_progress_bar_config(disable=True)
        self._names_length = index["_class_name"] == "AudioLDM2Pipeline"

    def make(self, request: GenerationRequest, **config: Any) -> NDArray[np.float32]:
        """Make a request's sound with its sampler, whose config may be changed.

        Returns its samples [channels, N].
        """
        cls, own = SCHEDULERS.get(request.sampler, (type(self._native), {}))
        self._pipeline.scheduler = cls.from_config(self._native.config, **own | config)
        length = "audio_length_in_s" if self._names_length else "audio_end_in_s"
        (audio,) = self._pipeline(
            request.prompt,
            # Nobody who wants none says an empty one.
            negative_prompt=request.negative_prompt or None,
            **{length: request.duration_s},
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator("cpu").manual_seed(request.seed),
        ).audios
        samples: NDArray[np.float32] = np.atleast_2d(np.asarray(audio))
        return samples
