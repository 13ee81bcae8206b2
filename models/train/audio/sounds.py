"""The world of the audio model: one or two phrases of sounds, and what captions say of them."""

import random
import zlib
from dataclasses import dataclass
from enum import StrEnum

#: Samples per second, one channel.
SAMPLING_RATE = 8000
#: Samples of a tick: all sounds begin and end on ticks, and a tick is one frame of latents.
TICK = 200
#: Ticks of the longest recording, which is what the model always makes, and of the shortest asked.
NUM_TICKS, MIN_TICKS = 80, 40
#: Ticks between two phrases, at least.
PAUSE = 8
#: Of a recording's peak, from the quietest of quiet ones to the loudest of loud ones.
AMPLITUDES = {"quiet": (0.14, 0.2), "loud": (0.55, 0.75)}
#: One of so many combinations is never heard in training.
HELD_OUT_ONE_IN = 10
NUMBERS = ("a", "two", "three")


class Kind(StrEnum):
    """What is played."""

    TONE = "tone"
    RISING = "rising"
    FALLING = "falling"
    NOISE = "noise"
    CLICK = "click"
    CHORD = "chord"
    BEAT = "beat"


class Pitch(StrEnum):
    """How high it is."""

    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"


class Tempo(StrEnum):
    """How soon a beat's strokes follow each other."""

    SLOW = "slow"
    FAST = "fast"


#: In Hz. All are multiples of the rate of ticks, so that a steady tone has steady latents. A sweep
#: has its middle there, a chord of 4:5:6 its middle tone.
NOTES = {
    Pitch.LOW: (200, 240, 280, 320),
    Pitch.MIDDLE: (640, 720, 800, 880, 960),
    Pitch.HIGH: (1600, 1760, 1920, 2080, 2240, 2400),
}
CHORDS = {Pitch.LOW: (200, 400), Pitch.MIDDLE: (800, 1000), Pitch.HIGH: (1800, 2000, 2200)}
#: Lowest and highest of a noise, in Hz.
BANDS = {Pitch.LOW: (100, 400), Pitch.MIDDLE: (550, 1150), Pitch.HIGH: (1500, 3200)}
#: Kinds that come two or three at a time, too.
COUNTED = (Kind.TONE, Kind.NOISE, Kind.CLICK)
#: Ticks of a click, and of the strokes of a beat from one to the next.
CLICK_TICKS = 2
INTERVALS = {Tempo.SLOW: 8, Tempo.FAST: 4}
#: Strokes of a beat.
STROKES = {Tempo.SLOW: (4, 4), Tempo.FAST: (6, 7)}


@dataclass(frozen=True, slots=True)
class Event:
    """One sound; from tick `start` on for `ticks`."""

    start: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Phrase:
    """Like sounds in a row; `frequency` in Hz, 0 for noise; `amplitude` from 0 to 1."""

    kind: Kind
    pitch: Pitch
    #: Of a beat.
    tempo: Tempo | None
    loudness: str
    frequency: int
    amplitude: float
    events: tuple[Event, ...]

    @property
    def end(self) -> int:
        """First tick after it."""
        return self.events[-1].start + self.events[-1].ticks

    @property
    def stroke(self) -> Kind:
        """What each of its events is: a beat is made of clicks."""
        return Kind.CLICK if self.kind is Kind.BEAT else self.kind

    @property
    def name(self) -> str:
        """What it is called, without its loudness: `two low clicks`, `a high tone rising`."""
        return self.describe("")

    def describe(self, loudness: str) -> str:
        """Return the words for it; `loudness` is empty where it is not said."""
        is_sweep = self.kind in (Kind.RISING, Kind.FALLING)
        number = 1 if self.kind is Kind.BEAT else len(self.events)
        noun = "tone" if is_sweep else f"{self.kind}"
        words = (
            NUMBERS[number - 1],
            loudness,
            self.tempo or "",
            self.pitch,
            noun if number == 1 else f"{noun}s",
            f"{self.kind}" if is_sweep else "",
        )
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Sound:
    """One phrase or two in a recording, silent after its length."""

    phrases: tuple[Phrase, ...]
    ticks: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ticks * TICK / SAMPLING_RATE

    @property
    def is_held_out(self) -> bool:
        """Whether it has a combination of attributes that training never hears."""
        keys = [phrase.describe(phrase.loudness) for phrase in self.phrases]
        if len(self.phrases) > 1:
            keys.append(", then ".join(phrase.name for phrase in self.phrases))
        # With this prefix every name is heard in training, quiet or loud.
        return any(zlib.crc32(f"held out {key}".encode()) % HELD_OUT_ONE_IN == 0 for key in keys)


