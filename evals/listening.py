"""Judge recordings of the audio model against captions."""

from dataclasses import dataclass

from evals.hearing import Row, Wave, hear
from models.train.audio.sounds import SAMPLING_RATE, TICK, Caption, Kind, Phrase, Tempo

#: Seconds after its end in which a recording may still sound.
LATE = 0.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a recording has what its caption says; None where it says nothing.

    What is said of a phrase is judged by the row in its place: the first or the last one.
    """

    #: As many rows of sounds as phrases.
    phrases: bool
    kinds: tuple[bool, ...]
    pitches: tuple[bool, ...]
    #: Of what comes one, two or three at a time.
    counts: tuple[bool | None, ...]
    #: Of beats.
    tempos: tuple[bool | None, ...]
    #: Of sweeps, whether they go up or down as asked, or stand still.
    directions: tuple[bool | None, ...]
    loudness: tuple[bool | None, ...]
    #: Of two phrases, whether they come as asked and not the other way round.
    order: bool | None
    #: Whether it is silent after its length.
    length: bool

    @property
    def all(self) -> bool:
        """Whether all that is said is so."""
        parts = (
            *(self.phrases, self.order, self.length),
            *(*self.kinds, *self.pitches, *self.counts),
            *(*self.tempos, *self.directions, *self.loudness),
        )
        return all(part is not False for part in parts)


def judge(wave: Wave, caption: Caption) -> Verdict:
    """Listen to a recording of [T] samples, and compare it with its caption."""
    sound = caption.sound
    rows = hear(wave)
    places = [rows[0], rows[-1]] if rows else [None, None]
    pairs = list(zip(sound.phrases, places, strict=False))
    order = None
    if len(sound.phrases) > 1:
        order = len(rows) > 1 and all(_is_named(row, phrase) for phrase, row in pairs)
    last = rows[-1].sounds[-1].end if rows else 0.0
    return Verdict(
        phrases=len(rows) == len(sound.phrases),
        kinds=tuple(_is_kind(row, phrase) for phrase, row in pairs),
        pitches=tuple(
            row is not None and row.sounds[0].pitch is phrase.pitch for phrase, row in pairs
        ),
        counts=tuple(_has_count(row, phrase) for phrase, row in pairs),
        tempos=tuple(_has_tempo(row, phrase) for phrase, row in pairs),
        directions=tuple(_has_direction(row, phrase) for phrase, row in pairs),
        loudness=tuple(
            (row is not None and row.is_loud == (phrase.loudness == "loud")) if says else None
            for (phrase, row), says in zip(pairs, caption.says_loudness, strict=True)
        ),
        order=order,
        length=last <= sound.ticks * TICK / SAMPLING_RATE + LATE,
    )


def _is_named(row: Row | None, phrase: Phrase) -> bool:
    return row is not None and _is_kind(row, phrase) and row.sounds[0].pitch is phrase.pitch


def _is_kind(row: Row | None, phrase: Phrase) -> bool:
    if row is None or row.sounds[0].kind is not phrase.stroke:
        return False
    return phrase.stroke is not Kind.CLICK or row.is_beat == (phrase.kind is Kind.BEAT)


def _has_count(row: Row | None, phrase: Phrase) -> bool | None:
    if phrase.kind is Kind.BEAT:
        return None
    return row is not None and len(row.sounds) == len(phrase.events)


def _has_tempo(row: Row | None, phrase: Phrase) -> bool | None:
    if phrase.tempo is None:
        return None
    return row is not None and row.is_beat and row.is_fast == (phrase.tempo is Tempo.FAST)


def _has_direction(row: Row | None, phrase: Phrase) -> bool | None:
    steady, rising, falling = Kind.TONE, Kind.RISING, Kind.FALLING
    if phrase.kind not in (rising, falling):
        return None
    return (
        row is not None
        and row.sounds[0].kind in (steady, rising, falling)
        and (row.sounds[0].kind is phrase.kind)
    )
