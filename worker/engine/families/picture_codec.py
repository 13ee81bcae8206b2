"""Pictures to latents and back, by the autoencoder that most image families have."""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from torch import Tensor

from shared.catalog import ModelSpec
from shared.errors import NonFinite

#: diffusers' DiagonalGaussianDistribution over latents [1, C, h, w].
LatentDistribution = Any
#: Latents and predictions between forwards, whatever the model computes in: samplers add up many
#: small steps.
LATENTS = torch.float32


class PictureCodec:
    """The AutoencoderKL of one model. Each function does what diffusers' pipelines do with it."""

    def __init__(self, vae: Any, spec: ModelSpec) -> None:
        self._vae = vae
        self._factor = spec.latent_factor
        self._processor = VaeImageProcessor(vae_scale_factor=spec.latent_factor, do_resize=False)

    def encode_image(self, pixels: NDArray[np.uint8]) -> LatentDistribution:
        """Encode a picture [H, W, 3]; what it looked like is spread over a distribution."""
        image = self._processor.preprocess(pixels.astype(np.float32) / 255.0)
        image = image.to(self._vae.device, self._vae.dtype)
        return self._vae.encode(image).latent_dist

    def sample(self, distribution: LatentDistribution, generator: torch.Generator) -> Tensor:
        """Draw a picture's latents [1, C, h, w]."""
        latents: Tensor = self._vae.config.scaling_factor * distribution.sample(generator)
        return latents.to(LATENTS)

    def encode_mask(self, mask: NDArray[np.float32]) -> Tensor:
        """Scale a mask [H, W] of zeros and ones down to [1, 1, h, w]."""
        height, width = (side // self._factor for side in mask.shape)
        scaled = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None], size=(height, width)
        )
        return scaled.to(self._vae.device, LATENTS)

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8]:
        """Decode latents [1, C, h, w], as the autoencoder scales them, to pixels [H, W, 3].

        Tiles, along the longer side, take less memory, and change pixels where they overlap.

        Raises:
            NonFinite: The decoder's numbers left their range.
        """
        scaled = latents.to(self._vae.dtype)
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
        self._vae.tile_sample_min_size = cells * self._factor
        image: Tensor = self._vae.tiled_decode(scaled, return_dict=False)[0]
        return image
