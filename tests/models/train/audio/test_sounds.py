"""The world of sounds: what is drawn fits, is said, and is kept from training where it must be."""

import random
from itertools import pairwise

import numpy as np
import pytest

from models.train.audio.rendering import render
from models.train.audio.sounds import (
    MIN_TICKS,
    NUM_TICKS,
    PAUSE,
    TICK,
    Caption,
    Event,
    Kind,
    Phrase,
    Pitch,
    Sound,
    Tempo,
    draw_caption,
    draw_sound,
)

SOUNDS = 1000


def phrase(kind: Kind, count: int = 1, tempo: Tempo | None = None) -> Phrase:
    events = tuple(Event(number * 8, 2) for number in range(count))
    return Phrase(kind, Pitch.LOW, tempo, "quiet", 200, 0.2, events)


def test_every_sound_fits_into_its_length_and_none_overlap() -> None:
    rng = random.Random(1)
    for _ in range(SOUNDS):
        sound = draw_sound(rng, two_phrases=0.5)
        assert MIN_TICKS <= sound.ticks <= NUM_TICKS
        assert sound.phrases[0].events[0].start >= 0
        assert sound.phrases[-1].end <= sound.ticks
        for first, second in pairwise(sound.phrases):
            assert second.events[0].start - first.end >= PAUSE
        for part in sound.phrases:
            for early, late in pairwise(part.events):
                assert late.start - (early.start + early.ticks) >= 2


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (phrase(Kind.TONE), "a low tone"),
        (phrase(Kind.CLICK, 2), "two low clicks"),
        (phrase(Kind.NOISE, 3), "three low noises"),
        (phrase(Kind.RISING), "a low tone rising"),
        (phrase(Kind.FALLING), "a low tone falling"),
        (phrase(Kind.BEAT, 4, Tempo.SLOW), "a slow low beat"),
    ],
)
def test_a_phrase_has_a_name(part: Phrase, name: str) -> None:
    assert part.name == name
    loud = Caption(Sound((part, part), 80), (True, False))
    number, rest = name.split(" ", 1)
    assert loud.text == f"{number} quiet {rest}, then {name}"


def test_training_and_evaluation_share_no_combination() -> None:
    rng = random.Random(2)

    def texts(*, held_out: bool) -> set[str]:
        sounds = [draw_sound(rng, two_phrases=0.5, held_out=held_out) for _ in range(SOUNDS)]
        return {Caption(sound, (True,) * len(sound.phrases)).text for sound in sounds}

    trained = texts(held_out=False)
    assert not trained & texts(held_out=True)
    names = {name for text in trained for name in text.split(", then ")}
    plain = {name.replace("quiet ", "").replace("loud ", "") for name in names}
    # Each of the world's phrases is heard in training, if not in all company.
    assert len(plain) == 3 * (3 * 3 + 3 + 2)


def test_what_is_not_said_varies() -> None:
    rng = random.Random(3)
    sound = draw_sound(rng, two_phrases=0)
    assert len({draw_caption(rng, sound).text for _ in range(50)}) == 2


def test_a_recording_is_loud_where_its_events_are_and_silent_elsewhere() -> None:
    rng = random.Random(4)
    for _ in range(100):
        sound = draw_sound(rng, two_phrases=0.5)
        wave = render(sound)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() <= 1
        ticks = np.abs(wave).reshape(NUM_TICKS, TICK).max(axis=1)
        heard = [
            tick
            for part in sound.phrases
            for event in part.events
            for tick in range(event.start, event.start + event.ticks)
        ]
        assert set(np.flatnonzero(ticks)) == set(heard)
        assert np.array_equal(wave, render(sound))
