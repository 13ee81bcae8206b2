"""Play a sound: from what is to be heard to samples."""

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from models.train.audio.sounds import (
    BANDS,
    NUM_TICKS,
    SAMPLING_RATE,
    TICK,
    Kind,
    Phrase,
    Sound,
)

#: A sweep's highest frequency over its lowest.
SWEEP = 1.7
#: A chord's tones to its middle one, and each one's share of the amplitude.
CHORD = (0.8, 1.0, 1.2)
CHORD_SHARE = 0.42
#: Root mean square of a noise, as a share of the amplitude.
NOISE_SHARE = 0.3
#: Seconds in which a click falls to 1/e.
DECAY = 0.012
#: Seconds of a sound's beginning and end.
ATTACK, RELEASE = 0.004, 0.015

Samples = NDArray[np.float32]


def render(sound: Sound) -> Samples:
    """Return NUM_TICKS * TICK samples from -1 to 1; the same for the same sound."""
    samples = np.zeros(NUM_TICKS * TICK, dtype=np.float32)
    # Noises are a part of the sound: they come from what it is.
    noise = np.random.default_rng(zlib.crc32(repr(sound).encode()))
    for phrase in sound.phrases:
        for event in phrase.events:
            length = event.ticks * TICK
            start = event.start * TICK
            samples[start : start + length] += _play(phrase, length, noise)
    return samples


def _play(phrase: Phrase, length: int, noise: np.random.Generator) -> NDArray[np.float64]:
    seconds = np.arange(length) / SAMPLING_RATE
    wave = _fade(length) * phrase.amplitude
    if phrase.kind is Kind.NOISE:
        return wave * NOISE_SHARE * _noise(length, BANDS[phrase.pitch], noise)
    angle = 2 * math.pi * phrase.frequency * seconds
    if phrase.kind is Kind.CHORD:
        return wave * CHORD_SHARE * sum(np.sin(ratio * angle) for ratio in CHORD)
    if phrase.kind in (Kind.RISING, Kind.FALLING):
        octaves = math.log(SWEEP if phrase.kind is Kind.RISING else 1 / SWEEP)
        progress = seconds * SAMPLING_RATE / length
        first = phrase.frequency * math.exp(-octaves / 2)
        turns = first * length / SAMPLING_RATE * np.expm1(octaves * progress) / octaves
        return wave * np.sin(2 * math.pi * turns)
    if phrase.stroke is Kind.CLICK:
        wave = wave * np.exp(-seconds / DECAY)
    return wave * np.sin(angle)


def _fade(length: int) -> NDArray[np.float64]:
    fade = np.ones(length)
    attack, release = round(ATTACK * SAMPLING_RATE), round(RELEASE * SAMPLING_RATE)
    fade[:attack] *= np.sin(np.linspace(0, math.pi / 2, attack)) ** 2
    fade[-release:] *= np.cos(np.linspace(0, math.pi / 2, release)) ** 2
    return fade


def _noise(length: int, band: tuple[int, int], noise: np.random.Generator) -> NDArray[np.float64]:
    """Return noise of a band, of root mean square 1."""
    spectrum = np.fft.rfft(noise.standard_normal(length))
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLING_RATE)
    spectrum[(frequencies < band[0]) | (frequencies > band[1])] = 0
    wave: NDArray[np.float64] = np.fft.irfft(spectrum, length)
    wave /= np.sqrt(np.mean(wave**2))
    return wave
