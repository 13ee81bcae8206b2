"""Turn sounds into files that carry their recipe."""

import io
from collections.abc import Mapping

import numpy as np
import soundfile
from numpy.typing import NDArray

from shared.request import GenerationRequest
from shared.vocab import CONTENT_TYPES
from worker.artifact import OutputFile, make_recipe
from worker.engine import Sound
from worker.thumbnail import draw_sound

#: 16 bits a sample, the same range to both sides.
FULL_SCALE = 32_767


def encode_sound(
    sound: Sound, *, request: GenerationRequest, seed: int, versions: Mapping[str, str]
) -> OutputFile:
    """Encode a sound in the format the request asks for, with its recipe in the comment.

    One that is louder than full scale is turned down as a whole, which the file's `gain` tells: to
    cut the peaks off would be heard. One that is not keeps its loudness.
    """
    peak = float(np.abs(sound.samples).max(initial=0.0))
    gain = min(1.0, 1 / peak) if peak > 0 else 1.0
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=sound.sample_rate,
        channels=len(sound.samples),
        format=request.output_format.upper(),
        subtype="PCM_16",
    ) as file:
        # Before the samples, or a WAV has it behind them, where few look.
        file.comment = make_recipe(request, seed=seed, versions=versions)
        file.write(quantize(sound.samples, gain).T)
    return OutputFile(
        data=buffer.getvalue(),
        content_type=CONTENT_TYPES[request.output_format],
        duration_s=sound.duration_s,
        sample_rate=sound.sample_rate,
        gain=gain,
        thumbnail=draw_sound(sound.samples, sound.sample_rate),
    )


def quantize(samples: NDArray[np.float32], gain: float) -> NDArray[np.int16]:
    """Round samples to whole levels, halves to even ones."""
    # Doubles, in which the loudest comes out as full scale whatever the gain was rounded to.
    levels = np.rint(samples.astype(np.float64) * gain * FULL_SCALE)
    return levels.astype(np.int16)
