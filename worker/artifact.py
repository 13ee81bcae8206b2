"""Turn pictures into files that carry their recipe."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from shared.request import GenerationRequest
from shared.vocab import CONTENT_TYPES, OutputFormat

#: Key of the recipe in a PNG; JPEG and WebP carry it as the EXIF image description.
RECIPE_KEY = "latentq"
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An encoded picture."""

    data: bytes
    content_type: str
    width: int
    height: int

    @property
    def sha256(self) -> str:
        """The digest of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def encode_image(
    pixels: NDArray[np.uint8],
    *,
    request: GenerationRequest,
    seed: int,
    versions: Mapping[str, str],
) -> ImageFile:
    """Encode a picture [H, W, 3] in the format the request asks for.

    The recipe holds the resolved request, the seed of this output and the versions that made it:
    nothing of the job, the worker or the time, so that equal requests give equal bytes.
    """
    image = Image.fromarray(pixels)
    recipe = json.dumps(
        {"request": request.recipe(), "seed": seed, "versions": dict(versions)},
        sort_keys=True,
    )
    buffer = io.BytesIO()
    match request.output_format:
        case OutputFormat.PNG:
            info = PngImagePlugin.PngInfo()
            info.add_text(RECIPE_KEY, recipe)
            image.save(buffer, "PNG", pnginfo=info)
        case OutputFormat.WEBP:
            image.save(buffer, "WEBP", lossless=True, exif=_exif(recipe))
        case OutputFormat.JPEG:
            image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, exif=_exif(recipe))
    return ImageFile(
        data=buffer.getvalue(),
        content_type=CONTENT_TYPES[request.output_format],
        width=image.width,
        height=image.height,
    )


def _exif(recipe: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = recipe
    return exif
