"""Teach the text encoder to read before it helps to play.

Which word belongs to which phrase is plain from the caption and hard to guess from latents that are
mostly noise. Stable Audio's text encoder came trained, too.
"""

import random

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import T5EncoderModel, T5Tokenizer

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

BATCH_SIZE = 128
LEARNING_RATE = 1e-3
WARMUP = 50
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
    return [
        0 if word is None else 1 + choices.index(word)
        for choices, word in zip(QUESTIONS, words, strict=True)
    ]


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
    torch.manual_seed(0)
    width = text_encoder.config.d_model
    reader = nn.Linear(width, sum(1 + len(choices) for choices in QUESTIONS))
    parameters = [*text_encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
    for step in range(1, steps + 1):
        rate = min(step / WARMUP, 1 - (step - 1) / steps)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        rng = random.Random(f"reading {rank.index} {step}")  # noqa: S311
        captions = [
            draw_caption(rng, draw_sound(rng, two_phrases=two_phrases)) for _ in range(BATCH_SIZE)
        ]
        tokens = tokenizer(
            [caption.text for caption in captions], padding="max_length", return_tensors="pt"
        )
        words = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        ends = words[torch.arange(BATCH_SIZE), tokens.attention_mask.sum(dim=1) - 1]
        answers = torch.tensor([answer(caption) for caption in captions])
        loss, share = _grade(reader(ends), answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        rank.average_gradients(parameters)
        optimizer.step()
        if rank.is_first:
            values = {"loss": loss.item(), "all_right": share.item()}
            journal.note(step, values, samples=BATCH_SIZE * rank.count)


def _grade(logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss, and the share of captions of which all answers are right."""
    parts = torch.split(logits, [1 + len(choices) for choices in QUESTIONS], dim=1)
    pairs = list(zip(parts, answers.unbind(dim=1), strict=True))
    loss = torch.stack([cross_entropy(part, column) for part, column in pairs]).sum()
    right = torch.stack([part.argmax(dim=1) == column for part, column in pairs])
    return loss, right.all(dim=0).float().mean()
