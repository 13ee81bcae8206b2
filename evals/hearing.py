"""Hear what a recording of the audio model's world has in it, with no learned model."""

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from models.train.audio.sounds import BANDS, NOTES, SAMPLING_RATE, Kind, Pitch

Wave = NDArray[np.float32]
Spectrum = NDArray[np.float64]

#: Samples from one look to the next, and of a look at loudness.
HOP, LOOK = 40, 80
#: Loudness (root mean square) of what is heard: at least this, and this share of the loudest.
QUIETEST, SHARE_OF_LOUDEST = 0.012, 0.05
#: Looks that a sound may be away within, and that it must last.
LONGEST_GAP, SHORTEST_SOUND = 3, 4
#: Seconds: a sound that is shorter is a click.
CLICK_BELOW = 0.085
#: Samples of a look at the pitch, and how many bins the spectrum of a look or a sound has.
PITCH_LOOK, BINS = 256, 8192
#: A line of a spectrum takes so many times the sampling rate over the sound's length, either side.
LINE_WIDTH = 3.0
#: Share of a tone's energy in its line, of a chord's in its three, and of the third of them.
TONE_SHARE, CHORD_SHARE, THIRD_SHARE = 0.75, 0.8, 0.06
#: Octaves from a sweep's first quarter to its last, and how straight its way is (correlation).
SWEEP_OCTAVES, SWEEP_STRAIGHT = 0.3, 0.9
#: Frequencies that are heard at all, in Hz.
LOWEST, HIGHEST = 60, 3900
#: Seconds from stroke to stroke: a fast beat's are shorter.
FAST_BELOW = 0.15
#: Strokes that are a beat.
LEAST_STROKES = 4
#: Loudness over amplitude of each kind, at its loudest.
LOUDNESS = {
    Kind.TONE: 0.72,
    Kind.RISING: 0.72,
    Kind.FALLING: 0.72,
    Kind.NOISE: 0.41,
    Kind.CLICK: 0.4,
    Kind.CHORD: 0.63,
}
#: Amplitude at which quiet ends.
LOUD_ABOVE = 0.33


@dataclass(frozen=True, slots=True)
class Heard:
    """A sound; `kind` is never a beat, which is a row of clicks. Start and end are seconds."""

    kind: Kind
    pitch: Pitch
    start: float
    end: float
    #: Amplitude that a sound of this kind must have had.
    amplitude: float


@dataclass(frozen=True, slots=True)
class Row:
    """Like sounds that follow each other."""

    sounds: tuple[Heard, ...]

    @property
    def is_beat(self) -> bool:
        """Whether they are strokes of a beat."""
        return self.sounds[0].kind is Kind.CLICK and len(self.sounds) >= LEAST_STROKES

    @property
    def is_fast(self) -> bool:
        """Whether they follow each other soon."""
        starts = [sound.start for sound in self.sounds]
        return float(np.median(np.diff(starts))) < FAST_BELOW

    @property
    def is_loud(self) -> bool:
        """Whether they are loud, rather than quiet."""
        return float(np.median([sound.amplitude for sound in self.sounds])) > LOUD_ABOVE


def hear(wave: Wave) -> list[Row]:
    """Return the rows of sounds in a recording of [T] samples."""
    sounds = [_tell(wave, start, end) for start, end in find_sounds(wave)]
    groups = groupby(sounds, key=lambda sound: (sound.kind, sound.pitch))
    return [Row(tuple(members)) for _, members in groups]


