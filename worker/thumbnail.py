"""Small pictures of outputs, for pages that show many."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Longest side of a thumbnail, in pixels; that of a sound is a square.
SIDE = 256
WEBP_QUALITY = 80
#: Height of the waveform, above the spectrogram.
WAVE_HEIGHT = 80
PAPER, INK = (250, 250, 248), (40, 84, 150)
#: Levels of a spectrogram below the loudest that are told apart, in decibels.
RANGE_DB = 70.0
#: Colors of a spectrogram from silence to the loudest, evenly spaced.
_COLORS = ((12, 10, 40), (70, 20, 110), (170, 45, 100), (240, 120, 50), (252, 240, 160))


def draw_picture(image: Image.Image) -> bytes | None:
    """Scale a picture down; returns WebP, or None if it is as small as that."""
    if max(image.size) <= SIDE:
        return None
    scale = SIDE / max(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return _encode(image.resize(size, Image.Resampling.LANCZOS))


def draw_sound(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """Draw samples [channels, N]: waveform, and below it the spectrogram; returns WebP."""
    mixed = samples.mean(axis=0)
    sheet = np.empty((SIDE, SIDE, 3), np.uint8)
    sheet[:WAVE_HEIGHT] = _draw_waveform(mixed)
    sheet[WAVE_HEIGHT:] = _draw_spectrogram(mixed, sample_rate)
    return _encode(Image.fromarray(sheet))


def _draw_waveform(mixed: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw from the lowest to the highest sample of each column; full scale fills the height."""
    middle = (WAVE_HEIGHT - 1) / 2
    rows = np.arange(WAVE_HEIGHT)[:, None]
    parts = _split(mixed)
    low, high = (
        np.array([limit(part) for part in parts]).clip(-1, 1) for limit in (np.min, np.max)
    )
    is_inked = (rows >= np.floor(middle - middle * high)) & (rows <= np.ceil(middle - middle * low))
    return np.where(is_inked[..., None], INK, PAPER).astype(np.uint8)


def _draw_spectrogram(mixed: NDArray[np.float32], sample_rate: int) -> NDArray[np.uint8]:
    """Draw the power of frequencies over time, low ones at the bottom, on a scale of octaves."""
    height = SIDE - WAVE_HEIGHT
    window = _choose_window(len(mixed), sample_rate)
    shape = np.hanning(window + 1)[:-1]
    padded = np.pad(mixed.astype(np.float64), window // 2)
    starts = np.linspace(0, max(len(mixed) - 1, 0), SIDE).astype(int)
    frames = np.stack([padded[start : start + window] for start in starts])
    power = np.abs(np.fft.rfft(frames * shape, axis=1)) ** 2  # [columns, frequencies]
    # From a two-hundredth of the highest frequency up; each row has the loudest of its band.
    edges = np.geomspace(0.005, 1.0, height + 1) * (power.shape[1] - 1)
    lower = np.floor(edges[:-1]).astype(int)
    upper = np.maximum(np.ceil(edges[1:]).astype(int), lower + 1)
    bands = np.stack([power[:, a:b].max(axis=1) for a, b in zip(lower, upper, strict=True)])
    loudest = max(float(bands.max()), np.finfo(np.float64).tiny)
    decibels = 10 * np.log10(np.maximum(bands / loudest, 10 ** (-RANGE_DB / 10)))
    return _color(1 + decibels[::-1] / RANGE_DB)


def _choose_window(num_samples: int, sample_rate: int) -> int:
    """Return a power of two of samples: about 40 ms, or less of a sound that is shorter."""
    wanted = max(min(0.04 * sample_rate, float(num_samples)), 16.0)
    return int(2 ** round(np.log2(wanted)))


def _split(mixed: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cut samples into as many parts as there are columns; of few, neighbors share them."""
    if len(mixed) == 0:
        return [np.zeros(1, np.float32)] * SIDE
    edges = np.linspace(0, len(mixed), SIDE + 1)
    starts = np.minimum(np.floor(edges[:-1]).astype(int), len(mixed) - 1)
    ends = np.maximum(np.ceil(edges[1:]).astype(int), starts + 1)
    return [mixed[start:end] for start, end in zip(starts, ends, strict=True)]


def _color(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Color levels from 0 to 1."""
    stops = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(levels, stops, channel) for channel in np.transpose(_COLORS)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()
