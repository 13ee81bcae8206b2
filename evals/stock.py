"""Stock diffusers, called as somebody does who calls it himself."""

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SASolverScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models import CATALOG
from shared.adapters import AdapterUse
from shared.request import GenerationRequest
from shared.vocab import Sampler, Schedule

#: What somebody writes who wants a sampler from diffusers.
SCHEDULERS: dict[Sampler, tuple[Any, dict[str, Any]]] = {
    Sampler.DDPM: (DDPMScheduler, {}),
    Sampler.DDIM: (DDIMScheduler, {}),
    Sampler.DPMPP_2M: (DPMSolverMultistepScheduler, {}),
    Sampler.DPMPP_2M_SDE: (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    Sampler.DPMPP_SINGLESTEP: (DPMSolverSinglestepScheduler, {}),
    Sampler.UNIPC: (UniPCMultistepScheduler, {}),
    Sampler.EULER: (EulerDiscreteScheduler, {}),
    Sampler.EULER_ANCESTRAL: (EulerAncestralDiscreteScheduler, {}),
    Sampler.HEUN: (HeunDiscreteScheduler, {}),
    Sampler.DEIS: (DEISMultistepScheduler, {"algorithm_type": "deis"}),
    Sampler.PNDM: (PNDMScheduler, {"skip_prk_steps": True}),
    Sampler.KDPM2: (KDPM2DiscreteScheduler, {}),
    Sampler.KDPM2_ANCESTRAL: (KDPM2AncestralDiscreteScheduler, {}),
    Sampler.SA_SOLVER: (SASolverScheduler, {"algorithm_type": "data_prediction"}),
    Sampler.LCM: (LCMScheduler, {}),
    Sampler.TCD: (TCDScheduler, {}),
    Sampler.FLOW_EULER: (FlowMatchEulerDiscreteScheduler, {}),
    Sampler.FLOW_HEUN: (FlowMatchHeunDiscreteScheduler, {}),
}
#: diffusers' own flag for its own schedules.
FLAGS = {
    Schedule.KARRAS: "use_karras_sigmas",
    Schedule.EXPONENTIAL: "use_exponential_sigmas",
    Schedule.BETA: "use_beta_sigmas",
}
#: By pipeline, those that start from a picture, and what they are told when they are made.
_FROM_PICTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "StableDiffusionPipeline": (
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
        {"requires_safety_checker": False},
    ),
    "StableDiffusionXLPipeline": (
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLInpaintPipeline,
        {"force_zeros_for_empty_prompt": True},
    ),
}
#: What the pipeline's call has to be told: it sets eta to 0 where nobody says anything, and a TCD
#: scheduler's own is 0.3.
ARGUMENTS: dict[Sampler, dict[str, Any]] = {Sampler.TCD: {"eta": 0.3}}


@dataclass(frozen=True, slots=True)
class Drawn:
    """One picture and the latents that it was decoded from."""

    latents: Tensor  # [1, C, h, w]
    pixels: NDArray[np.uint8]  # [H, W, 3]


