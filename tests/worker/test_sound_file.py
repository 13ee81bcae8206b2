import io
import json

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from shared.request import GenerationRequest
from shared.vocab import OUTPUT_FORMATS, Medium, OutputFormat
from worker.engine import Sound
from worker.sound_file import FULL_SCALE, encode_sound, quantize

VERSIONS = {"latentq": "0.1.0", "torch": "2.13.0"}
RATE = 8_000
SOUNDS = OUTPUT_FORMATS[Medium.AUDIO]


def request(output_format: OutputFormat = OutputFormat.WAV, **changes: object) -> GenerationRequest:
    fields: dict[str, object] = {
        "prompt": 'ein "Ton" \N{GREEN HEART}',
        "model": "tiny",
        "sampler": "edm_dpmpp_2m",
        "schedule": "native",
        "steps": 4,
        "guidance": 2.0,
        "seed": 7,
        "duration_s": 0.5,
        "output_format": output_format,
    }
    return GenerationRequest.model_validate(fields | changes)


def tone(peak: float, *, channels: int = 2) -> Sound:
    """Half a second of a tone, whose channels differ."""
    at = np.arange(RATE // 2) / RATE
    waves = [np.sin(2 * np.pi * 440 * (1 + channel) * at) for channel in range(channels)]
    return Sound((peak * np.stack(waves) / np.abs(waves).max()).astype(np.float32), RATE)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("output_format", SOUNDS)
def test_a_file_carries_its_recipe_and_opens_as_what_it_says(
    output_format: OutputFormat, channels: int
) -> None:
    sound = tone(0.5, channels=channels)
    file = encode_sound(sound, request=request(output_format), seed=9, versions=VERSIONS)
    assert file.content_type == f"audio/{output_format}"
    assert (file.duration_s, file.sample_rate, file.gain) == (0.5, RATE, 1.0)
    assert (file.width, file.height) == (None, None)
    with soundfile.SoundFile(io.BytesIO(file.data)) as opened:
        assert opened.format == output_format.upper()
        assert (opened.samplerate, opened.channels, opened.subtype) == (RATE, channels, "PCM_16")
        recipe = json.loads(opened.comment)
        samples = opened.read(dtype="int16", always_2d=True).T
    assert np.array_equal(samples, quantize(sound.samples, 1.0))
    assert GenerationRequest.model_validate(recipe["request"]) == request(output_format)
    assert (recipe["seed"], recipe["versions"]) == (9, VERSIONS)
    assert not {"width", "height"} & recipe["request"].keys()


@pytest.mark.parametrize("output_format", SOUNDS)
def test_equal_requests_give_equal_bytes(output_format: OutputFormat) -> None:
    files = [
        encode_sound(tone(0.5), request=request(output_format), seed=9, versions=VERSIONS)
        for _ in range(2)
    ]
    assert files[0].data == files[1].data


def test_the_longest_recipe_is_in_the_file() -> None:
    """Readers may stop before its end; programs that look for the chunk find all of it."""
    long = request(prompt="x" * 4_000, negative_prompt="y" * 4_000)
    file = encode_sound(tone(0.5), request=long, seed=9, versions=VERSIONS)
    assert b"x" * 4_000 in file.data
    assert b"y" * 4_000 in file.data


@given(st.floats(1.0, 50.0))
def test_what_is_too_loud_is_turned_down_as_a_whole(peak: float) -> None:
    sound = tone(peak)
    file = encode_sound(sound, request=request(), seed=9, versions=VERSIONS)
    loudest = float(np.abs(sound.samples).max())
    assert file.gain == pytest.approx(1 / max(loudest, 1.0))
    with soundfile.SoundFile(io.BytesIO(file.data)) as opened:
        samples = opened.read(dtype="int16", always_2d=True).T
    assert np.abs(samples.astype(int)).max() == FULL_SCALE
    wave = samples / FULL_SCALE * loudest
    np.testing.assert_allclose(wave, sound.samples, atol=loudest / FULL_SCALE)


@given(arrays(np.float32, (2, 9), elements=st.floats(-1, 1, width=32)))
def test_what_is_not_too_loud_keeps_its_loudness_to_half_a_level(samples: object) -> None:
    levels = quantize(np.asarray(samples, np.float32), 1.0)
    assert np.abs(levels - np.asarray(samples, np.float64) * FULL_SCALE).max() <= 0.5


def test_silence_stays_silence() -> None:
    sound = Sound(np.zeros((1, RATE), np.float32), RATE)
    file = encode_sound(sound, request=request(), seed=9, versions=VERSIONS)
    assert file.gain == 1.0
    assert file.thumbnail is not None
    assert Image.open(io.BytesIO(file.thumbnail)).size == (256, 256)


def test_a_sound_is_cut_where_diffusers_cuts_it() -> None:
    sound = Sound(np.zeros((2, 4_096), np.float32), 4_000)
    assert sound.cut(0.1234).samples.shape == (2, 493)
    assert sound.cut(9.0).duration_s == sound.duration_s == 1.024