@dataclass(frozen=True, slots=True)
class Caption:
    """A sound and which of its attributes are said; what is not said may be anything."""

    sound: Sound
    says_loudness: tuple[bool, ...]

    @property
    def text(self) -> str:
        """The prompt."""
        pairs = zip(self.sound.phrases, self.says_loudness, strict=True)
        return ", then ".join(
            phrase.describe(phrase.loudness if says else "") for phrase, says in pairs
        )


def draw_sound(rng: random.Random, *, two_phrases: float, held_out: bool = False) -> Sound:
    """Draw a sound; `two_phrases` is the share of those with two.

    Without `held_out` it has no combination of attributes that is kept from training, with it at
    least one.
    """
    while True:
        sound = _draw(rng, 2 if rng.random() < two_phrases else 1)
        if sound is not None and sound.is_held_out == held_out:
            return sound


def draw_caption(rng: random.Random, sound: Sound) -> Caption:
    """Choose what a caption says, so that what it leaves out really varies."""
    return Caption(sound, tuple(rng.random() < 0.4 for _ in sound.phrases))


def _draw(rng: random.Random, count: int) -> Sound | None:
    """Draw phrases and set them apart; None if they would be heard as one."""
    phrases = [_draw_phrase(rng) for _ in range(count)]
    if len({(phrase.stroke, phrase.pitch) for phrase in phrases}) < count:
        return None
    needed = sum(phrase.end for phrase in phrases) + PAUSE * (count - 1)
    shortest = max(needed, MIN_TICKS)
    ticks = NUM_TICKS if rng.random() < 0.5 else rng.randint(shortest, NUM_TICKS)
    # The room that is left is split: before, between and after the phrases.
    gaps = sorted(rng.randint(0, ticks - needed) for _ in phrases)
    placed, start = [], 0
    for number, (phrase, gap) in enumerate(zip(phrases, gaps, strict=True)):
        placed.append(_move(phrase, start + gap + PAUSE * number))
        start += phrase.end
    return Sound(tuple(placed), ticks)


def _move(phrase: Phrase, ticks: int) -> Phrase:
    events = tuple(Event(event.start + ticks, event.ticks) for event in phrase.events)
    return Phrase(
        phrase.kind,
        phrase.pitch,
        phrase.tempo,
        phrase.loudness,
        phrase.frequency,
        phrase.amplitude,
        events,
    )


def _draw_phrase(rng: random.Random) -> Phrase:
    kind, pitch = rng.choice(tuple(Kind)), rng.choice(tuple(Pitch))
    tempo = rng.choice(tuple(Tempo)) if kind is Kind.BEAT else None
    loudness = rng.choice(tuple(AMPLITUDES))
    notes = CHORDS if kind is Kind.CHORD else NOTES
    return Phrase(
        kind,
        pitch,
        tempo,
        loudness,
        frequency=0 if kind is Kind.NOISE else rng.choice(notes[pitch]),
        amplitude=rng.uniform(*AMPLITUDES[loudness]),
        events=_draw_events(rng, kind, tempo),
    )


def _draw_events(rng: random.Random, kind: Kind, tempo: Tempo | None) -> tuple[Event, ...]:
    count, interval = 1, 0
    ticks = rng.randint(8, 14) if kind in COUNTED else rng.randint(14, 22)
    if tempo is not None:
        count, interval, ticks = rng.randint(*STROKES[tempo]), INTERVALS[tempo], CLICK_TICKS
    elif kind in COUNTED:
        count = rng.randint(1, len(NUMBERS))
        if kind is Kind.CLICK:
            ticks, interval = CLICK_TICKS, rng.randint(5, 8)
        elif count > 1:
            ticks = rng.randint(5, 7)
            interval = ticks + rng.randint(3, 4)
    return tuple(Event(number * interval, ticks) for number in range(count))
