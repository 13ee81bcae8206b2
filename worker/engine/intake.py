"""Turn a request into trajectories at their start."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from shared.errors import InvalidInput, OutOfMemory
from shared.request import GenerationRequest
from shared.vocab import Determinism
from worker.company import Company
from worker.engine.conditioning import Condition, Conditioning, shapes_of
from worker.engine.families.family import Family
from worker.engine.families.picture_codec import LatentDistribution, PictureCodec
from worker.engine.families.pipeline import AnyPipeline
from worker.engine.fault import call_with_room, is_out_of_memory, release_memory
from worker.engine.fitting import advise_size
from worker.engine.forward_process import KnownRegion, noise_to
from worker.engine.lora import (
    DENOISER,
    TEXT_ENCODER,
    TEXT_ENCODERS,
    ActiveAdapter,
    Attachment,
)
from worker.engine.model_cache import ModelCache
from worker.engine.samplers import SamplerBook, Scheduler, scale_noise
from worker.engine.snapshot import restore
from worker.engine.source import SourceImage
from worker.engine.state import JobState
from worker.engine.tally import Tally
from worker.engine.trajectory import BatchKey, Trajectory


@dataclass(frozen=True, slots=True)
class _Encoded:
    """What all outputs of a job have in common."""

    #: Of each row.
    conditionings: tuple[Conditioning, ...]
    image: LatentDistribution | None
    mask: Tensor | None  # [1, 1, h, w]
    #: Ids and weights of adapters, and what they add to the denoiser.
    adapter_weights: tuple[tuple[str, float], ...]
    adapters: Attachment


@dataclass(frozen=True, slots=True)
class _Start:
    """Where one output begins."""

    latents: Tensor  # [1, C, h, w]
    known: KnownRegion | None = None


class Intake:
    """Encode prompts and pictures, draw the first noise, set samplers up. Used by one thread."""

    def __init__(
        self,
        models: ModelCache,
        *,
        company: Company,
        prompt_cache_size: int,
        tally: Tally | None = None,
    ) -> None:
        self._models = models
        self._company = company
        self._tally = tally or Tally()
        self._samplers = SamplerBook()
        self._prompt_cache_size = prompt_cache_size
        self._prompts: OrderedDict[Hashable, Conditioning] = OrderedDict()

    def prepare(
        self,
        run_id: int,
        request: GenerationRequest,
        source: SourceImage | None,
        state: JobState | None = None,
        *,
        adapters: Sequence[ActiveAdapter] = (),
    ) -> list[Trajectory]:
        """Make one trajectory for each output, in a state that was taken of them before.

        Raises:
            JobError: The model cannot be loaded, or does not take the request or its adapters.
            StateMisfit: The state is none of this job's, here.
        """
        family = self._models.get(request.model)
        mask = None if source is None else source.mask
        encoded = _Encoded(
            conditionings=tuple(
                self._encode(family, condition, adapters)
                for condition in family.conditions(request)
            ),
            image=None if source is None else self._encode_image(family, source),
            mask=None if mask is None else _codec_of(family).encode_mask(mask),
            adapter_weights=tuple((adapter.id, adapter.weight) for adapter in adapters),
            adapters=family.bind(DENOISER, adapters),
        )
        trajectories = [
            self._start(family, run_id, index, request, encoded)
            for index in range(request.num_outputs)
        ]
        if state is not None:
            restore(trajectories, state)
        return trajectories

    def _start(
        self,
        family: Family,
        run_id: int,
        index: int,
        request: GenerationRequest,
        encoded: _Encoded,
    ) -> Trajectory:
        spec = family.spec
        # On the CPU always: a seed gives the same noise whatever device the model is on.
        generator = torch.Generator("cpu").manual_seed(request.seeds[index])
        scheduler = self._samplers.start(
            spec,
            family.scheduler,
            request.sampler,
            request.schedule,
            request.steps,
            **family.schedule_arguments(request),
        )
        call = None
        if isinstance(family, AnyPipeline):
            ticket, call = family.begin(request, request.seeds[index])
            start = _Start(ticket)
        elif encoded.image is None:
            noise = family.latents(request, generator)
            start = _Start(scale_noise(scheduler, noise))
        else:
            start = _start_from_image(family, request, encoded, scheduler, generator)
        is_exact = request.determinism is Determinism.EXACT
        return Trajectory(
            run_id=run_id,
            index=index,
            seed=request.seeds[index],
            key=BatchKey(
                spec.id,
                tuple(start.latents.shape),
                shapes_of(encoded.conditionings[0]),
                encoded.adapter_weights,
            ),
            scheduler=scheduler,
            generator=generator,
            latents=start.latents,
            conditionings=encoded.conditionings,
            guidance_scale=request.guidance,
            guidance_rescale=request.guidance_rescale,
            priority=request.priority,
            max_rows=spec.max_rows,
            exact_rows=spec.exact_rows if is_exact else None,
            first=request.first_iteration,
            known=start.known,
            adapters=encoded.adapters,
            call=call,
        )

    def _encode(
        self, family: Family, condition: Condition, adapters: Sequence[ActiveAdapter]
    ) -> Conditioning:
        """Encode a condition, or find it encoded: always alone, so that the bits are the same."""
        heard = [one for one in adapters if not one.branches.keys().isdisjoint(TEXT_ENCODERS)]
        key = (family.spec.id, condition, *((adapter.id, adapter.weight) for adapter in heard))
        if key in self._prompts:
            self._tally.prompt_hits += 1
        else:
            self._tally.prompt_misses += 1
            encode = partial(family.encode, condition)
            with family.bind(TEXT_ENCODER, heard).attached():
                self._prompts[key] = call_with_room(self._company, encode)
            if len(self._prompts) > self._prompt_cache_size:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def _encode_image(self, family: Family, source: SourceImage) -> LatentDistribution:
        encode = _codec_of(family).encode_image
        try:
            return call_with_room(self._company, partial(encode, source.pixels))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            release_memory(error)
        factor = family.spec.latent_factor

        def call(shape: tuple[int, ...]) -> None:
            encode(np.zeros((*(factor * side for side in shape), 3), np.uint8))

        asked = [side // factor for side in source.pixels.shape[:2]]
        with self._company.alone():
            raise OutOfMemory(advise_size(family.spec, asked, call, where="to start from"))


def _codec_of(family: Family) -> PictureCodec:
    if family.picture_codec is None:
        raise InvalidInput(f"{family.spec.id} cannot start from a picture")
    return family.picture_codec


def _start_from_image(
    family: Family,
    request: GenerationRequest,
    encoded: _Encoded,
    scheduler: Scheduler,
    generator: torch.Generator,
) -> _Start:
    """Noise a picture to where the trajectory begins, drawing in the order of the pipelines."""
    first = request.first_iteration
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    codec = _codec_of(family)
    image = codec.sample(encoded.image, generator)
    if encoded.mask is not None or request.determinism is Determinism.EXACT:
        # The encoder leaves channels innermost in memory, which shows in a forward's last bits.
        # diffusers' image-to-image goes on so, its inpainting does not; and rows of both kinds
        # together lie as inpainting's do, so that those of `exact` always must.
        image = image.contiguous()
    noise = family.latents(request, generator)
    if encoded.mask is None:
        return _Start(noise_to(scheduler, image, noise, first))
    # The inpainting pipeline encodes the masked picture next, which other models need.
    codec.sample(encoded.image, generator)
    known = KnownRegion(image, noise, encoded.mask)
    if request.strength == 1:
        return _Start(scale_noise(scheduler, noise), known)
    return _Start(noise_to(scheduler, image, noise, first), known)
