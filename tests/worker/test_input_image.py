"""Files that strangers may send, and what becomes of them."""

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from shared.errors import InvalidInput
from tests.fixtures.pictures import PIXELS, encode, picture
from worker.input_image import MAX_PIXELS, decode_image, decode_mask

HEIGHT, WIDTH = PIXELS.shape[:2]


def decode(data: bytes) -> np.ndarray:
    """Decode at the picture's own size."""
    return decode_image(data, name="init_image", width=WIDTH, height=HEIGHT)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def frames(file_format: str) -> bytes:
    """An animation."""
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    return encode(first, file_format, save_all=True, append_images=[second])


def test_pixels_arrive_as_they_are() -> None:
    assert np.array_equal(decode(picture("PNG")), PIXELS)
    assert np.array_equal(decode(encode(Image.fromarray(PIXELS), "WEBP", lossless=True)), PIXELS)
    for file_format in ("JPEG", "WEBP"):
        assert decode(picture(file_format)).shape == PIXELS.shape


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_kind_of_pixel_becomes_three_channels(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    data = encode(image, "JPEG", quality=100) if mode == "CMYK" else encode(image)
    expected = np.asarray(image.convert("RGB")).astype(int)
    # CMYK comes as JPEG, which keeps no noise.
    assert np.abs(decode(data) - expected).mean() < (40 if mode == "CMYK" else 1e-9)


def test_what_is_transparent_lies_on_white() -> None:
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 10, HEIGHT))
    decoded = decode(encode(image))
    assert (decoded[:, :10] == 255).all()
    assert np.array_equal(decoded[:, 10:], PIXELS[:, 10:])
    keyed = encode(Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)), transparency=(1, 2, 3))
    assert (decode(keyed) == 255).all()


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    sideways = Image.fromarray(PIXELS).transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(decode(encode(sideways, exif=exif)), PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (4096, 4096)])
def test_any_size_within_the_limit_becomes_the_jobs(size: tuple[int, int]) -> None:
    data = encode(Image.new("RGB", size, (9, 8, 7)))
    decoded = decode_image(data, name="init_image", width=64, height=32)
    assert decoded.shape == (32, 64, 3)
    assert (decoded == (9, 8, 7)).all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png_of_size(4096, 4097), f"more than {MAX_PIXELS:,} pixels"),
        (png_of_size(10_000, 10_000), "pixels"),
        (png_of_size(60_000, 60_000), "pixels"),
        (png_of_size(2**31 - 1, 2**31 - 1), "pixels"),
        (png_of_size(4000, 4000), "damaged"),
        (picture()[:-200], "damaged"),
        (picture("JPEG")[:-200], "damaged"),
        (picture("WEBP")[:-200], "damaged"),
        (picture()[:20], "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"", "damaged"),
        (encode(Image.fromarray(PIXELS), "GIF"), "damaged"),
        (encode(Image.fromarray(PIXELS), "TIFF"), "damaged"),
        (frames("WEBP"), "several frames"),
        (frames("PNG"), "several frames"),
        (encode(Image.new("I;16", (8, 8))), "8 bits"),
    ],
    ids=repr,
)
def test_what_is_beyond_the_limits_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=f"^init_image .*{says}"):
        decode(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(
    file_format: str, data: st.DataObject
) -> None:
    spoilt = bytearray(picture(file_format))
    for at in data.draw(st.lists(st.integers(0, len(spoilt) - 1), min_size=1, max_size=8)):
        spoilt[at] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput):
        assert decode(bytes(spoilt)).shape == PIXELS.shape


def test_a_mask_is_split_in_the_middle_of_its_brightness() -> None:
    levels = np.array([[0, 127], [128, 255]], np.uint8)
    mask = decode_mask(encode(Image.fromarray(levels)), name="mask", width=2, height=2)
    assert mask.dtype == np.float32
    assert mask.tolist() == [[0, 0], [1, 1]]
    colours = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)  # luminance 76 and 150
    mask = decode_mask(encode(Image.fromarray(colours)), name="mask", width=2, height=1)
    assert mask.tolist() == [[0, 1]]


def test_a_mask_that_is_transparent_is_refused_and_an_opaque_one_is_not() -> None:
    opaque = Image.new("RGBA", (8, 8), "white")
    mask = decode_mask(encode(opaque), name="mask", width=8, height=8)
    assert (mask == 1).all()
    opaque.putpixel((3, 3), (255, 255, 255, 254))
    with pytest.raises(InvalidInput, match="mask is transparent"):
        decode_mask(encode(opaque), name="mask", width=8, height=8)
