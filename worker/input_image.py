"""Turn uploaded files into arrays: the only place that decodes what strangers sent."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shared.errors import InvalidInput

#: Decoders that may be tried; Pillow has dozens.
FORMATS = ("PNG", "JPEG", "WEBP")
#: Of a picture as uploaded, in pixels: 4096 x 4096.
MAX_PIXELS = 16_777_216
#: What 8 bits a channel come as; others would be cut down without a word.
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})


def decode_image(data: bytes, *, name: str, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a file to [H, W, 3] of the size asked for, on white where it is transparent.

    Raises:
        InvalidInput: It cannot be decoded or is beyond the limits; says as what by `name`.
    """
    image = _open(data, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(_scale(image, width, height))


def decode_mask(data: bytes, *, name: str, width: int, height: int) -> NDArray[np.float32]:
    """Decode a file to [H, W]: 1 where it is bright, 0 where it is dark.

    Raises:
        InvalidInput: As above, or it is transparent somewhere, which is neither bright nor dark.
    """
    image = _open(data, name)
    if image.has_transparency_data:
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        if lowest != 255:
            raise InvalidInput(
                f"{name} is transparent somewhere; white is made anew, black is kept"
            )
    levels = np.array(_scale(image, width, height).convert("L"))
    return (levels >= 128).astype(np.float32)


def _open(data: bytes, name: str) -> Image.Image:
    """Decode a file within all limits and turn it upright."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, name)
            image.load()
            return ImageOps.exif_transpose(image)
    except InvalidInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except Exception as error:  # decoders raise what they like
        raise InvalidInput(f"{name} cannot be decoded: it is damaged or incomplete") from error


def _check(image: Image.Image, name: str) -> None:
    """Refuse by the header what must not be decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    if getattr(image, "n_frames", 1) != 1:
        raise InvalidInput(f"{name} has several frames; one picture is needed")
    if image.mode not in _MODES:
        raise InvalidInput(f"{name} has more than 8 bits a channel; 8 are taken")


def _scale(image: Image.Image, width: int, height: int) -> Image.Image:
    # As diffusers' VaeImageProcessor does, which keeps no aspect ratio either.
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def _too_large(name: str) -> InvalidInput:
    return InvalidInput(f"{name} has more than {MAX_PIXELS:,} pixels")
