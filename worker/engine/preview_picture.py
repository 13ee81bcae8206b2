"""From what the network said of noisy latents to a small picture, without the decoder."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.catalog import ModelSpec
from shared.vocab import PredictionType

#: Longest side of a preview, in pixels.
MAX_SIDE = 256
#: At this size and quality even noise of pure colors has fewer bytes than a message may have.
WEBP_QUALITY = 75


def predict_clean(
    noisy: NDArray[np.float32], prediction: NDArray[np.float32], timestep: float, spec: ModelSpec
) -> NDArray[np.float32]:
    """Solve a prediction [C, h, w] for the latents without noise.

    The noise level is read off the training schedule: the network was told nothing else.
    """
    levels = spec.training.log_sigmas
    sigma = math.exp(np.interp(timestep, range(len(levels)), levels))
    signal = np.float32(1 / math.hypot(1, sigma))
    noise = np.float32(sigma) * signal
    match spec.prediction_type:
        case PredictionType.EPSILON:
            clean: NDArray[np.float32] = np.divide(noisy - noise * prediction, signal)
            return clean
        case PredictionType.V_PREDICTION:
            return signal * noisy - noise * prediction
        case PredictionType.SAMPLE:
            return prediction
        case PredictionType.FLOW:
            raise ValueError("a flow's noise level is not one of the training schedule")


def encode_preview(pixels: NDArray[np.uint8], *, width: int, height: int) -> bytes:
    """Scale pixels [h, w, 3] to a job's size, as far as a preview may have it; returns WebP."""
    scale = min(1.0, MAX_SIDE / max(width, height))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    buffer = io.BytesIO()
    scaled = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    scaled.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()
