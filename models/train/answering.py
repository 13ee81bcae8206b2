"""Teach a text encoder to answer what captions say, by a linear reader at their end."""

import random
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from models.train.journal import Journal
from models.train.parallel import Rank

BATCH_SIZE = 128
LEARNING_RATE = 1e-3
WARMUP = 50

#: For each question the words that may answer it; nothing is an answer, too.
Questions = Sequence[Sequence[str]]
#: Draws captions; returns the ends of them, encoded, [B, D], and their answers [B, Q].
Lesson = Callable[[random.Random], tuple[Tensor, Tensor]]


def number_words(words: Iterable[str | None], questions: Questions) -> list[int]:
    """Write answers as numbers of their words, 0 where nothing is said."""
    return [
        0 if word is None else 1 + choices.index(word)
        for choices, word in zip(questions, words, strict=True)
    ]


def teach_to_answer(
    text_encoder: PreTrainedModel,
    questions: Questions,
    lesson: Lesson,
    journal: Journal,
    rank: Rank,
    *,
    steps: int,
) -> None:
    """Train the encoder so that all answers can be read off the ends of captions."""
    torch.manual_seed(0)
    width = text_encoder.config.hidden_size
    reader = nn.Linear(width, sum(1 + len(choices) for choices in questions))
    parameters = [*text_encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
    for step in range(1, steps + 1):
        rate = min(step / WARMUP, 1 - (step - 1) / steps)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        ends, answers = lesson(random.Random(f"reading {rank.index} {step}"))  # noqa: S311
        loss, share = _grade(reader(ends), answers, questions)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        rank.average_gradients(parameters)
        optimizer.step()
        if rank.is_first:
            values = {"loss": loss.item(), "all_right": share.item()}
            journal.note(step, values, samples=BATCH_SIZE * rank.count)


def _grade(logits: Tensor, answers: Tensor, questions: Questions) -> tuple[Tensor, Tensor]:
    """Return the loss, and the share of captions of which all answers are right."""
    parts = torch.split(logits, [1 + len(choices) for choices in questions], dim=1)
    pairs = list(zip(parts, answers.unbind(dim=1), strict=True))
    loss = torch.stack([cross_entropy(part, column) for part, column in pairs]).sum()
    right = torch.stack([part.argmax(dim=1) == column for part, column in pairs])
    return loss, right.all(dim=0).float().mean()
