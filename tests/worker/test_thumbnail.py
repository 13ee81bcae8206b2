import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from worker.thumbnail import SIDE, WAVE_HEIGHT, draw_picture, draw_sound

RATE = 16_000


def open_pixels(data: bytes) -> NDArray[np.int64]:
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("WEBP", (SIDE, SIDE))
    return np.asarray(image.convert("RGB")).astype(int)


def brightest_row(data: bytes) -> int:
    """Which row of the spectrogram is the brightest, counted from the bottom."""
    spectrogram = open_pixels(data)[WAVE_HEIGHT:]
    return len(spectrogram) - int(spectrogram.sum(axis=(1, 2)).argmax())


def tone(hertz: float, duration_s: float = 1.0) -> NDArray[np.float32]:
    at = np.arange(int(duration_s * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)[None]


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (64, 200)])
def test_a_small_picture_needs_no_thumbnail(size: tuple[int, int]) -> None:
    assert draw_picture(Image.new("RGB", size)) is None


@pytest.mark.parametrize(
    ("size", "small"), [((512, 256), (256, 128)), ((257, 257), (256, 256)), ((3, 3000), (1, 256))]
)
def test_a_large_picture_keeps_its_shape(size: tuple[int, int], small: tuple[int, int]) -> None:
    data = draw_picture(Image.new("RGB", size, "red"))
    assert data is not None
    assert Image.open(io.BytesIO(data)).size == small


def test_higher_tones_are_drawn_higher() -> None:
    rows = [brightest_row(draw_sound(tone(hertz), RATE)) for hertz in (200, 800, 3_200)]
    assert rows == sorted(rows)
    # Two octaves are as far from each other as two others.
    assert rows[1] - rows[0] == pytest.approx(rows[2] - rows[1], abs=4)


def test_the_waveform_is_as_high_as_the_sound_is_loud_and_where_it_is() -> None:
    samples = tone(500)
    samples[:, : RATE // 2] = 0
    waveform = open_pixels(draw_sound(samples, RATE))[:WAVE_HEIGHT]
    inked = (waveform[..., 0] < 150).sum(axis=0)
    assert inked[: SIDE // 2 - 2].max() <= 3
    assert inked[SIDE // 2 + 2 :].min() >= 0.4 * WAVE_HEIGHT


@given(st.integers(0, 300), st.sampled_from([1, 2]), st.sampled_from([4_000, 44_100]))
def test_whatever_is_short_is_drawn_too(num_samples: int, channels: int, rate: int) -> None:
    noise = np.random.default_rng(0).normal(size=(channels, num_samples)).astype(np.float32)
    open_pixels(draw_sound(noise, rate))
