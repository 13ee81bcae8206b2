import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from shared.request import GenerationRequest
from shared.vocab import OUTPUT_FORMATS, Medium, OutputFormat
from worker.artifact import RECIPE_KEY, encode_image

VERSIONS = {"latentq": "0.1.0", "torch": "2.13.0"}
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def request(output_format: OutputFormat) -> GenerationRequest:
    return GenerationRequest(
        prompt='ein "Stern" \N{GREEN HEART}',
        model="demo",
        sampler="euler",
        schedule="native",
        steps=4,
        guidance=2.0,
        seed=7,
        width=64,
        height=48,
        output_format=output_format,
    )


def read_recipe(image: Image.Image, output_format: OutputFormat) -> str:
    if output_format is OutputFormat.PNG:
        return str(image.info[RECIPE_KEY])
    return str(image.getexif()[ExifTags.Base.ImageDescription])


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS[Medium.IMAGE])
def test_a_file_carries_its_recipe_and_opens_as_what_it_says(output_format: OutputFormat) -> None:
    file = encode_image(PIXELS, request=request(output_format), seed=9, versions=VERSIONS)
    image = Image.open(io.BytesIO(file.data))
    assert Image.MIME[str(image.format)] == file.content_type
    assert image.size == (file.width, file.height) == (64, 48)
    recipe = json.loads(read_recipe(image, output_format))
    assert GenerationRequest.model_validate(recipe["request"]) == request(output_format)
    assert recipe["seed"] == 9
    assert recipe["versions"] == VERSIONS


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS[Medium.IMAGE])
def test_equal_requests_give_equal_bytes(output_format: OutputFormat) -> None:
    files = [
        encode_image(PIXELS, request=request(output_format), seed=9, versions=VERSIONS)
        for _ in range(2)
    ]
    assert files[0].data == files[1].data
    assert files[0].sha256 == files[1].sha256


@pytest.mark.parametrize("output_format", [OutputFormat.PNG, OutputFormat.WEBP])
def test_png_and_webp_keep_every_pixel(output_format: OutputFormat) -> None:
    file = encode_image(PIXELS, request=request(output_format), seed=9, versions=VERSIONS)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.data)).convert("RGB")), PIXELS)
