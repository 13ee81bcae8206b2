"""Stable Diffusion 1 and 2 and what shares their parts.

Each function does what diffusers' StableDiffusionPipeline, or the one for image-to-image or
inpainting, does at the same place, so that a job alone gives the same bits.
"""

import threading
from collections.abc import Callable
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
from shared.errors import InvalidInput
from worker.engine.samplers import load_native

#: diffusers' DiagonalGaussianDistribution over latents [1, C, h, w].
LatentDistribution = Any


class StableDiffusion:
    """A loaded model: text encoder, denoiser and decoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar = ("text_encoder", "unet", "vae")

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of each network that is there."""
        self.spec = spec
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self._on_part = on_part
        self.scheduler = load_native(spec.path)
        self._tokenizer = CLIPTokenizer.from_pretrained(
            spec.path / "tokenizer", local_files_only=True
        )
        # It cannot be used by two threads at once: one encodes prompts, one measures.
        self._tokenizing = threading.Lock()
        self._text_encoder = self._load(CLIPTextModel, "text_encoder")
        self._unet = self._load(UNet2DConditionModel, "unet")
        self._vae = self._load(AutoencoderKL, "vae")
        #: What previews are colored with; a model without it has none.
        self.preview_map = load_preview_map(spec.path, channels=self._unet.config.in_channels)
        self._processor = VaeImageProcessor(vae_scale_factor=spec.latent_factor, do_resize=False)

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

    def encode(self, prompt: str) -> Tensor:
        """Encode one prompt alone; returns [1, T, D].

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        with self._tokenizing:
            tokens = self._tokenizer(
                prompt, padding="max_length", truncation=False, return_tensors="pt"
            ).input_ids
        if tokens.shape[1] > self._tokenizer.model_max_length:
            raise InvalidInput(
                f"the prompt has {tokens.shape[1]} tokens, "
                f"the model takes {self._tokenizer.model_max_length}"
            )
        embeds: Tensor = self._text_encoder(tokens.to(self.device), attention_mask=None)[0]
        return embeds.to(self.dtype)

    def latents(self, *, width: int, height: int, generator: torch.Generator) -> Tensor:
        """Draw unit noise on the generator's device; returns [1, C, h, w]."""
        factor = self.spec.latent_factor
        shape = (1, self._unet.config.in_channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=self.dtype)
        return noise.to(self.device)

    def encode_image(self, pixels: NDArray[np.uint8]) -> LatentDistribution:
        """Encode a picture [H, W, 3]; what it looked like is spread over a distribution."""
        image = self._processor.preprocess(pixels.astype(np.float32) / 255.0)
        return self._vae.encode(image.to(self.device, self.dtype)).latent_dist

    def sample(self, distribution: LatentDistribution, generator: torch.Generator) -> Tensor:
        """Draw a picture's latents [1, C, h, w]."""
        latents: Tensor = self._vae.config.scaling_factor * distribution.sample(generator)
        return latents

    def encode_mask(self, mask: NDArray[np.float32]) -> Tensor:
        """Scale a mask [H, W] of zeros and ones down to [1, 1, h, w]."""
        height, width = (side // self.spec.latent_factor for side in mask.shape)
        scaled = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None], size=(height, width)
        )
        return scaled.to(self.device, self.dtype)

    def predict(self, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, h, w]
            timesteps: Training timestep of each row. [B]
            prompt_embeds: Encoded prompt of each row. [B, T, D]
        """
        prediction: Tensor = self._unet(
            latents, timesteps, encoder_hidden_states=prompt_embeds, return_dict=False
        )[0]
        return prediction

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w] to pixels [H, W, 3]."""
        image = self._vae.decode(latents / self._vae.config.scaling_factor, return_dict=False)[0]
        (pixels,) = self._processor.postprocess(image, output_type="np")
        levels: NDArray[np.uint8] = (pixels * 255).round().astype(np.uint8)
        return levels

    def _load(self, cls: Any, part: str) -> Any:
        model = cls.from_pretrained(
            self.spec.path / part,
            # Loading another type would make it the default of all threads for a while.
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # else diffusers asks for a package that it needs for it
        )
        if self.dtype != torch.float32:
            # diffusers' own warns that it keeps no part in float32; none of these models has one.
            model = torch.nn.Module.to(model, self.dtype)
        model = model.to(self.device).eval()
        self._on_part(part)
        return model
