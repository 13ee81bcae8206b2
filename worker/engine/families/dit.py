"""Class-conditional diffusion transformers, as DiTPipeline runs them.

Peebles and Xie (2023). They are told a label's number instead of a prompt.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor

from models.preview_map import load_preview_map
from shared.catalog import ModelSpec
from shared.errors import AdapterUnavailable
from shared.model_folder import NULL_LABEL
from shared.request import GenerationRequest
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.compiled import CompiledDenoiser, Denoise, denoise
from worker.engine.families.part import PartLoader, touch
from worker.engine.families.picture_codec import LATENTS, PictureCodec
from worker.engine.families.placement import Placement
from worker.engine.lora import NOTHING, ActiveAdapter, Attachment
from worker.engine.samplers import load_native


class DiT:
    """A loaded model: denoiser and decoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar[tuple[str, ...]] = ("transformer", "vae")

    #: No pipeline of diffusers starts such a model from a picture.
    picture_codec = None

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of each network that is there."""
        self.spec = spec
        self.device = torch.device(device)
        self._placement = Placement(spec, self.device)
        loader = PartLoader(spec, self._placement, on_part)
        self.scheduler = load_native(spec.path)
        self._transformer = loader.load(DiTTransformer2DModel, "transformer")
        self._placement.set_attention(self._transformer)
        self._vae = loader.load(AutoencoderKL, "vae")
        self._channels = self._transformer.config.in_channels
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=self._channels)
        self._codec = PictureCodec(self._vae, spec)
        self._denoise: Denoise = partial(denoise, self._transformer)
        if spec.device_options.compile:
            self._denoise = compiled = CompiledDenoiser(self._transformer, spec, self._placement)
            compiled.warm_up(self)

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Its networks."""
        return self._transformer, self._vae

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
        """Say what each row shows: no label and a label, or the label alone."""
        shown: tuple[Condition, ...] = (request.class_label,)
        return (NULL_LABEL, *shown) if request.is_guided else shown

    def encode(self, condition: Condition) -> Conditioning:
        """Put a label's number into a tensor [1]; the denoiser embeds it itself."""
        return {"class_labels": torch.tensor([condition], device=self.device)}

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say nothing more: its levels depend on nothing else."""
        return {}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Draw unit noise of its only size on the generator's device; returns [1, C, h, w]."""
        side = self._transformer.config.sample_size
        shape = (1, self._channels, side, side)
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=LATENTS)
        return noise.to(self.device)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row, of no label."""
        side = self._transformer.config.sample_size
        return torch.zeros(1, self._channels, side, side, device=self.device), self.encode(
            NULL_LABEL
        )

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, h, w]
            timesteps: Training timestep of each row. [B]
            conditioning: Label of each row. [B]
        """
        latents = latents.to(self._placement.dtype, memory_format=self._placement.memory_format)
        predictions = self._denoise(latents, timesteps.to(self.device), conditioning)
        # What is beyond is the variance, where it was learned; no sampler asks for it.
        return predictions[:, : self._channels].to(LATENTS).contiguous()

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w] to pixels [H, W, 3], in tiles along the longer side."""
        # The pipeline multiplies: a division would round otherwise.
        return self._codec.decode(1 / self._vae.config.scaling_factor * latents, tiles=tiles)
