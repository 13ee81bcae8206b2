"""Flux: told its guidance, so that no job has a second row; or, as its fast kin, given none.

Each function does what diffusers' FluxPipeline does at the same place, so that a job alone gives
the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from models.preview_map import load_preview_map
from shared.catalog import ModelSpec
from shared.errors import AdapterUnavailable
from shared.model_folder import FLUX_T5_TOKENS
from shared.request import GenerationRequest
from shared.vocab import Sampler
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.flow_levels import shift_of
from worker.engine.families.noise import draw_noise
from worker.engine.families.part import PartLoader, touch
from worker.engine.families.picture_codec import LATENTS, PictureCodec
from worker.engine.families.placement import Placement
from worker.engine.families.prompt_reader import PromptReader
from worker.engine.families.told_guidance import ToldPrompt
from worker.engine.lora import NOTHING, ActiveAdapter, Attachment
from worker.engine.samplers import load_native

#: Latent cells of a token, along each side.
PATCH = 2
#: The denoiser takes its times from 0 to 1.
_TIME = 1000


class Flux:
    """A loaded model: two text encoders, denoiser and decoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "transformer", "vae")

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
        self._clip = loader.load(CLIPTextModel, "text_encoder")
        self._clip_reader = PromptReader(CLIPTokenizer, spec.path / "tokenizer")
        self._t5 = loader.load(T5EncoderModel, "text_encoder_2")
        self._t5_reader = PromptReader(
            T5Tokenizer, spec.path / "tokenizer_2", max_tokens=FLUX_T5_TOKENS
        )
        self._transformer = loader.load(FluxTransformer2DModel, "transformer")
        self._channels = self._transformer.config.in_channels // PATCH**2
        self._vae = loader.load(AutoencoderKL, "vae")
        #: Its networks.
        self.parts: tuple[torch.nn.Module, ...] = (
            self._clip,
            self._t5,
            self._transformer,
            self._vae,
        )
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=self._channels)
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

    def conditions(self, request: GenerationRequest) -> tuple[ToldPrompt]:
        """Say what the only row shows, and with how much guidance."""
        return (ToldPrompt(str(request.prompt), request.guidance),)

    def encode(self, condition: Condition) -> Conditioning:
        """Encode one prompt alone, to [1, T, D] by T5 and to [1, P] by CLIP; CLIP's may be cut.

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        told = cast(ToldPrompt, condition)
        words = self._t5(self._t5_reader.read(told.prompt).to(self.device))[0]
        words = words.to(self._placement.dtype)
        gist = self._clip(self._clip_reader.read_beginning(told.prompt).to(self.device))
        encoded = {"encoder_hidden_states": words, "pooled_projections": gist.pooler_output}
        if self._transformer.config.guidance_embeds:
            encoded["guidance"] = torch.tensor([told.guidance], device=self.device)
        return encoded

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:
        """Say at which levels to begin, and how far those of a picture's size are moved."""
        if request.sampler is not Sampler.FLOW_EULER:
            return {}
        cells = self.spec.latent_factor * PATCH
        width, height = request.size
        num_patches = (width // cells) * (height // cells)
        return {
            "sigmas": np.linspace(1.0, 1 / request.steps, request.steps),
            "mu": shift_of(num_patches, self.scheduler.config),
        }

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:
        """Draw unit noise on the generator's device; returns [1, C, h, w]."""
        return self._noise(*request.size, generator)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row of the model's own size, of no prompt."""
        generator = torch.Generator("cpu").manual_seed(0)
        noise = self._noise(self.spec.width, self.spec.height, generator)
        return noise, self.encode(ToldPrompt("", 1.0))

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Model input. [B, C, h, w]
            timesteps: Timestep of each row. [B]
            conditioning: Encoded prompt of each row, and its guidance. [B, ...]
        """
        height, width = (side // PATCH for side in latents.shape[2:])
        words = conditioning["encoder_hidden_states"]
        dtype = self._placement.dtype
        patches: Tensor = self._transformer(
            hidden_states=_pack(latents.to(dtype)),
            timestep=timesteps.to(self.device, dtype) / _TIME,  # schedulers keep theirs on the CPU
            txt_ids=words.new_zeros(words.shape[1], 3),
            img_ids=_place(height, width).to(self.device, dtype),
            **conditioning,
            return_dict=False,
        )[0]
        return _unpack(patches, height, width).to(LATENTS)

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w] to pixels [H, W, 3], in tiles along the longer side."""
        config = self._vae.config
        return self._codec.decode(
            latents / config.scaling_factor + config.shift_factor, tiles=tiles
        )

    def _noise(self, width: int, height: int, generator: torch.Generator) -> Tensor:
        channels = self._channels
        return draw_noise(self.spec, channels, (width, height), generator, self.device)


def _pack(latents: Tensor) -> Tensor:
    """Make latents [B, C, h, w] to tokens of 2x2 cells: [B, T, 4 C]."""
    rows, channels, height, width = latents.shape
    cells = latents.reshape(rows, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * PATCH**2)


def _unpack(patches: Tensor, height: int, width: int) -> Tensor:
    """Make tokens [B, T, 4 C] of so many rows and columns to latents [B, C, h, w]."""
    rows, _, size = patches.shape
    cells = patches.reshape(rows, height, width, size // PATCH**2, PATCH, PATCH)
    cells = cells.permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(rows, size // PATCH**2, height * PATCH, width * PATCH)


def _place(height: int, width: int) -> Tensor:
    """Say in which row and column each token of a picture stands; returns [T, 3]."""
    ids = torch.zeros(height, width, 3)
    ids[..., 1] += torch.arange(height)[:, None]
    ids[..., 2] += torch.arange(width)[None, :]
    return ids.reshape(-1, 3)
