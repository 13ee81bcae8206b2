"""Turn a request into trajectories at their start."""

from collections import OrderedDict

import torch
from torch import Tensor

from shared.request import GenerationRequest
from shared.vocab import Determinism
from worker.engine.families.stable_diffusion import StableDiffusion
from worker.engine.model_cache import ModelCache
from worker.engine.samplers import SamplerBook, scale_noise
from worker.engine.trajectory import BatchKey, Trajectory


class Intake:
    """Encode prompts, draw the first noise, set samplers up. Used by one thread."""

    def __init__(self, models: ModelCache, *, prompt_cache_size: int) -> None:
        self._models = models
        self._samplers = SamplerBook()
        self._prompt_cache_size = prompt_cache_size
        self._prompts: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def prepare(self, run_id: int, request: GenerationRequest) -> list[Trajectory]:
        """Make one trajectory for each output.

        Raises:
            JobError: The model cannot be loaded, or does not take the request.
        """
        family = self._models.get(request.model)
        prompts = (
            [request.negative_prompt, request.prompt] if request.is_guided else [request.prompt]
        )
        prompt_embeds = torch.cat([self._encode(family, prompt) for prompt in prompts])
        return [
            self._start(family, run_id, index, request, prompt_embeds)
            for index in range(request.num_outputs)
        ]

    def _start(
        self,
        family: StableDiffusion,
        run_id: int,
        index: int,
        request: GenerationRequest,
        prompt_embeds: Tensor,
    ) -> Trajectory:
        spec = family.spec
        # On the CPU always: a seed gives the same noise whatever device the model is on.
        generator = torch.Generator("cpu").manual_seed(request.seeds[index])
        scheduler = self._samplers.start(
            spec, family.scheduler, request.sampler, request.schedule, request.steps
        )
        noise = family.latents(width=request.width, height=request.height, generator=generator)
        is_exact = request.determinism is Determinism.EXACT
        return Trajectory(
            run_id=run_id,
            index=index,
            seed=request.seeds[index],
            key=BatchKey(spec.id, tuple(noise.shape), prompt_embeds.shape[1]),
            scheduler=scheduler,
            generator=generator,
            latents=scale_noise(scheduler, noise),
            prompt_embeds=prompt_embeds,
            guidance_scale=request.guidance,
            guidance_rescale=request.guidance_rescale,
            priority=request.priority,
            max_rows=spec.max_rows,
            exact_rows=spec.exact_rows if is_exact else None,
        )

    def _encode(self, family: StableDiffusion, prompt: str) -> Tensor:
        """Encode a prompt, or find it encoded: always alone, so that the bits are the same."""
        key = (family.spec.id, prompt)
        if key not in self._prompts:
            self._prompts[key] = family.encode(prompt)
            if len(self._prompts) > self._prompt_cache_size:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]
