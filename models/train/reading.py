"""Teach the text encoder to read before it helps to draw.

Which word belongs to which object is plain from the caption's scene and hard to guess from pictures
that are mostly noise. Reading takes minutes; Stable Diffusion's text encoder came trained, too.
"""

import random

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextModel, CLIPTokenizer

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

BATCH_SIZE = 128
LEARNING_RATE = 1e-3
WARMUP = 50
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
    return [
        0 if word is None else 1 + choices.index(word)
        for choices, word in zip(QUESTIONS, words, strict=True)
    ]


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
    torch.manual_seed(0)
    width = text_encoder.config.hidden_size
    reader = nn.Linear(width, sum(1 + len(choices) for choices in QUESTIONS))
    parameters = [*text_encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
    for step in range(1, steps + 1):
        rate = min(step / WARMUP, 1 - (step - 1) / steps)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        rng = random.Random(f"reading {rank.index} {step}")  # noqa: S311
        captions = [
            draw_caption(rng, draw_scene(rng, two_objects=two_objects)) for _ in range(BATCH_SIZE)
        ]
        tokens = tokenizer(
            [caption.text for caption in captions], padding="max_length", return_tensors="pt"
        ).input_ids
        ends = text_encoder(tokens).pooler_output
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
    columns = answers.unbind(dim=1)
    pairs = list(zip(parts, columns, strict=True))
    loss = torch.stack([cross_entropy(part, column) for part, column in pairs]).sum()
    right = torch.stack([part.argmax(dim=1) == column for part, column in pairs])
    return loss, right.all(dim=0).float().mean()
