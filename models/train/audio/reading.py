"""Teach the text encoder to read before it helps to play.

Which word belongs to which phrase is plain from the caption and hard to guess from latents that are
mostly noise. Stable Audio's text encoder came trained, too.
"""

import random

import torch
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from models.train.answering import BATCH_SIZE, number_words, teach_to_answer
from models.train.audio.sounds import (
    AMPLITUDES,
    NUMBERS,
    Caption,
    Kind,
    Pitch,
    Tempo,
    draw_caption,
    draw_sound,
)
from models.train.journal import Journal
from models.train.parallel import Rank

#: What a caption may say; each answer is one of these words, or nothing.
QUESTIONS: tuple[tuple[str, ...], ...] = (
    *2 * (tuple(Kind), tuple(Pitch), NUMBERS, tuple(Tempo), tuple(AMPLITUDES)),
)


def answer(caption: Caption) -> list[int]:
    """Say what a caption says: for each question the number of its word, 0 if it is unsaid."""
    words: list[str | None] = []
    for phrase, says in zip(caption.sound.phrases, caption.says_loudness, strict=True):
        number = NUMBERS[0] if phrase.tempo is not None else NUMBERS[len(phrase.events) - 1]
        loudness = phrase.loudness if says else None
        words += [phrase.kind, phrase.pitch, number, phrase.tempo, loudness]
    words += [None] * (len(QUESTIONS) - len(words))
    return number_words(words, QUESTIONS)


def teach_reading(
    text_encoder: T5EncoderModel,
    tokenizer: T5Tokenizer,
    journal: Journal,
    rank: Rank,
    *,
    steps: int,
    two_phrases: float,
) -> None:
    """Train the encoder so that all answers can be read off the end of the caption."""

    def draw_lesson(rng: random.Random) -> tuple[Tensor, Tensor]:
        captions = [
            draw_caption(rng, draw_sound(rng, two_phrases=two_phrases)) for _ in range(BATCH_SIZE)
        ]
        tokens = tokenizer(
            [caption.text for caption in captions], padding="max_length", return_tensors="pt"
        )
        words = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        ends = words[torch.arange(BATCH_SIZE), tokens.attention_mask.sum(dim=1) - 1]
        return ends, torch.tensor([answer(caption) for caption in captions])

    teach_to_answer(text_encoder, QUESTIONS, draw_lesson, journal, rank, steps=steps)
