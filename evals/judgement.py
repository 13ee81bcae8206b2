"""Judge many pictures of the demo model's world, on all cores."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from evals.checker import Verdict, compare, read
from evals.proportion import Proportion
from models.train.world import Caption

Picture = NDArray[np.uint8]
#: Pictures that a process is given at a time.
CHUNK = 25


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a picture shows what its caption says, and how well it is drawn."""

    verdict: Verdict
    #: How far what is seen is from the objects that it is taken for, in levels of 255: the root
    #: mean squared difference over each, and the mean over all; infinite where nothing is seen.
    error: float


def count_by_objects(judgements: Sequence[Judgement]) -> tuple[Proportion, Proportion]:
    """Count whose objects are right: in the first half, with one object each, and in the second."""
    half = len(judgements) // 2
    one, two = (
        Proportion.of(all(judgement.verdict.objects) for judgement in part)
        for part in (judgements[:half], judgements[half:])
    )
    return one, two


def judge_all(captions: Sequence[Caption], pictures: Sequence[Picture]) -> list[Judgement]:
    """Judge each picture by its caption."""
    processes = min(os.cpu_count() or 1, -(-len(pictures) // CHUNK))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_judge, captions, pictures, chunksize=CHUNK))


def _judge(caption: Caption, picture: Picture) -> Judgement:
    reading = read(picture)
    errors = [found.error for found in reading.objects]
    return Judgement(compare(reading, caption), float(np.mean(errors)) if errors else float("inf"))
