"""Draw by label with stock diffusers, on all cores, and judge what came out."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiTPipeline, DPMSolverMultistepScheduler
from diffusers.utils import logging
from numpy.typing import NDArray

from evals.checker import Reading, read
from evals.proportion import Proportion
from models.train.label_judge import LabelJudge

Picture = NDArray[np.uint8]
#: Pictures that one pipeline draws at a time.
CHUNK = 19
#: As the preset `balanced` has it.
STEPS = 25


@dataclass(frozen=True, slots=True)
class Score:
    """What the judges say of pictures of which each has a label."""

    #: The network names the label.
    named: Proportion
    #: The checker finds one object, and it is the label's.
    found: Proportion
    #: Root mean squared difference of two pictures of one label, in levels of 255.
    diversity: float
    #: What the network names, picture by picture.
    names: tuple[str, ...]


def draw_labels(
    model: Path, labels: Sequence[str], *, guidance: float, first_seed: int
) -> list[Picture]:
    """Draw one picture [H, W, 3] for each label, in their order, each with a seed of its own."""
    chunks = [
        (labels[start : start + CHUNK], first_seed + start)
        for start in range(0, len(labels), CHUNK)
    ]
    with _processes() as pool:
        drawn = pool.map(partial(_draw_chunk, model, guidance), *zip(*chunks, strict=True))
        return list(chain.from_iterable(drawn))


def score(judge: LabelJudge, labels: Sequence[str], pictures: Sequence[Picture]) -> Score:
    """Let both judges look at pictures; of each label there are at least two."""
    names = judge.name(pictures)
    with _processes() as pool:
        readings = list(pool.map(read, pictures, chunksize=CHUNK))
    return Score(
        named=Proportion.of(name == label for name, label in zip(names, labels, strict=True)),
        found=Proportion.of(
            shows_only(reading, label) for reading, label in zip(readings, labels, strict=True)
        ),
        diversity=_diversity(labels, pictures),
        names=tuple(names),
    )


def shows_only(reading: Reading, label: str) -> bool:
    """Tell whether one object was found, of that kind."""
    return [found.kind for found in reading.objects] == [label]


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))


def _draw_chunk(
    model: Path, guidance: float, labels: Sequence[str], first_seed: int
) -> list[Picture]:
    pipeline = _load(model)
    seeds = range(first_seed, first_seed + len(labels))
    images = pipeline(
        pipeline.get_label_ids(list(labels)),
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=STEPS,
        output_type="np",
    ).images
    return [np.rint(255 * image).astype(np.uint8) for image in images]


@cache
def _load(model: Path) -> Any:
    """Load the pipeline, once in a process."""
    torch.set_num_threads(1)
    # It complains that in JSON the numbers of labels are no numbers.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pipeline: Any = DiTPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        model, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    )
    scheduler: Any = DPMSolverMultistepScheduler  # ships no type information
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _diversity(labels: Sequence[str], pictures: Sequence[Picture]) -> float:
    """Average over labels the root mean squared difference of any two of its pictures."""
    stack = np.stack(pictures).astype(np.float64)
    groups = [stack[[other == label for other in labels]] for label in set(labels)]
    # The variance over pictures is half of the mean squared difference of two of them.
    return float(np.mean([np.sqrt(2 * group.var(axis=0, ddof=1).mean()) for group in groups]))
