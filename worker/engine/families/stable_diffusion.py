"""Stable Diffusion 1 and 2 and what shares their parts.

Each function does what diffusers' StableDiffusionPipeline, or the one for image-to-image or
inpainting, does at the same place, so that a job alone gives the same bits.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.preview_map import load_preview_map
from shared.catalog import ModelSpec
from shared.errors import InvalidInput, ModelUnavailable, NonFinite
from shared.request import GenerationRequest
from worker.engine.conditioning import Condition, Conditioning, repeat
from worker.engine.families.compiled import CompiledDenoiser, denoise
from worker.engine.families.family import LATENTS, LatentDistribution
from worker.engine.families.placement import Placement, choose_dtype
from worker.engine.lora import DENOISER, NOTHING, TEXT_ENCODER, ActiveAdapter, Attachment, bind
from worker.engine.samplers import load_native

_Denoise = Callable[[Tensor, Tensor, Conditioning], Tensor]


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
        self._on_part = on_part
        self.scheduler = load_native(spec.path)
        self._tokenizer = CLIPTokenizer.from_pretrained(
            spec.path / "tokenizer", local_files_only=True
        )
        # It cannot be used by two threads at once: one encodes prompts, one measures.
        self._tokenizing = threading.Lock()
        self._text_encoder = self._load(CLIPTextModel, "text_encoder")
        self._unet = self._load(UNet2DConditionModel, "unet")
        self._placement.set_attention(self._unet)
        self._vae = self._load(AutoencoderKL, "vae")
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=self._unet.config.in_channels)
        self._processor = VaeImageProcessor(vae_scale_factor=spec.latent_factor, do_resize=False)
        self._denoise: _Denoise = partial(denoise, self._unet)
        if spec.device_options.compile:
            self._compile()

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Its networks."""
        return self._text_encoder, self._unet, self._vae

    def touch(self) -> None:
        """Have the device do the least that it can.

        Raises:
            torch.AcceleratorError: Not even that works.
        """
        torch.ones(1, device=self.device).sum().item()

    def bind(self, part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:
        """Say what adapters add to the denoiser or the text encoder.

        Raises:
            AdapterUnavailable: One was made for another model.
        """
        parts = {DENOISER: self._unet, TEXT_ENCODER: self._text_encoder}
        return bind(parts[part], part, adapters) if adapters else NOTHING

    def conditions(self, request: GenerationRequest) -> tuple[str, ...]:
        """Say what each row shows: negative prompt and prompt, or the prompt alone."""
        return (request.negative_prompt,) * request.is_guided + (request.prompt,)

    def encode(self, condition: Condition) -> Conditioning:
        """Encode one prompt alone, to [1, T, D].

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        with self._tokenizing:
            tokens = self._tokenizer(
                condition, padding="max_length", truncation=False, return_tensors="pt"
            ).input_ids
        if tokens.shape[1] > self._tokenizer.model_max_length:
            raise InvalidInput(
                f"the prompt has {tokens.shape[1]} tokens, "
                f"the model takes {self._tokenizer.model_max_length}"
            )
        embeds = self._text_encoder(tokens.to(self.device), attention_mask=None)[0]
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
        return self._noise(self.spec.width, self.spec.height, generator), self.encode("")

    def _noise(self, width: int, height: int, generator: torch.Generator) -> Tensor:
        factor = self.spec.latent_factor
        shape = (1, self._unet.config.in_channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=LATENTS)
        return noise.to(self.device)

    def encode_image(self, pixels: NDArray[np.uint8]) -> LatentDistribution:
        """Encode a picture [H, W, 3]; what it looked like is spread over a distribution."""
        image = self._processor.preprocess(pixels.astype(np.float32) / 255.0)
        image = image.to(self.device, self._vae.dtype)
        return self._vae.encode(image).latent_dist

    def sample(self, distribution: LatentDistribution, generator: torch.Generator) -> Tensor:
        """Draw a picture's latents [1, C, h, w]."""
        latents: Tensor = self._vae.config.scaling_factor * distribution.sample(generator)
        return latents.to(LATENTS)

    def encode_mask(self, mask: NDArray[np.float32]) -> Tensor:
        """Scale a mask [H, W] of zeros and ones down to [1, 1, h, w]."""
        height, width = (side // self.spec.latent_factor for side in mask.shape)
        scaled = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None], size=(height, width)
        )
        return scaled.to(self.device, LATENTS)

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
        """Decode latents [1, C, h, w] to pixels [H, W, 3].

        Tiles, along the longer side, take less memory, and change pixels where they overlap.

        Raises:
            NonFinite: The decoder's numbers left their range.
        """
        scaled = (latents / self._vae.config.scaling_factor).to(self._vae.dtype)
        if tiles > 1:
            image = self._decode_tiled(scaled, tiles)
        else:
            image = self._vae.decode(scaled, return_dict=False)[0]
        if not torch.isfinite(image).all():  # what is cut off below would hide it
            raise NonFinite(
                "the decoder's numbers left their range; less guidance, another sampler or another "
                "seed may keep them in it"
            )
        (pixels,) = self._processor.postprocess(image, output_type="np")
        levels: NDArray[np.uint8] = (pixels * 255).round().astype(np.uint8)
        return levels

    def _decode_tiled(self, scaled: Tensor, tiles: int) -> Tensor:
        # Whole multiples of a fourth, by which tiles overlap.
        cells = 4 * -(-max(scaled.shape[2:]) // (4 * tiles))
        self._vae.tile_latent_min_size = cells
        self._vae.tile_sample_min_size = cells * self.spec.latent_factor
        image: Tensor = self._vae.tiled_decode(scaled, return_dict=False)[0]
        return image

    def _compile(self) -> None:
        """Compile each bucket of rows by running it once."""
        spec = self.spec
        try:
            compiled = CompiledDenoiser(self._unet, spec, self._placement.memory_format)
            self._denoise = compiled
            with torch.inference_mode():
                noise, prompt = self.example()
                for rows in compiled.buckets:
                    timesteps = torch.zeros(rows, device=self.device)
                    self.predict(torch.cat([noise] * rows), timesteps, repeat(prompt, rows))
        except Exception as error:
            raise ModelUnavailable(
                f"model {spec.id}: torch does not compile it for {self.device.type} here; "
                "compile = false is always served"
            ) from error

    def _load(self, cls: Any, part: str) -> Any:
        model = cls.from_pretrained(
            self.spec.path / part,
            # Loading another type would make it the default of all threads for a while.
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # else diffusers asks for a package that it needs for it
        )
        model = self._placement.place(model, choose_dtype(self.spec, part))
        self._on_part(part)
        return model
