"""Stable Diffusion XL and what shares its parts.

Each function does what diffusers' StableDiffusionXLPipeline, or the one for image-to-image or
inpainting, does at the same place, so that a job alone gives the same bits.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from models.preview_map import load_preview_map
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from shared.vocab import GuidanceForm
from worker.engine.conditioning import Condition, Conditioning
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


class StableDiffusionXL:
    """A loaded model: two text encoders, denoiser and decoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "unet", "vae")

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of each network that is there."""
        self.spec = spec
        self.device = torch.device(device)
        self._placement = Placement(spec, self.device)
        self.scheduler = load_native(spec.path)
        index = json.loads((spec.path / "model_index.json").read_text())
        #: Whether nothing to keep away from is all zeros, not an empty prompt encoded.
        self._forces_zeros: bool = index.get("force_zeros_for_empty_prompt", True)
        self._readers = [
            PromptReader(CLIPTokenizer, spec.path / name) for name in ("tokenizer", "tokenizer_2")
        ]
        loader = PartLoader(spec, self._placement, on_part)
        self._text_encoders = [
            loader.load(CLIPTextModel, "text_encoder"),
            loader.load(CLIPTextModelWithProjection, "text_encoder_2"),
        ]
        self._unet = loader.load(UNet2DConditionModel, "unet")
        self._placement.set_attention(self._unet)
        self._vae = loader.load(AutoencoderKL, "vae")
        #: Its networks.
        self.parts: tuple[torch.nn.Module, ...] = (
            *self._text_encoders,
            self._unet,
            self._vae,
        )
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=self._unet.config.in_channels)
        self.picture_codec = PictureCodec(self._vae, spec)

    def touch(self) -> None:
        """Have the device do the least that it can."""
        touch(self.device)

    def bind(self, part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:
        """Say what adapters add to the denoiser or the text encoders.

        Raises:
            AdapterUnavailable: One was made for another model.
        """
        if not adapters:
            return NOTHING
        if part == DENOISER:
            return bind(self._unet, part, adapters)
        first, second = self._text_encoders
        return bind_readers([first, second.text_model], adapters)

    def conditions(self, request: GenerationRequest) -> tuple[Condition, ...]:
        """Say what each row shows: negative prompt and prompt, or the prompt alone."""
        return name_conditions(request, self.spec.guidance)

    def encode(self, condition: Condition) -> Conditioning:
        """Encode one prompt alone: to [1, T, D] by both encoders, to [1, P] by the second.

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        if isinstance(condition, ToldPrompt):
            told = embed_guidance(condition.guidance, self._unet.config.time_cond_proj_dim)
            told = told.to(self.device, self._placement.dtype)
            return {**self.encode(condition.prompt), "timestep_cond": told}
        if condition == "" and self._forces_zeros:
            return self._encode_nothing()
        first, second = (
            encoder(reader.read(str(condition)).to(self.device), output_hidden_states=True)
            for encoder, reader in zip(self._text_encoders, self._readers, strict=True)
        )
        embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return {"encoder_hidden_states": embeds, "text_embeds": second.text_embeds}

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

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, h, w]
            timesteps: Training timestep of each row. [B]
            conditioning: Encoded prompt of each row. [B, ...]
        """
        is_last = self.spec.device_options.channels_last
        latents = latents.to(self._placement.dtype)
        if is_last:
            latents = latents.contiguous(memory_format=torch.channels_last)
        told = dict(conditioning)
        text_embeds = told.pop("text_embeds")
        # Size before and after cropping, and no corner cut off: each picture is whole.
        height, width = (self.spec.latent_factor * side for side in latents.shape[2:])
        sizes = text_embeds.new_tensor([[height, width, 0, 0, height, width]])
        prediction: Tensor = self._unet(
            latents,
            timesteps.to(self.device),  # schedulers keep theirs on the CPU
            **told,
            added_cond_kwargs={
                "text_embeds": text_embeds,
                "time_ids": sizes.repeat(len(latents), 1),
            },
            return_dict=False,
        )[0]
        prediction = prediction.to(LATENTS)
        return prediction.contiguous() if is_last else prediction

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w] to pixels [H, W, 3], in tiles along the longer side."""
        scaling_factor = self._vae.config.scaling_factor
        return self.picture_codec.decode(latents / scaling_factor, tiles=tiles)

    def _encode_nothing(self) -> Conditioning:
        width = self._unet.config.cross_attention_dim
        pooled = self._text_encoders[1].config.projection_dim
        embeds = torch.zeros(1, self.spec.max_tokens, width, device=self.device)
        gist = torch.zeros(1, pooled, device=self.device)
        dtype = self._placement.dtype
        return {"encoder_hidden_states": embeds.to(dtype), "text_embeds": gist.to(dtype)}

    def _noise(self, width: int, height: int, generator: torch.Generator) -> Tensor:
        channels = self._unet.config.in_channels
        return draw_noise(self.spec, channels, (width, height), generator, self.device)
