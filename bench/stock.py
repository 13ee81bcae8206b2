"""Stock diffusers as somebody uses it who keeps the pipeline warm and cares for speed."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from shared.catalog import ModelSpec
from shared.compatibility import goes_by_timesteps
from shared.request import GenerationRequest
from shared.schedule import timesteps_of
from shared.vocab import Sampler, Schedule
from worker.engine.samplers import Scheduler, clone, load_native, make_prototype


class StockPipeline:
    """A warm StableDiffusionPipeline, with every scheduler constructed once."""

    def __init__(self, spec: ModelSpec, device: str = "cpu") -> None:
        self._spec = spec
        self._native = load_native(spec.path)
        self._prototypes: dict[tuple[Sampler, Schedule], Scheduler] = {}
        self._pipeline: Any = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            spec.path,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)

    def run(self, group: Sequence[GenerationRequest]) -> None:
        """Draw jobs in one call; they differ in prompts and seeds only."""
        first = group[0]
        key = (first.sampler, first.schedule)
        if key not in self._prototypes:
            self._prototypes[key] = make_prototype(self._native, *key)
        self._pipeline.scheduler = clone(self._prototypes[key])
        levels = (
            {"timesteps": timesteps_of(first.schedule, self._spec.training, first.steps)}
            if goes_by_timesteps(*key)
            else {"num_inference_steps": first.steps}
        )
        self._pipeline(
            [request.prompt for request in group],
            negative_prompt=[request.negative_prompt for request in group],
            width=first.width,
            height=first.height,
            guidance_scale=first.guidance,
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in group],
            output_type="np",
            **levels,
        )
