"""Stable Diffusion 1 and 2 and what shares their parts.

Each function does what diffusers' StableDiffusionPipeline, or the one for image-to-image or
inpainting, does at the same place, so that a job alone gives the same bits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.preview_map import load_preview_map
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from shared.vocab import GuidanceForm
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.compiled import CompiledDenoiser, Denoise, denoise
from worker.engine.families.noise import draw_noise
from worker.engine.families.part import PartLoader, touch
from worker.engine.families.picture_codec import LATENTS, PictureCodec
from worker.engine.families.placement import Placement
from worker.engine.families.prompt_reader import PromptReader
from worker.engine.families.told_guidance import (
    ToldPrompt,
    embed_guidance,
    name_conditions,
)
from worker.engine.lora import (
    DENOISER,
    NOTHING,
    ActiveAdapter,
    Attachment,
    bind,
    bind_readers,
)
from worker.engine.samplers import load_native


class StableDiffusion:
    """A loaded model: text encoder, denoiser and decoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar[tuple[str, ...]] = ("text_encoder", "unet", "vae")

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of each network that is there."""
        self.spec = spec
        self.device = torch.device(device)
        self._placement = Placement(spec, self.device)
        loader = PartLoader(spec, self._placement, on_part)
        self.scheduler = load_native(spec.path)
        self._reader = PromptReader(CLIPTokenizer, spec.path / "tokenizer")
        self._text_encoder = loader.load(CLIPTextModel, "text_encoder")
        self._unet = loader.load(UNet2DConditionModel, "unet")
        self._placement.set_attention(self._unet)
        self._vae = loader.load(AutoencoderKL, "vae")
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=self._unet.config.in_channels)
        self.picture_codec = PictureCodec(self._vae, spec)
        self._denoise: Denoise = partial(denoise, self._unet)
        if spec.device_options.compile:
            self._denoise = compiled = CompiledDenoiser(self._unet, spec, self._placement)
            compiled.warm_up(self)

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Its networks."""
        return self._text_encoder, self._unet, self._vae

    def touch(self) -> None:
        """Have the device do the least that it can."""
        touch(self.device)

    def bind(self, part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:
        """Say what adapters add to the denoiser or the text encoder.

        Raises:
            AdapterUnavailable: One was made for another model.
        """
        if not adapters:
            return NOTHING
        if part == DENOISER:
            return bind(self._unet, part, adapters)
        return bind_readers([self._text_encoder], adapters)

    def conditions(self, request: GenerationRequest) -> tuple[Condition, ...]:
        """Say what each row shows: negative prompt and prompt, or the prompt alone."""
        return name_conditions(request, self.spec.guidance)

    def encode(self, condition: Condition) -> Conditioning:
        """Encode one prompt alone, to [1, T, D].

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        if isinstance(condition, ToldPrompt):
            told = embed_guidance(condition.guidance, self._unet.config.time_cond_proj_dim)
            told = told.to(self.device, self._placement.dtype)
            return {**self.encode(condition.prompt), "timestep_cond": told}
        tokens = self._reader.read(str(condition)).to(self.device)
        embeds = self._text_encoder(tokens, attention_mask=None)[0]
        return {"encoder_hidden_states": embeds}

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say nothing more: its levels depend on nothing else."""
        return {}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:
        """Draw unit noise on the generator's device; returns [1, C, h, w]."""
        return self._noise(*request.size, generator)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row of the model's own size, of no prompt."""
        generator = torch.Generator("cpu").manual_seed(0)
        is_told = self.spec.guidance is GuidanceForm.TOLD
        condition = ToldPrompt("", 1.0) if is_told else ""
        return self._noise(self.spec.width, self.spec.height, generator), self.encode(condition)

    def _noise(self, width: int, height: int, generator: torch.Generator) -> Tensor:
        channels = self._unet.config.in_channels
        return draw_noise(self.spec, channels, (width, height), generator, self.device)

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, h, w]
            timesteps: Training timestep of each row. [B]
            conditioning: Encoded prompt of each row. [B, T, D]
        """
        latents = latents.to(self._placement.dtype)
        timesteps = timesteps.to(self.device)  # schedulers keep theirs on the CPU
        if not self.spec.device_options.channels_last:
            return self._denoise(latents, timesteps, conditioning).to(LATENTS)
        latents = latents.contiguous(memory_format=torch.channels_last)
        return self._denoise(latents, timesteps, conditioning).to(LATENTS).contiguous()

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w] to pixels [H, W, 3], in tiles along the longer side."""
        scaling_factor = self._vae.config.scaling_factor
        return self.picture_codec.decode(latents / scaling_factor, tiles=tiles)
