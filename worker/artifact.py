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
from worker.thumbnail import draw_picture

#: Key of the recipe in a PNG; JPEG and WebP carry it as the EXIF image description.
RECIPE_KEY = "latentq"
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An encoded picture or sound."""

    data: bytes
    content_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    sample_rate: int | None = None
    #: What a sound was multiplied with so that the file holds it.
    gain: float | None = None
    #: A small picture of it, as WebP; None if it is one itself.
    thumbnail: bytes | None = None

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
) -> OutputFile:
    """Encode a picture [H, W, 3] in the format the request asks for."""
    image = Image.fromarray(pixels)
    recipe = make_recipe(request, seed=seed, versions=versions)
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
        case _:
            raise ValueError(f"{request.output_format} holds no pictures")
    return OutputFile(
        data=buffer.getvalue(),
        content_type=CONTENT_TYPES[request.output_format],
        width=image.width,
        height=image.height,
        thumbnail=draw_picture(image),
    )


def make_recipe(request: GenerationRequest, *, seed: int, versions: Mapping[str, str]) -> str:
    """Write what a file says of how it was made.

    It holds the resolved request, the seed of this output and the versions that made it: nothing of
    the job, the worker or the time, so that equal requests give equal bytes.
    """
    return json.dumps(
        {"request": request.recipe(), "seed": seed, "versions": dict(versions)},
        sort_keys=True,
    )


def _exif(recipe: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = recipe
    return exif
