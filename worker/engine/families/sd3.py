"""Stable Diffusion 3 and 3.5.

Each function does what diffusers' StableDiffusion3Pipeline does at the same place, so that a job
alone gives the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from models.preview_map import load_preview_map
from shared.catalog import ModelSpec
from shared.errors import AdapterUnavailable
from shared.model_folder import SD3_T5_TOKENS, has_part
from shared.request import GenerationRequest
from shared.vocab import Sampler
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.flow_levels import shift_of
from worker.engine.families.noise import draw_noise
from worker.engine.families.part import PartLoader, touch
from worker.engine.families.picture_codec import LATENTS, PictureCodec
from worker.engine.families.placement import Placement
from worker.engine.families.prompt_reader import PromptReader
from worker.engine.families.told_guidance import name_conditions
from worker.engine.lora import NOTHING, ActiveAdapter, Attachment
from worker.engine.samplers import load_native


class StableDiffusion3:
    """A loaded model: two or three text encoders, denoiser and decoder on one device."""

    #: The folders of its networks; the third text encoder may be left out.
    PARTS: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "transformer",
        "vae",
    )

    #: Jobs of it start from noise.
    picture_codec = None

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of each network that is there."""
        self.spec = spec
        self.device = torch.device(device)
        self._placement = Placement(spec, self.device)
        self.scheduler = load_native(spec.path)
        loader = PartLoader(spec, self._placement, on_part)
        self._clips = [
            loader.load(CLIPTextModelWithProjection, part)
            for part in ("text_encoder", "text_encoder_2")
        ]
        self._clip_readers = [
            PromptReader(CLIPTokenizer, spec.path / name) for name in ("tokenizer", "tokenizer_2")
        ]
        self._t5 = self._t5_reader = None
        if has_part(spec.path, "text_encoder_3"):
            self._t5 = loader.load(T5EncoderModel, "text_encoder_3")
            self._t5_reader = PromptReader(
                T5Tokenizer, spec.path / "tokenizer_3", max_tokens=SD3_T5_TOKENS
            )
        self._transformer = loader.load(SD3Transformer2DModel, "transformer")
        self._vae = loader.load(AutoencoderKL, "vae")
        networks = (*self._clips, self._t5, self._transformer, self._vae)
        #: Its networks.
        self.parts: tuple[torch.nn.Module, ...] = tuple(filter(None, networks))
        channels = self._transformer.config.in_channels
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=channels)
        self._codec = PictureCodec(self._vae, spec)

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
        """Say what each row shows: negative prompt and prompt, or the prompt alone."""
        return name_conditions(request, self.spec.guidance)

    def encode(self, condition: Condition) -> Conditioning:
        """Encode one prompt alone, to [1, T, D] and [1, P].

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        prompt = str(condition)
        clips = [
            clip(tokens.to(self.device), output_hidden_states=True)
            for clip, tokens in zip(self._clips, self._read(prompt), strict=True)
        ]
        embeds = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        words = self._encode_words(prompt)
        embeds = torch.nn.functional.pad(embeds, (0, words.shape[-1] - embeds.shape[-1]))
        return {
            "encoder_hidden_states": torch.cat([embeds, words], dim=-2),
            "pooled_projections": torch.cat([clip.text_embeds for clip in clips], dim=-1),
        }

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:
        """Say how far the levels of a picture's size are moved, where they are."""
        config = self.scheduler.config
        if not config.get("use_dynamic_shifting") or request.sampler is not Sampler.FLOW_EULER:
            return {}
        cells = self.spec.latent_factor * self._transformer.config.patch_size
        return {"mu": shift_of((request.width // cells) * (request.height // cells), config)}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:
        """Draw unit noise on the generator's device; returns [1, C, h, w]."""
        return self._noise(*request.size, generator)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row of the model's own size, of no prompt."""
        generator = torch.Generator("cpu").manual_seed(0)
        return self._noise(self.spec.width, self.spec.height, generator), self.encode("")

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Model input. [B, C, h, w]
            timesteps: Timestep of each row. [B]
            conditioning: Encoded prompt of each row. [B, ...]
        """
        prediction: Tensor = self._transformer(
            hidden_states=latents.to(self._placement.dtype),
            timestep=timesteps.to(self.device),  # schedulers keep theirs on the CPU
            **conditioning,
            return_dict=False,
        )[0]
        return prediction.to(LATENTS)

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w] to pixels [H, W, 3], in tiles along the longer side."""
        config = self._vae.config
        return self._codec.decode(
            latents / config.scaling_factor + config.shift_factor, tiles=tiles
        )

    def _read(self, prompt: str) -> list[Tensor]:
        """Turn a prompt into CLIP's tokens, or its beginning if T5 reads all of it."""
        if self._t5 is None:
            return [reader.read(prompt) for reader in self._clip_readers]
        return [reader.read_beginning(prompt) for reader in self._clip_readers]

    def _encode_words(self, prompt: str) -> Tensor:
        if self._t5 is None or self._t5_reader is None:
            width = self._transformer.config.joint_attention_dim
            dtype = self._placement.dtype
            return torch.zeros(1, SD3_T5_TOKENS, width, device=self.device, dtype=dtype)
        words: Tensor = self._t5(self._t5_reader.read(prompt).to(self.device))[0]
        return words.to(self._placement.dtype)

    def _noise(self, width: int, height: int, generator: torch.Generator) -> Tensor:
        channels = self._transformer.config.in_channels
        return draw_noise(self.spec, channels, (width, height), generator, self.device)