def find_sounds(wave: Wave) -> list[tuple[int, int]]:
    """Return where there is no silence, as first samples and ends."""
    power = np.convolve(wave.astype(np.float64) ** 2, np.full(LOOK, 1 / LOOK), mode="same")
    loudness = np.sqrt(power[::HOP])
    is_sound = loudness > max(QUIETEST, SHARE_OF_LOUDEST * float(loudness.max()))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_sound.astype(int), [0]])))
    found: list[list[int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if found and start - found[-1][1] <= LONGEST_GAP:
            found[-1][1] = end
        else:
            found.append([start, end])
    return [(start * HOP, end * HOP) for start, end in found if end - start >= SHORTEST_SOUND]


def _tell(wave: Wave, start: int, end: int) -> Heard:
    samples = wave[start:end].astype(np.float64)
    kind, frequency = _classify(samples)
    middle = math.sqrt(np.convolve(samples**2, np.full(LOOK, 1 / LOOK), mode="same").max())
    return Heard(
        kind,
        _name_pitch(frequency),
        start / SAMPLING_RATE,
        end / SAMPLING_RATE,
        amplitude=middle / LOUDNESS[kind],
    )


def _classify(samples: NDArray[np.float64]) -> tuple[Kind, float]:
    """Return what it is, and its frequency in Hz."""
    if len(samples) / SAMPLING_RATE < CLICK_BELOW:
        return Kind.CLICK, _lines(samples, 1)[0][0]
    steady = samples[len(samples) // 10 : len(samples) - len(samples) // 10]
    lines = _lines(steady, 3)
    if lines[0][1] >= TONE_SHARE:
        return Kind.TONE, lines[0][0]
    track = _track_pitch(samples)
    quarter = max(len(track) // 4, 1)
    octaves = float(np.median(track[-quarter:]) - np.median(track[:quarter]))
    straightness = np.corrcoef(track, np.arange(len(track)))[0, 1] if np.ptp(track) else 0.0
    if abs(octaves) >= SWEEP_OCTAVES and abs(straightness) >= SWEEP_STRAIGHT:
        return Kind.RISING if octaves > 0 else Kind.FALLING, float(2 ** track.mean())
    shares = [share for _, share in lines]
    if sum(shares) >= CHORD_SHARE and shares[2] >= THIRD_SHARE:
        return Kind.CHORD, float(np.median([frequency for frequency, _ in lines]))
    spectrum, frequencies = _spectrum(steady)
    return Kind.NOISE, float((spectrum * frequencies).sum() / spectrum.sum())


def _spectrum(samples: NDArray[np.float64]) -> tuple[Spectrum, Spectrum]:
    """Return powers of the frequencies that are heard, and these, in Hz."""
    spectrum: Spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), BINS)) ** 2
    frequencies = np.fft.rfftfreq(BINS, 1 / SAMPLING_RATE).astype(np.float64)
    is_heard = (frequencies >= LOWEST) & (frequencies <= HIGHEST)
    return spectrum[is_heard], frequencies[is_heard]


def _lines(samples: NDArray[np.float64], count: int) -> list[tuple[float, float]]:
    """Return the strongest lines: frequency in Hz, and share of all energy."""
    spectrum, frequencies = _spectrum(samples)
    width = LINE_WIDTH * SAMPLING_RATE / len(samples)
    total = spectrum.sum()
    lines = []
    for _ in range(count):
        frequency = frequencies[spectrum.argmax()]
        is_line = np.abs(frequencies - frequency) <= width
        lines.append((float(frequency), float(spectrum[is_line].sum() / total)))
        spectrum = np.where(is_line, 0, spectrum)
    return lines


def _track_pitch(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the strongest frequency of each look, in octaves above 1 Hz."""
    looks = np.lib.stride_tricks.sliding_window_view(samples, PITCH_LOOK)[::HOP]
    spectra = np.abs(np.fft.rfft(looks * np.hanning(PITCH_LOOK), 4 * PITCH_LOOK, axis=1))
    frequencies = np.fft.rfftfreq(4 * PITCH_LOOK, 1 / SAMPLING_RATE)
    is_heard = (frequencies >= LOWEST) & (frequencies <= HIGHEST)
    track: NDArray[np.float64] = np.log2(frequencies[is_heard][spectra[:, is_heard].argmax(axis=1)])
    return track


def _name_pitch(frequency: float) -> Pitch:
    """Return the nearer of the world's pitches."""
    if frequency < math.sqrt(NOTES[Pitch.LOW][-1] * NOTES[Pitch.MIDDLE][0]):
        return Pitch.LOW
    if frequency < math.sqrt(NOTES[Pitch.MIDDLE][-1] * BANDS[Pitch.HIGH][0]):
        return Pitch.MIDDLE
    return Pitch.HIGH
