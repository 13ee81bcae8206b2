"""Teach the text encoder to read before it helps to draw.

Which word belongs to which object is plain from the caption's scene and hard to guess from pictures
that are mostly noise. Reading takes minutes; Stable Diffusion's text encoder came trained, too.
"""

import random

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.train.answering import BATCH_SIZE, number_words, teach_to_answer
from models.train.journal import Journal
from models.train.parallel import Rank
from models.train.world import (
    BACKGROUNDS,
    EMOJI,
    SHAPE_COLORS,
    SHAPES,
    SIZES,
    Caption,
    Position,
    Relation,
    draw_caption,
    draw_scene,
)

KINDS = (*SHAPES, *EMOJI)
#: What a caption may say; each answer is one of these words, or nothing.
QUESTIONS: tuple[tuple[str, ...], ...] = (
    *2 * (KINDS, SHAPE_COLORS, tuple(SIZES)),
    tuple(Position),
    tuple(Relation),
    BACKGROUNDS,
    BACKGROUNDS,
)


def answer(caption: Caption) -> list[int]:
    """Say what a caption says: for each question the number of its word, 0 if it is unsaid."""
    scene = caption.scene
    words: list[str | None] = []
    for number in range(2):
        if number < len(scene.objects):
            thing = scene.objects[number]
            words += [thing.kind, thing.color, thing.size if caption.says_size[number] else None]
        else:
            words += [None, None, None]
    words += [scene.position if caption.says_position else None, scene.relation]
    colors = scene.background if caption.says_background else ()
    words += [colors[number] if number < len(colors) else None for number in range(2)]
    return number_words(words, QUESTIONS)


def teach_reading(
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    journal: Journal,
    rank: Rank,
    *,
    steps: int,
    two_objects: float,
) -> None:
    """Train the encoder so that all answers can be read off the end of the caption."""

    def draw_lesson(rng: random.Random) -> tuple[Tensor, Tensor]:
        captions = [
            draw_caption(rng, draw_scene(rng, two_objects=two_objects)) for _ in range(BATCH_SIZE)
        ]
        tokens = tokenizer(
            [caption.text for caption in captions], padding="max_length", return_tensors="pt"
        )
        ends = text_encoder(tokens.input_ids).pooler_output
        return ends, torch.tensor([answer(caption) for caption in captions])

    teach_to_answer(text_encoder, QUESTIONS, draw_lesson, journal, rank, steps=steps)
