"""Any other text-to-image pipeline of diffusers, run by its own `__call__`.

Its steps are the engine's, one job in a forward: between two of them the call is held up, so that
jobs of other models have their turn, progress is told and the job can be canceled. What it samples
is what stock diffusers would.
"""

import copy
import functools
import inspect
import itertools
import json
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.preview_map import PreviewMap
from shared.catalog import ModelSpec
from shared.errors import (
    AdapterUnavailable,
    InvalidInput,
    ModelUnavailable,
    NonFinite,
    OutOfMemory,
)
from shared.request import GenerationRequest
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.part import touch
from worker.engine.families.picture_codec import PictureCodec
from worker.engine.families.pipeline_call import PipelineCall
from worker.engine.families.placement import Placement
from worker.engine.fault import is_out_of_memory
from worker.engine.lora import NOTHING, ActiveAdapter, Attachment
from worker.engine.own_steps import OwnSteps
from worker.engine.samplers import Scheduler, clone, make_prototype

#: What a pipeline has to be able to be told.
_NEEDED = frozenset({"prompt", "num_inference_steps", "generator", "output_type"})
#: Calls are named by latents that are full of a number: whole ones up to 2^53 are exact in them.
_TICKETS = torch.float64


class AnyPipeline:
    """A loaded pipeline, and the calls of it that are under way.

    Raises:
        ModelUnavailable: It cannot be called as we do; says what it lacks.
    """

    #: Which those are the catalog says: each pipeline has its own.
    PARTS: ClassVar[tuple[str, ...]] = ()

    picture_codec: PictureCodec | None = None
    preview_map: PreviewMap | None = None

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of all its networks when they are there."""
        self.spec = spec
        self.device = torch.device(device)
        placement = Placement(spec, self.device)
        index = json.loads((spec.path / "model_index.json").read_text())
        pipeline_class = getattr(diffusers, index["_class_name"])
        self._arguments = _arguments_of(pipeline_class, spec)
        pipeline = pipeline_class.from_pretrained(
            spec.path,
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(self.device)
        self._native = self._pipeline.scheduler
        #: Its samplers are the calls' own: here steps are counted only.
        self.scheduler: Scheduler = OwnSteps(0)
        #: What a pipeline does that cannot be told.
        self._neutral = {
            "negative_prompt": "",
            "width": spec.width,
            "height": spec.height,
            "guidance_scale": 1.0,
            "guidance_rescale": 0.0,
        }
        self._tickets = itertools.count(1)
        # Whose job has one holds it.
        self._calls: weakref.WeakValueDictionary[int, PipelineCall[NDArray[np.uint8]]]
        self._calls = weakref.WeakValueDictionary()
        for part in spec.parts:
            on_part(part)

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Its networks."""
        return tuple(
            part for part in self._pipeline.components.values() if isinstance(part, torch.nn.Module)
        )

    def touch(self) -> None:
        """Have the device do the least that it can."""
        touch(self.device)

    def bind(self, _part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:
        """Say that nothing is added.

        Raises:
            AdapterUnavailable: There is an adapter.
        """
        if adapters:
            raise AdapterUnavailable(f"adapter {adapters[0].id}: {self.spec.id} takes none")
        return NOTHING

    def conditions(self, request: GenerationRequest) -> tuple[Condition, ...]:
        """Say that there is one row: the call itself knows what it shows.

        Raises:
            InvalidInput: The request asks for what the pipeline cannot be told.
        """
        neutral = self._ask(request) | self._neutral
        for name, value in self._ask(request).items():
            if name not in self._arguments and value != neutral[name]:
                raise InvalidInput(
                    f"{self.spec.id} is run by a {type(self._pipeline).__name__}, "
                    f"which has no {name}; {neutral[name]!r} is what it does"
                )
        return (None,)

    def encode(self, condition: Condition) -> Conditioning:  # noqa: ARG002
        """Encode nothing: the call does."""
        return {}

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say nothing more."""
        return {}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return what names no call yet: `begin` does."""
        return self._name(0, *request.size)

    def begin(self, request: GenerationRequest, seed: int) -> "tuple[Tensor, PipelineCall[Any]]":
        """Prepare a call for one output; returns what names it as well, as long as it is held."""
        ticket = next(self._tickets)
        call = PipelineCall(functools.partial(self._run, request, seed))
        self._calls[ticket] = call
        return self._name(ticket, *request.size), call

    def example(self) -> tuple[Tensor, Conditioning]:
        """Name no call: what a step costs shows at work."""
        return self._name(0, self.spec.width, self.spec.height), {}

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:  # noqa: ARG002
        """Advance each call [B, 1, h, w] by a step of its own; predicts nothing.

        Raises:
            Exception: What a call has raised.
        """
        for ticket in latents[:, 0, 0, 0].long().tolist():
            self._calls[ticket].advance()
        return torch.zeros_like(latents)

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:  # noqa: ARG002
        """Have a call come to its end; returns its pixels [H, W, 3]."""
        return self._calls[int(latents[0, 0, 0, 0])].finish()

    def _name(self, ticket: int, width: int, height: int) -> Tensor:
        # Of the size of real latents, which is what a step costs by.
        factor = self.spec.latent_factor
        return torch.full((1, 1, height // factor, width // factor), ticket, dtype=_TICKETS)

    def _ask(self, request: GenerationRequest) -> dict[str, Any]:
        """Write a request in the words of pipelines."""
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
            "guidance_rescale": request.guidance_rescale,
        }

    def _run(
        self, request: GenerationRequest, seed: int, pause: Callable[[], None]
    ) -> NDArray[np.uint8]:
        # A call leaves settings in its pipeline; the networks are shared.
        pipeline = copy.copy(self._pipeline)
        pipeline.scheduler = clone(make_prototype(self._native, request.sampler, request.schedule))

        pipeline.scheduler.step = _then(pipeline.scheduler.step, pause)
        told = {
            name: value for name, value in self._ask(request).items() if name in self._arguments
        }
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            result = pipeline(**told, generator=generator, output_type="np")
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"the device has too little memory for {request.width}x{request.height} pixels; "
                "a smaller size may fit"
            ) from error
        (image,) = result.images
        if not np.isfinite(image).all():
            raise NonFinite(
                "the model's numbers left their range; less guidance, another sampler or another "
                "seed may keep them in it"
            )
        levels: NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
        return levels


def _arguments_of(pipeline_class: Any, spec: ModelSpec) -> frozenset[str]:
    arguments = frozenset(inspect.signature(pipeline_class.__call__).parameters)
    if missing := sorted(_NEEDED - arguments):
        raise ModelUnavailable(
            f"model {spec.id}: a {pipeline_class.__name__} cannot be told {', '.join(missing)}; "
            "text-to-image pipelines that can are served"
        )
    return arguments


def _then(step: Callable[..., Any], pause: Callable[[], None]) -> Callable[..., Any]:
    """Have a scheduler's step followed by a pause: each pipeline calls it, not each a callback."""

    @functools.wraps(step)  # pipelines look at its signature
    def step_and_pause(*args: Any, **named: Any) -> Any:
        result = step(*args, **named)
        pause()
        return result

    return step_and_pause