class StockDiffusers:
    """Draws one request after the other, on the CPU and in one thread as a worker has it."""

    def __init__(self, folder: Path = CATALOG.parent / "demo") -> None:
        """Load a model: the demo model unless another folder is given."""
        torch.set_num_threads(1)
        index = json.loads((folder / "model_index.json").read_text())
        pipeline_class: Any = DiffusionPipeline  # ships no type information
        self._pipeline = pipeline_class.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            # It has to be told of the parts that a model was left without.
            **{name: None for name, value in index.items() if value == [None, None]},
        )
        pipelines = [self._pipeline]
        if index["_class_name"] in _FROM_PICTURES:
            from_image, inpaint, options = _FROM_PICTURES[index["_class_name"]]
            parts = self._pipeline.components
            self._from_image = from_image(**parts, **options)
            self._inpaint = inpaint(**parts, **options)
            pipelines += [self._from_image, self._inpaint]
        for pipeline in pipelines:
            pipeline.set_progress_bar_config(disable=True)
        self._native = self._pipeline.scheduler.config
        self._accepts = inspect.signature(self._pipeline.__call__).parameters.keys()
        #: Whether the pipeline keeps its latents as tokens of 2x2 cells.
        self._is_packed = hasattr(self._pipeline, "_pack_latents")
        # By id; peft takes no names with dots, nor those of a module's own members.
        self._adapter_names: dict[str, str] = {}

    def load_adapters(self, files: Mapping[str, Path]) -> None:
        """Load adapters, by the ids that requests name them with."""
        with warnings.catch_warnings(action="ignore"):  # it warns of a second one
            for adapter_id, path in files.items():
                name = f"adapter_{len(self._adapter_names)}"
                self._pipeline.load_lora_weights(str(path), adapter_name=name)
                self._adapter_names[adapter_id] = name

    def draw(
        self, request: GenerationRequest, *, nudge_seed: int | None = None, **config: Any
    ) -> Drawn:
        """Draw a request with its sampler, whose config may be changed.

        With a nudge, about every second number of the first noise is off by one rounding.
        """
        cls, own = SCHEDULERS[request.sampler]
        self._pipeline.scheduler = cls.from_config(self._native, **own | config)
        rescale = {"guidance_rescale": request.guidance_rescale}
        if self._adapter_names:
            self._choose_adapters(request.adapters)
        generator = torch.Generator("cpu").manual_seed(request.seed)
        noise = None if nudge_seed is None else self._nudged_noise(request, generator, nudge_seed)
        steps: list[Tensor] = []

        def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> Any:
            steps.append(tensors["latents"])
            return tensors

        (image,) = self._pipeline(
            request.prompt,
            negative_prompt=request.negative_prompt or None,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=generator,
            latents=noise,
            callback_on_step_end=keep,
            **(rescale if "guidance_rescale" in self._accepts else {}),
            **ARGUMENTS.get(request.sampler, {}),
        ).images
        latents = steps[-1]
        if self._is_packed:
            factor = self._pipeline.vae_scale_factor
            latents = self._pipeline._unpack_latents(latents, request.height, request.width, factor)
        return Drawn(latents, np.asarray(image))

    def redraw(
        self,
        request: GenerationRequest,
        image: Image.Image,
        mask: Image.Image | None = None,
        **config: Any,
    ) -> NDArray[np.uint8]:
        """Draw a request from a picture of its size, or where the mask is white; [H, W, 3]."""
        cls, own = SCHEDULERS[request.sampler]
        pipeline = self._from_image if mask is None else self._inpaint
        pipeline.scheduler = cls.from_config(self._native, **own | config)
        # The inpainting pipeline would take the model's own size; the other takes the picture's.
        width, height = request.size
        size = {"width": width, "height": height}
        region = {} if mask is None else {"mask_image": mask, **size}
        (drawn,) = pipeline(
            request.prompt,
            image=image,
            **region,
            negative_prompt=request.negative_prompt or None,
            strength=request.strength,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            **ARGUMENTS.get(request.sampler, {}),
        ).images
        return np.asarray(drawn)

    def _choose_adapters(self, uses: Sequence[AdapterUse]) -> None:
        if not uses:
            self._pipeline.disable_lora()
            return
        self._pipeline.enable_lora()
        names = [self._adapter_names[use.id] for use in uses]
        self._pipeline.set_adapters(names, [use.weight for use in uses])

    def _nudged_noise(
        self, request: GenerationRequest, generator: torch.Generator, seed: int
    ) -> Tensor:
        """Draw what the pipeline would draw first, as it takes it, and change its last bits."""
        factor = self._pipeline.vae_scale_factor
        channels = self._pipeline.vae.config.latent_channels
        width, height = request.size
        shape = (1, channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=generator)
        signs = torch.randint(-1, 2, shape, generator=torch.Generator("cpu").manual_seed(seed))
        noise = noise * (1 + signs * torch.finfo(noise.dtype).eps / 2)
        return self._pipeline._pack_latents(noise, *shape) if self._is_packed else noise
