"""The judge accepts what is played, and refuses captions that are wrong in one attribute."""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from evals.hearing import Wave, find_sounds, hear
from evals.listening import judge
from evals.sound_adherence import count_claims, held_out_captions
from evals.spectrograms import DARKEST, measure_decibels
from models.train.audio.rendering import render
from models.train.audio.sounds import (
    NUM_TICKS,
    SAMPLING_RATE,
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

RECORDINGS = 300
#: Deviation of a noise that is worse than the recordings of a trained model.
HISS = 0.004


def draw(rng: random.Random) -> Iterator[tuple[Caption, Wave]]:
    for _ in range(RECORDINGS):
        sound = draw_sound(rng, two_phrases=0.5)
        yield draw_caption(rng, sound), render(sound)


def swap_one(rng: random.Random, caption: Caption) -> Caption:
    """Change one attribute that the caption says; the rest stays."""
    phrases = list(caption.sound.phrases)
    index = rng.randrange(len(phrases))
    phrase = phrases[index]
    swapped = [replace(phrase, pitch=pitch) for pitch in Pitch if pitch is not phrase.pitch]
    if phrase.kind is not Kind.BEAT:
        others = [kind for kind in Kind if kind not in (phrase.kind, Kind.BEAT)]
        swapped += [replace(phrase, kind=kind) for kind in others]
        swapped.append(replace(phrase, events=(*phrase.events, Event(0, 1))))
    else:
        other = Tempo.FAST if phrase.tempo is Tempo.SLOW else Tempo.SLOW
        swapped += [replace(phrase, tempo=other), replace(phrase, kind=Kind.CLICK, tempo=None)]
    if caption.says_loudness[index]:
        swapped.append(replace(phrase, loudness="quiet" if phrase.loudness == "loud" else "loud"))
    phrases[index] = rng.choice(swapped)
    if len(phrases) > 1 and rng.random() < 0.2:
        phrases = list(reversed(caption.sound.phrases))
    return replace(caption, sound=replace(caption.sound, phrases=tuple(phrases)))


def test_each_claim_of_what_is_played_holds() -> None:
    claims = count_claims(judge(wave, caption) for caption, wave in draw(random.Random(1)))
    assert all(row.count > 20 for row in claims.values())
    assert min(row.share for row in claims.values()) >= 0.97


def test_some_hiss_is_not_heard() -> None:
    noise = np.random.default_rng(2)
    claims = count_claims(
        judge((wave + noise.normal(0, HISS, wave.shape)).astype(np.float32), caption)
        for caption, wave in draw(random.Random(2))
    )
    assert min(row.share for row in claims.values()) >= 0.95


def test_captions_wrong_in_one_attribute_are_refused() -> None:
    rng = random.Random(3)
    accepted = [judge(wave, swap_one(rng, caption)).all for caption, wave in draw(rng)]
    assert np.mean(accepted) <= 0.02


TONE = Phrase(Kind.TONE, Pitch.HIGH, None, "loud", 2000, 0.6, (Event(4, 8),))
BEAT = Phrase(
    Kind.BEAT,
    Pitch.LOW,
    Tempo.SLOW,
    "quiet",
    240,
    0.2,
    tuple(Event(n, 2) for n in (30, 38, 46, 54)),
)
PAIR = Caption(Sound((TONE, BEAT), NUM_TICKS), (True, True))


def test_each_claim_is_judged() -> None:
    verdict = judge(render(PAIR.sound), PAIR)
    assert verdict.all
    assert (verdict.counts, verdict.tempos) == ((True, None), (None, True))
    assert (verdict.loudness, verdict.order, verdict.length) == ((True, True), True, True)
    silent = replace(PAIR, says_loudness=(False, False))
    assert judge(render(PAIR.sound), silent).loudness == (None, None)


def test_what_sounds_after_the_length_is_late() -> None:
    short = replace(PAIR, sound=replace(PAIR.sound, ticks=40))
    verdict = judge(render(PAIR.sound), short)
    assert not verdict.length
    assert verdict.order


@pytest.mark.parametrize("level", [0.0, 0.005])
def test_silence_has_no_sound_and_nothing_asked_is_there(level: float) -> None:
    wave = np.random.default_rng(4).normal(0, level, NUM_TICKS * TICK).astype(np.float32)
    assert hear(wave) == []
    verdict = judge(wave, PAIR)
    assert not any((*verdict.kinds, *verdict.pitches, *verdict.loudness, verdict.phrases))
    assert verdict.length


def test_sounds_are_found_where_they_are() -> None:
    found = find_sounds(render(PAIR.sound))
    starts = [start / TICK for start, _ in found]
    assert starts == pytest.approx([4, 30, 38, 46, 54], abs=0.5)


def test_held_out_captions_are_held_out_and_passed_by_the_judge() -> None:
    captions = held_out_captions(20)
    assert [len(caption.sound.phrases) for caption in captions] == [1, 2] * 20
    assert all(caption.sound.is_held_out for caption in captions)
    assert all(judge(render(caption.sound), caption).all for caption in captions)


def test_a_spectrogram_shows_a_tone_at_its_pitch_and_its_time() -> None:
    decibels = measure_decibels(render(Sound((TONE,), NUM_TICKS)))
    looks_per_tick = decibels.shape[1] / NUM_TICKS
    middle = decibels[:, round(8 * looks_per_tick)]
    frequency = middle.argmax() / (len(middle) - 1) * SAMPLING_RATE / 2
    assert frequency == pytest.approx(TONE.frequency, abs=40)
    assert middle.max() == pytest.approx(20 * np.log10(TONE.amplitude), abs=1)
    assert decibels[:, round(40 * looks_per_tick)].max() == DARKEST
